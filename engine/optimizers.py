"""Optimizers: they change parameters in place, from gradients, with a learning rate given for each step.

Their state is made at the first step and is part of a checkpoint: a resumed optimizer gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from engine.errors import CheckpointError, SettingError, ShapeError
from engine.recording import Array
from engine.tensor import Tensor

_BLOCK = 2**15
"""Elements worked on at a time: the operands of one block stay in a core's second-level cache."""


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


class SGD:
    """Stochastic gradient descent: ``v = momentum * v + g; p -= learning_rate * v`` (Polyak 1964).

    Raises:
        SettingError: a learning rate that is not positive, a momentum outside [0, 1).
    """

    def __init__(self, learning_rate: float, momentum: float = 0.0) -> None:
        _check_rate(learning_rate)
        _check_fraction("momentum", momentum)
        self.learning_rate = learning_rate
        self.momentum = momentum
        self._velocities: list[Array] = []

    def apply(self, parameters: Sequence[Tensor], gradients: Sequence[Array], learning_rate: float) -> None:
        """Take one step; destroys the gradients."""
        _check_shapes(parameters, gradients)
        if not self.momentum:
            for p, g in _arrays(parameters, gradients):
                np.multiply(g, learning_rate, out=g)
                np.subtract(p, g, out=p)
            return
        if not self._velocities:
            self._velocities = [np.zeros(p.shape, p.dtype) for p in parameters]
        for p, g, v in _blocks(parameters, gradients, self._velocities):
            np.multiply(v, self.momentum, out=v)
            np.add(v, g, out=v)
            np.multiply(v, learning_rate, out=g)
            np.subtract(p, g, out=p)

    def state_dict(self) -> dict[str, Array]:
        """``velocity.0``, ``velocity.1``, ... in the order of the parameters."""
        return {f"velocity.{i}": v.copy() for i, v in enumerate(self._velocities)}

    def load_state_dict(self, state: Mapping[str, Array], parameters: Sequence[Tensor]) -> None:
        """Continue from ``state``."""
        self._velocities = _moments(state, "velocity", parameters)
        _check_rest(state, len(self._velocities))


class Adam:
    """Adam, Algorithm 1 of Kingma & Ba 2015 (arXiv:1412.6980).

    Raises:
        SettingError: a learning rate or epsilon that is not positive, a beta outside [0, 1).
    """

    def __init__(
        self, learning_rate: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        _check_rate(learning_rate)
        _check_fraction("beta1", beta1)
        _check_fraction("beta2", beta2)
        if not epsilon > 0:
            raise SettingError(f"epsilon {epsilon} must be positive", setting="epsilon")
        self.learning_rate = learning_rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self._steps = 0
        self._first: list[Array] = []
        self._second: list[Array] = []

    def apply(self, parameters: Sequence[Tensor], gradients: Sequence[Array], learning_rate: float) -> None:
        """Take one step; destroys the gradients."""
        _check_shapes(parameters, gradients)
        if not self._first:
            self._first = [np.zeros(p.shape, p.dtype) for p in parameters]
            self._second = [np.zeros(p.shape, p.dtype) for p in parameters]
        self._steps += 1
        # The order of section 2's last paragraph, where both bias corrections become scalars outside the arrays. The
        # moments are kept as sums, so that their factors 1 - beta become scalars too: ten passes instead of twelve.
        root = ((1 - self.beta2**self._steps) / (1 - self.beta2)) ** 0.5
        rate = learning_rate * root * (1 - self.beta1) / (1 - self.beta1**self._steps)
        epsilon = self.epsilon * root
        for p, g, m, v in _blocks(parameters, gradients, self._first, self._second):
            np.multiply(m, self.beta1, out=m)
            np.add(m, g, out=m)  # m = beta1 m + g
            np.multiply(g, g, out=g)
            np.multiply(v, self.beta2, out=v)
            np.add(v, g, out=v)  # v = beta2 v + g^2
            np.sqrt(v, out=g)
            np.add(g, epsilon, out=g)
            np.divide(m, g, out=g)
            np.multiply(g, rate, out=g)
            np.subtract(p, g, out=p)

    def state_dict(self) -> dict[str, Array]:
        """``steps``, and ``first_sum.0``, ``second_sum.0``, ... in the order of the parameters.

        The sums are the moments divided by ``1 - beta1`` and ``1 - beta2``.
        """
        if not self._first:
            return {}
        state: dict[str, Array] = {"steps": np.array(self._steps, np.int64)}
        state |= {f"first_sum.{i}": m.copy() for i, m in enumerate(self._first)}
        state |= {f"second_sum.{i}": v.copy() for i, v in enumerate(self._second)}
        return state

    def load_state_dict(self, state: Mapping[str, Array], parameters: Sequence[Tensor]) -> None:
        """Continue from ``state``."""
        first, second = _moments(state, "first_sum", parameters), _moments(state, "second_sum", parameters)
        steps = state.get("steps", np.array(0, np.int64))
        if (
            steps.shape != ()
            or steps.dtype != np.int64
            or (int(steps) > 0) != bool(first)
            or bool(first) != bool(second)
        ):
            raise CheckpointError("the optimizer's step count and moments do not belong together", tensor="steps")
        _check_rest(state, 2 * len(first) + ("steps" in state))
        self._steps, self._first, self._second = int(steps), first, second


def _arrays(*groups: Sequence[Array]) -> Iterator[tuple[Array, ...]]:
    """Walk through groups of arrays in step, as plain arrays."""
    for group in zip(*groups, strict=True):
        yield tuple(np.asarray(array) for array in group)


def _blocks(*groups: Sequence[Array]) -> Iterator[tuple[Array, ...]]:
    """As :func:`_arrays`, in pieces that fit the cache: an update of many passes is then bound by arithmetic."""
    for group in _arrays(*groups):
        if group[0].size <= _BLOCK or not all(array.flags.c_contiguous for array in group):
            yield group
            continue
        rows = [array.reshape(-1) for array in group]
        for start in range(0, rows[0].size, _BLOCK):
            yield tuple(row[start : start + _BLOCK] for row in rows)


def _check_rate(learning_rate: float) -> None:
    if not 0 < learning_rate < float("inf"):
        raise SettingError(f"learning_rate {learning_rate} must be positive and finite", setting="learning_rate")


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise SettingError(f"{name} {value} is not in [0, 1)", setting=name)


def _check_shapes(parameters: Sequence[Tensor], gradients: Sequence[Array]) -> None:
    if len(parameters) != len(gradients):
        raise ShapeError(f"{len(parameters)} parameters but {len(gradients)} gradients", operation="apply")
    for p, g in zip(parameters, gradients, strict=True):
        if p.shape != g.shape:
            raise ShapeError(
                f"apply: parameter {p.shape} and gradient {g.shape} differ",
                operation="apply",
                shapes=(p.shape, g.shape),
            )


def _moments(state: Mapping[str, Array], kind: str, parameters: Sequence[Tensor]) -> list[Array]:
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
        moments.append(np.array(array))
    return moments


def _check_rest(state: Mapping[str, Array], used: int) -> None:
    if len(state) != used:
        raise CheckpointError(
            f"the optimizer's state is of another kind of optimizer: it has {', '.join(sorted(state))}"
        )
