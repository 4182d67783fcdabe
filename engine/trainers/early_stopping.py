"""Early stopping: a run ends when a metric has not improved for some epochs (Prechelt 1998)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from engine.errors import CheckpointError, SettingError, check_positive

__all__ = ["EarlyStopping", "StoppedEarly"]


@dataclass(frozen=True, slots=True)
class StoppedEarly:
    """Why a run ended before its last epoch.

    Attributes:
        metric: the metric that stopped improving.
        best, best_epoch: its best value, and the epoch of that value.
        patience: number of epochs without improvement since then.
    """

    metric: str
    best: float
    best_epoch: int
    patience: int


@dataclass(eq=False)
class EarlyStopping:
    """Counts epochs without improvement. It belongs to one trainer, and its count is part of the trainer's state.

    Stopping does not restore the best weights: they are those of the last epoch. NaN is not an improvement, and a
    metric that has always been NaN does not stop a run.

    Attributes:
        metric: a metric that the trainer reports after each epoch.
        higher_is_better: whether a higher value is an improvement.
        patience: number of epochs without improvement after which the run ends, at least 1.
        min_delta: an improvement must exceed the best value by more than this.

    Raises:
        SettingError: a setting is out of range.
    """

    metric: str
    _: KW_ONLY
    higher_is_better: bool
    patience: int
    min_delta: float = 0.0
    _best: float | None = field(default=None, init=False)
    _best_epoch: int = field(default=0, init=False)
    _epoch: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        check_positive("early stopping: ", patience=self.patience)
        if not 0 <= self.min_delta < math.inf:
            problem = f"min_delta {self.min_delta} must be finite and not negative"
            raise SettingError(f"early stopping: {problem}", setting="min_delta")

    def update(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Update the count after an epoch.

        Raises:
            SettingError: the trainer does not report the metric.
        """
        if self.metric not in metrics:
            raise SettingError(
                f"early stopping: no metric {self.metric!r}; there are {', '.join(sorted(metrics))}", setting="metric"
            )
        value, self._epoch = metrics[self.metric], epoch
        if math.isnan(value):
            return  # neither an improvement nor a first value
        sign = 1 if self.higher_is_better else -1
        if self._best is None or sign * (value - self._best) > self.min_delta:
            self._best, self._best_epoch = value, epoch

    @property
    def stopped(self) -> StoppedEarly | None:
        """Why the run must end; None if it continues."""
        if self._best is None or self._epoch - self._best_epoch < self.patience:
            return None
        return StoppedEarly(self.metric, self._best, self._best_epoch, self.patience)

    @property
    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("metric", "higher_is_better", "patience", "min_delta")}

    def state_dict(self) -> dict[str, Any]:
        """The count with its settings, as a JSON object."""
        return self._settings | {"best": self._best, "best_epoch": self._best_epoch}

    def load_state_dict(self, state: Any, epoch: int) -> None:
        """Continue after ``epoch``. If ``state`` is None or belongs to other settings, start counting there.

        Raises:
            CheckpointError: the state is invalid.
        """
        if not isinstance(state, dict) or state | self._settings != state:
            self._best, self._best_epoch, self._epoch = None, epoch, epoch
            return
        best, best_epoch = state.get("best"), state.get("best_epoch")
        if not isinstance(best, float | None) or not isinstance(best_epoch, int) or not 0 <= best_epoch <= epoch:
            raise CheckpointError(f"early stopping: best {best!r} in epoch {best_epoch!r} is invalid")
        self._best, self._best_epoch, self._epoch = best, best_epoch, epoch
