"""The position in a run, and the rule that only whole epochs have a state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from engine import memory
from engine.autograd.graph import Array
from engine.checkpoint import State
from engine.errors import CheckpointError, DivergedError, EngineError, SettingError
from engine.nn.containers import Sequential
from engine.trainers.early_stopping import EarlyStopping, StoppedEarly
from engine.trainers.reports import EpochDone


class Progress:
    """Counts epochs and steps for a trainer.

    Args:
        epochs: number of epochs of the whole run, unless it stops early.
        steps_per_epoch: number of batches per epoch.
        early_stopping: may end the run early.

    Attributes:
        epoch: number of finished epochs.
        underway: whether an epoch was started and not finished, so that the weights belong to no epoch.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, early_stopping: EarlyStopping | None = None) -> None:
        if epochs < 1:
            raise SettingError(f"epochs {epochs} must be positive", setting="epochs")
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.early_stopping = early_stopping
        self.epoch = 0
        self.underway = False
        _keep_freed_memory()

    @property
    def parts(self) -> list[object]:
        """The objects that :meth:`load` changes."""
        return [self] if self.early_stopping is None else [self, self.early_stopping]

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def step(self) -> int:
        """Steps of the finished epochs."""
        return self.epoch * self.steps_per_epoch

    @property
    def stopped_early(self) -> StoppedEarly | None:
        """Why the run ended before its last epoch; None if it did not."""
        if self.early_stopping is None or self.epoch >= self.epochs:
            return None
        return self.early_stopping.stopped

    @property
    def over(self) -> bool:
        """Whether the run has no further epochs."""
        return self.epoch >= self.epochs or self.stopped_early is not None

    def finish_epoch(
        self, metrics: dict[str, float], confusion: Array | None = None, is_best: bool = False
    ) -> EpochDone:
        """Count the epoch that was underway; returns its report."""
        self.epoch += 1
        self.underway = False
        if self.early_stopping:
            self.early_stopping.update(self.epoch, metrics)
        return EpochDone(self.epoch, self.epochs, self.step, metrics, confusion, is_best, self.over)

    def state_dict(self, kind: str) -> dict[str, Any]:
        """The position of a trainer of this ``kind``, as a JSON object."""
        state: dict[str, Any] = {"trainer": kind, "epoch": self.epoch}
        if self.early_stopping:
            state["early_stopping"] = self.early_stopping.state_dict()
        return state

    def require_whole_epoch(self, operation: str) -> None:
        """Raise EngineError in the middle of an epoch."""
        if self.underway:
            raise EngineError(f"{operation}: epoch {self.epoch + 1} was not finished; load a state first")

    def load(self, state: Mapping[str, Any], kind: str) -> None:
        """Load the position from the state of a trainer of this ``kind``.

        Raises:
            CheckpointError: another kind of trainer, or an epoch that this run does not have.
        """
        if state.get("trainer") != kind:
            raise CheckpointError(f"a state of trainer {state.get('trainer')!r}, but this is a {kind!r}")
        epoch = state.get("epoch")
        if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 <= epoch <= self.epochs:
            raise CheckpointError(f"the state is after epoch {epoch!r}, but this run has {self.epochs}")
        if self.early_stopping:
            self.early_stopping.load_state_dict(state.get("early_stopping"), epoch)
        self.epoch = epoch
        self.underway = False

    def check_finite(self, loss: str, value: float, step: int) -> None:
        """Raise DivergedError unless ``value`` is a finite number."""
        if not math.isfinite(value):
            raise DivergedError(epoch=self.epoch + 1, step=step, loss=loss, value=value)

    def check_weights(self, model: Sequential, before: Mapping[str, Array], step: int, prefix: str = "") -> None:
        """Check the weights of a model after the last update of an epoch, because no loss follows it.

        Raises:
            DivergedError: a weight is not finite.
            EngineError: a weight or buffer has other memory than ``before`` the run, which the optimizer, the averages
                and the replay still use.
        """
        for name, array in model.named_arrays().items():
            if name not in before or memory.address(array) != memory.address(before[name]):
                raise EngineError(
                    f"{prefix}{name} was replaced by another array during the run; write into it (array[...] = x)"
                )
            for extreme in (np.min(array), np.max(array)):  # both propagate NaN, and allocate nothing
                self.check_finite(prefix + name, float(extreme), step)


