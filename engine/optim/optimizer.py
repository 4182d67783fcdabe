"""What an optimizer is, and what all of them share: settings, clipping before each step, state of past steps.

Optimizers change parameters in place, from gradients, with a learning rate given for each step. Their state is made at
the first step and is part of a checkpoint: a resumed optimizer gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from engine import memory
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor, refuse_update
from engine.errors import CheckpointError, SettingError, ShapeError
from engine.optim.clipping import clip_by_global_norm

CACHE_BLOCK_ELEMENTS = 2**16
"""Elements updated at a time: the operands of one block stay in a core's second-level cache."""
UNDERFLOW = 1e-30
"""Magnitude below which an element of momentum's sums counts as 0. Below 1e-38 a float32 is denormal, and some
processors need a hundred times as long for those; momentum 0.9 is there 830 steps after the last gradient."""
UNDERFLOW_INTERVAL_STEPS = 32
"""Steps from one search for such elements to the next."""


class Optimizer(Protocol):
    """What a trainer asks of an optimizer.

    Attributes:
        learning_rate: the rate that a schedule's factor multiplies.
    """

    learning_rate: float

    def apply(self, parameters: Sequence[Tensor], gradients: Sequence[Array], learning_rate: float) -> None:
        """Take one step. The gradients are used as scratch memory and hold nothing useful afterwards."""

    def state_dict(self) -> dict[str, Array]:
        """Copies of the state by name; empty before the first step."""

    def load_state_dict(self, state: Mapping[str, Array], parameters: Sequence[Tensor]) -> None:
        """Continue from ``state``, made by an optimizer of the same kind for parameters of the same shapes."""


class Descent:
    """The settings that all optimizers here share, and what is done before each step."""

    def __init__(
        self, learning_rate: float, *, weight_decay: float, decay_biases: bool, clip_norm: float | None
    ) -> None:
        if not 0 < learning_rate < math.inf:
            raise SettingError(f"learning_rate {learning_rate} must be positive and finite", setting="learning_rate")
        check_decay(weight_decay)
        if clip_norm is not None and not 0 < clip_norm < math.inf:
            raise SettingError(f"clip_norm {clip_norm} must be positive and finite", setting="clip_norm")
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.decay_biases = decay_biases
        self.clip_norm = clip_norm
        self._steps = 0

    def _prepare(self, parameters: Sequence[Tensor], gradients: Sequence[Array]) -> None:
        refuse_update(parameters, "an optimizer's step")
        if len(parameters) != len(gradients):
            raise ShapeError(f"{len(parameters)} parameters but {len(gradients)} gradients", operation="apply")
        if len({*map(id, parameters)}) < len(parameters):
            raise SettingError("apply: a parameter is given twice, and would be updated twice", setting="parameters")
        for p, g in zip(parameters, gradients, strict=True):
            if p.shape != g.shape:
                raise ShapeError(
                    f"apply: parameter {p.shape} and gradient {g.shape} differ",
                    operation="apply",
                    shapes=(p.shape, g.shape),
                )
        if self.clip_norm is not None:
            clip_by_global_norm(gradients, self.clip_norm)
        self._steps += 1

    def _flush_underflow(self, sums: Sequence[Array], scratch: Sequence[Array]) -> None:
        """Every ``UNDERFLOW_INTERVAL_STEPS``, set elements of ``sums`` to 0 that are too small to move a parameter."""
        if self._steps % UNDERFLOW_INTERVAL_STEPS:
            return
        for whole, other in in_step(sums, scratch):
            for part, size in blocks(whole, other):
                np.abs(part, out=size)
                np.copyto(part, 0, where=size < UNDERFLOW)

    def _decay_of(self, parameter: Array) -> float:
        return self.weight_decay if self.decay_biases or parameter.ndim > 1 else 0.0


def in_step(*groups: Sequence[Array]) -> Iterator[tuple[Array, ...]]:
    """Walk through groups of arrays in step, as plain arrays."""
    for group in zip(*groups, strict=True):
        yield tuple(np.asarray(array) for array in group)


def blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Arrays of one shape in pieces that fit the cache: an update of many passes is then bound by arithmetic."""
    size = arrays[0].size
    if size <= CACHE_BLOCK_ELEMENTS or not all(array.flags.c_contiguous for array in arrays):
        yield arrays
        return
    rows = [array.reshape(-1) for array in arrays]
    for start in range(0, size, CACHE_BLOCK_ELEMENTS):
        yield tuple(row[start : start + CACHE_BLOCK_ELEMENTS] for row in rows)


def check_decay(weight_decay: float) -> None:
    """Raise SettingError unless a weight decay is finite and not negative."""
    if not 0 <= weight_decay < math.inf:
        raise SettingError(f"weight_decay {weight_decay} must be finite and not negative", setting="weight_decay")


def check_fraction(name: str, value: float) -> None:
    """Raise SettingError unless ``value`` is in [0, 1)."""
    if not 0 <= value < 1:
        raise SettingError(f"{name} {value} is not in [0, 1)", setting=name)


def load_moments(state: Mapping[str, Array], kind: str, parameters: Sequence[Tensor]) -> list[Array]:
    """Copies of the arrays ``kind.0``, ``kind.1``, ...: one a parameter, or none at all."""
    names = [f"{kind}.{i}" for i in range(len(parameters))]
    if not any(name in state for name in names):
        return []
    moments: list[Array] = []
    for name, parameter in zip(names, parameters, strict=True):
        if name not in state:
            raise CheckpointError(f"{name} is missing from the optimizer's state", tensor=name)
        array = state[name]
        if array.shape != parameter.shape or array.dtype != parameter.dtype:
            raise CheckpointError(
                f"{name} is {array.dtype} {array.shape} in the checkpoint, but its parameter is "
                f"{parameter.dtype} {parameter.shape}",
                tensor=name,
            )
        if not np.isfinite(array).all():
            raise CheckpointError(f"{name} holds numbers in the checkpoint that are not finite", tensor=name)
        moments.append(memory.copy(array))
    return moments


def load_step_count(state: Mapping[str, Array]) -> int:
    """The number of steps taken; 0 where the state does not say."""
    steps = state.get("steps", np.array(0, np.int64))
    if steps.shape != () or steps.dtype != np.int64 or steps < 0:
        raise CheckpointError("the optimizer's step count is no whole number from 0 on", tensor="steps")
    return int(steps)


def check_rest(state: Mapping[str, Array], used: int) -> None:
    """Raise CheckpointError unless ``used`` entries of ``state`` are all it has."""
    if len(state) != used:
        raise CheckpointError(
            f"the optimizer's state is of another kind of optimizer: it has {', '.join(sorted(state))}"
        )
