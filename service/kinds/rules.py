"""Rules that recognize training failures from metrics: what those of all kinds share."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from service.kinds.advice import Case
from service.schema.findings import Advice
from service.states import FindingCode, Severity

WINDOW_EPOCHS: Final = 3
"""Consecutive epochs for which a rule must hold to raise a finding (unless the rule says otherwise), and must not hold
to clear it."""
MAX_SCORED: Final = 10
"""Epochs with scored samples that a rule may look back."""

Metrics = Mapping[str, float | None]
Evidence = tuple[str, dict[str, float]]
"""A sentence, and the values that it is based on."""


@dataclass(slots=True)
class MetricHistory:
    """The metrics that the rules need. Its size does not grow with the number of epochs."""

    recent: deque[Metrics] = field(default_factory=lambda: deque(maxlen=WINDOW_EPOCHS + 1))
    evaluated: deque[tuple[int, Metrics]] = field(default_factory=lambda: deque(maxlen=MAX_SCORED + 1))
    """The latest epochs whose samples the reference classifier scored, with their numbers."""
    first: Metrics = field(default_factory=dict)
    best: Metrics = field(default_factory=dict)
    """The epoch with the lowest validation loss."""
    lowest_loss: float = math.inf
    """The lowest training loss."""
    leak: str | None = None
    """What is known of columns that alone predict the class."""

    def add(self, number: int, epoch: Metrics) -> None:
        """Add the next epoch."""
        self.first = self.first or epoch
        self.recent.append(epoch)
        if epoch.get("mode_coverage") is not None:
            self.evaluated.append((number, epoch))
        if not self.best or value(epoch, "val_loss") < value(self.best, "val_loss"):
            self.best = epoch
        if value(epoch, "train_loss") < self.lowest_loss:
            self.lowest_loss = value(epoch, "train_loss")

    @property
    def score(self) -> str:
        """The metric of what has been learned: the accuracy, or a regressor's share of the variance."""
        return "val_r2" if "val_r2" in self.first else "val_accuracy"

    def last(self, name: str, count: int = WINDOW_EPOCHS) -> list[float]:
        """The values of the last ``count`` epochs; empty unless all have one."""
        values = [value for epoch in list(self.recent)[-count:] if (value := epoch.get(name)) is not None]
        return values if len(values) == count else []


@dataclass(frozen=True, slots=True)
class Rule:
    """How a finding is recognized."""

    code: FindingCode
    severity: Severity
    evidence: Callable[[MetricHistory], Evidence | None]
    persists: Callable[[MetricHistory], bool] | None = None
    """Whether an open finding stays open, if ``WINDOW_EPOCHS`` epochs without evidence do not decide this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The findings that trainings of a kind can have."""

    rules: tuple[Rule, ...]
    """One for each of its ``findings``, in the same order."""
    advice: Mapping[FindingCode, Callable[[Case], Iterable[Advice]]]
    """What helps, best first."""
    is_stuck: Callable[[MetricHistory], bool] = lambda history: False
    """Whether a network hardly moves; advice may depend on it."""


def unit_share(metric: str, condition: str) -> Callable[[MetricHistory], Evidence | None]:
    """A rule for layers with a large share of such units."""

    def evidence(history: MetricHistory) -> Evidence | None:
        for name in history.recent[-1]:
            shares = history.last(name) if name.startswith(f"{metric}/") else []
            if shares and min(shares) >= 0.9:
                return f"{shares[-1]:.0%} of {name.partition('/')[2]} {condition}", {name: shares[-1]}
        return None

    return evidence


DEAD = unit_share("dead_units", "are zero for every probe example")


SATURATED = unit_share("saturation", "is saturated: its outputs are near their limits, where the slope is nearly zero")


def value(epoch: Metrics, name: str) -> float:
    """A metric of an epoch; not a number if it has none."""
    value = epoch.get(name)
    return math.nan if value is None else value


def finite(value: float | None) -> float | None:
    """The value, if it is finite."""
    return value if value is not None and math.isfinite(value) else None