def check_dtype(dtype: np.dtype[Any], *models: Sequential) -> None:
    """Raise unless the models have the dtype of their inputs; otherwise every step would convert them.

    Raises:
        SettingError: a model's weights have another dtype.
    """
    for model in models:
        if model.dtype != dtype:
            raise SettingError(f"dtype {dtype} for a model whose weights are {model.dtype}", setting="dtype")


def present_parts(tensors: Mapping[str, Array], parts: Sequence[str]) -> dict[str, list[str]]:
    """The ``parts`` (prefixes of names) that a state contains, for :func:`check_parts`."""
    return {"parts": [part for part in parts if any(name.startswith(part) for name in tensors)]}


def check_parts(state: State, weights: Sequence[str], parts: Sequence[str], ignored: Sequence[str] = ()) -> None:
    """Raise unless a state has exactly the parts that it lists.

    A state that does not list its parts (for example, that of a fork) may lack some.

    Args:
        weights: prefixes of the names of weights.
        parts: prefixes of all other parts that the trainer uses.
        ignored: prefixes that it ignores if the state does not list its parts.

    Raises:
        CheckpointError: a part is missing or unknown, or a tensor belongs to no part.
    """
    listed = state.state.get("parts", [])
    if not isinstance(listed, list):
        raise CheckpointError(f"the state's parts are {listed!r}, not a list")
    for part in listed:
        if part not in parts:
            raise CheckpointError(f"the state has a part {part!r}, which this trainer does not use")
        if not any(name.startswith(part) for name in state.tensors):
            raise CheckpointError(f"the state's part {part!r} is missing from the checkpoint")
    known_prefixes = (*weights, *parts, *ignored)
    for name in state.tensors:
        if not name.startswith(known_prefixes):
            raise CheckpointError(f"{name} is in the checkpoint, but this trainer does not use it", tensor=name)


@contextmanager
def unchanged_on_error(arrays: Sequence[Array], *objects: object) -> Iterator[None]:
    """If an error leaves the block, restore the content of the arrays and the attributes of the objects."""
    saved_arrays = [array.copy() for array in arrays]
    saved_attributes = [dict(vars(item)) for item in objects]
    try:
        yield
    except BaseException:
        for array, saved in zip(arrays, saved_arrays, strict=True):
            np.copyto(np.asarray(array), saved)
        for item, values in zip(objects, saved_attributes, strict=True):
            vars(item).clear()
            vars(item).update(values)
        raise


def with_prefix(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The same arrays with ``prefix`` before their names."""
    return {prefix + name: array for name, array in tensors.items()}


def under_prefix(prefix: str, state: State) -> dict[str, Array]:
    """The tensors of ``state`` whose names begin with ``prefix``, without the prefix."""
    return {name.removeprefix(prefix): a for name, a in state.tensors.items() if name.startswith(prefix)}


def _keep_freed_memory() -> None:
    """Let the allocator keep the memory that a step frees, for the next step.

    By default, glibc returns the top of its heap to the kernel whenever a few megabytes are free. Each step of a GAN
    then spends a quarter of its time on new pages. After one large block has been allocated and freed, glibc raises
    both of its thresholds (mallopt(3), M_MMAP_THRESHOLD). With other allocators, this has no effect.
    """
    np.empty(2**24, np.uint8)  # never accessed, so it uses no memory


class Means:
    """Means over an epoch, weighted by batch size."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: float, count: int) -> None:
        """Add a value that is the mean over ``count`` images."""
        self._totals[name] = self._totals.get(name, 0.0) + value * count
        self._counts[name] = self._counts.get(name, 0) + count

    def result(self) -> dict[str, float]:
        """The means by name."""
        return {name: total / self._counts[name] for name, total in self._totals.items()}
