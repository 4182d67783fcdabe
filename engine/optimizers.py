"""Optimizers: they change parameters in place, from gradients, with a learning rate given for each step.

Their state is made at the first step and is part of a checkpoint: a resumed optimizer gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from engine import memory
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor
from engine.errors import CheckpointError, SettingError, ShapeError

_BLOCK = 2**15
"""Elements worked on at a time: the operands of one block stay in a core's second-level cache."""
_FADED = 1e-30
_FADED_EVERY = 32
"""Steps after which what is smaller than that is dropped from momentum's sums. Below 1e-38 a float32 is denormal, and
some processors need a hundred times as long for those; momentum 0.9 is there 830 steps after the last gradient."""


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


class _Descent:
    """The settings that all optimizers here share, and what is done before each step."""

    def __init__(
        self, learning_rate: float, *, weight_decay: float, decay_biases: bool, clip_norm: float | None
    ) -> None:
        if not 0 < learning_rate < math.inf:
            raise SettingError(f"learning_rate {learning_rate} must be positive and finite", setting="learning_rate")
        _check_decay(weight_decay)
        if clip_norm is not None and not 0 < clip_norm < math.inf:
            raise SettingError(f"clip_norm {clip_norm} must be positive and finite", setting="clip_norm")
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.decay_biases = decay_biases
        self.clip_norm = clip_norm
        self._steps = 0

    def _prepare(self, parameters: Sequence[Tensor], gradients: Sequence[Array]) -> None:
        if len(parameters) != len(gradients):
            raise ShapeError(f"{len(parameters)} parameters but {len(gradients)} gradients", operation="apply")
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

    def _drop_faded(self, sums: Sequence[Array], scratch: Sequence[Array]) -> None:
        """Now and then, set what has faded away to zero; the parameters do not notice."""
        if self._steps % _FADED_EVERY:
            return
        for whole, other in _arrays(sums, scratch):
            for part, size in blocks(whole, other):
                np.abs(part, out=size)
                np.copyto(part, 0, where=size < _FADED)

    def _decay_of(self, parameter: Array) -> float:
        return self.weight_decay if self.decay_biases or parameter.ndim > 1 else 0.0


class SGD(_Descent):
    """Stochastic gradient descent with momentum: heavy ball (Polyak 1964) or Nesterov (Sutskever et al. 2013).

    ``g`` is the gradient, ``v`` begins as zero, and a step is, as PyTorch has it::

        g = g + weight_decay * p
        v = momentum * v + g
        p = p - learning_rate * (g + momentum * v  if nesterov else  v)

    So the decay is the gradient of ``weight_decay / 2 * |p|**2`` (L2, coupled: momentum acts on it too). Nesterov
    takes the gradient where momentum leads to; as in Bengio et al. 2012 (arXiv:1212.0901), ``p`` is that point.

    Args:
        weight_decay: not negative.
        decay_biases: False spares what has one axis only: biases, and the scale and shift of a batch norm.
        clip_norm: gradients are clipped first, see :func:`clip_by_global_norm`; None: not at all.

    Raises:
        SettingError: a learning rate or clip norm that is not positive, a negative decay, a momentum outside [0, 1),
            Nesterov without momentum.
    """

    def __init__(
        self,
        learning_rate: float,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decay_biases: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, decay_biases=decay_biases, clip_norm=clip_norm)
        _check_fraction("momentum", momentum)
        if nesterov and not momentum:
            raise SettingError("nesterov needs a momentum above 0", setting="nesterov")
        self.momentum = momentum
        self.nesterov = nesterov
        self._velocities: list[Array] = []

    def apply(self, parameters: Sequence[Tensor], gradients: Sequence[Array], learning_rate: float) -> None:
        """Take one step; destroys the gradients."""
        self._prepare(parameters, gradients)
        if not self.momentum:
            for p, g in _arrays(parameters, gradients):
                if decay := self._decay_of(p):
                    np.multiply(p, 1 - learning_rate * decay, out=p)  # without momentum the coupling makes no odds
                np.multiply(g, learning_rate, out=g)
                np.subtract(p, g, out=p)
            return
        if not self._velocities:
            self._velocities = [memory.zeros(p.shape, p.dtype) for p in parameters]
        for p, g, v in _arrays(parameters, gradients, self._velocities):
            self._step_with_momentum(p, g, v, learning_rate)
        self._drop_faded(self._velocities, gradients)

    def _step_with_momentum(self, parameter: Array, gradient: Array, velocity: Array, learning_rate: float) -> None:
        decay = self._decay_of(parameter)
        for p, g, v in blocks(parameter, gradient, velocity):
            if decay:
                g += np.multiply(p, decay)
            np.multiply(v, self.momentum, out=v)
            np.add(v, g, out=v)
            if self.nesterov:
                np.multiply(g, learning_rate, out=g)
                np.subtract(p, g, out=p)
                np.multiply(v, learning_rate * self.momentum, out=g)
            else:
                np.multiply(v, learning_rate, out=g)
            np.subtract(p, g, out=p)

    def state_dict(self) -> dict[str, Array]:
        """With momentum: ``steps``, and ``velocity.0``, ``velocity.1``, ... in the order of the parameters."""
        if not self._velocities:
            return {}
        state: dict[str, Array] = {"steps": np.array(self._steps, np.int64)}
        return state | {f"velocity.{i}": v.copy() for i, v in enumerate(self._velocities)}

    def load_state_dict(self, state: Mapping[str, Array], parameters: Sequence[Tensor]) -> None:
        """Continue from ``state``; one that was written before steps were counted is as good."""
        velocities, steps = _moments(state, "velocity", parameters), _count(state)
        _check_rest(state, len(velocities) + ("steps" in state))
        self._steps, self._velocities = steps, velocities


class Adam(_Descent):
    """Adam, Algorithm 1 of Kingma & Ba 2015 (arXiv:1412.6980).

    Args:
        clip_norm: gradients are clipped first, see :func:`clip_by_global_norm`; None: not at all.

    Raises:
        SettingError: a learning rate, epsilon or clip norm that is not positive, a beta outside [0, 1).
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay=0.0, decay_biases=True, clip_norm=clip_norm)
        _check_fraction("beta1", beta1)
        _check_fraction("beta2", beta2)
        if not epsilon > 0:
            raise SettingError(f"epsilon {epsilon} must be positive", setting="epsilon")
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self._first: list[Array] = []
        self._second: list[Array] = []

    def apply(self, parameters: Sequence[Tensor], gradients: Sequence[Array], learning_rate: float) -> None:
        """Take one step; destroys the gradients."""
        self._prepare(parameters, gradients)
        if not self._first:
            self._first = [memory.zeros(p.shape, p.dtype) for p in parameters]
            self._second = [memory.zeros(p.shape, p.dtype) for p in parameters]
        # The order of section 2's last paragraph, where both bias corrections become scalars outside the arrays. The
        # moments are kept as sums, so that their factors 1 - beta become scalars too: ten passes instead of twelve.
        root = ((1 - self.beta2**self._steps) / (1 - self.beta2)) ** 0.5
        rate = learning_rate * root * (1 - self.beta1) / (1 - self.beta1**self._steps)
        epsilon = self.epsilon * root
        for parameter, *others in _arrays(parameters, gradients, self._first, self._second):
            kept = 1 - learning_rate * self._decay_of(parameter)
            for p, g, m, v in blocks(parameter, *others):
                np.multiply(m, self.beta1, out=m)
                np.add(m, g, out=m)  # m = beta1 m + g
                np.multiply(g, g, out=g)
                np.multiply(v, self.beta2, out=v)
                np.add(v, g, out=v)  # v = beta2 v + g^2
                np.sqrt(v, out=g)
                np.add(g, epsilon, out=g)
                np.divide(m, g, out=g)
                np.multiply(g, rate, out=g)
                if kept != 1:
                    np.multiply(p, kept, out=p)
                np.subtract(p, g, out=p)
        self._drop_faded(self._first, gradients)

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
        steps = _count(state)
        _check_rest(state, len(first) + len(second) + ("steps" in state))
        if (steps > 0) != bool(first) or bool(first) != bool(second):
            raise CheckpointError("the optimizer's step count and moments do not belong together", tensor="steps")
        self._steps, self._first, self._second = steps, first, second


class AdamW(Adam):
    """Adam with decoupled weight decay, Algorithm 2 of Loshchilov & Hutter 2019 (arXiv:1711.05101).

    Before Adam's step, whose moments do not see the decay: ``p = p - learning_rate * weight_decay * p``, with the
    scheduled learning rate, as PyTorch has it.

    Args:
        weight_decay: not negative.
        decay_biases: False spares what has one axis only: biases, and the scale and shift of a batch norm.
        clip_norm: as for Adam.

    Raises:
        SettingError: as for Adam; a negative decay.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        weight_decay: float = 0.01,
        decay_biases: bool = True,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, beta1, beta2, epsilon, clip_norm=clip_norm)
        _check_decay(weight_decay)
        self.weight_decay = weight_decay
        self.decay_biases = decay_biases


def global_norm(gradients: Sequence[Array]) -> float:
    """The Euclidean norm of all gradients together, as if they were one vector."""
    squares = 0.0
    for gradient in gradients:
        # A dot product reads memory once and writes none. The order of memory is as good as any for a sum.
        row = np.asarray(gradient).ravel(order="K")
        with np.errstate(over="ignore"):
            square = float(np.dot(row, row))
        if math.isinf(square):  # float32 ends at 3e38: the square of a number that is finite may not be
            wide = row.astype(np.float64)
            square = float(np.dot(wide, wide))
        squares += square
    return math.sqrt(squares)


def clip_by_global_norm(gradients: Sequence[Array], bound: float) -> float:
    """Scale all gradients by one factor, in place, so that their global norm is at most ``bound``.

    Algorithm 1 of Pascanu et al. 2013 (arXiv:1211.5063); the factor is ``bound / (norm + 1e-6)``, as PyTorch has it.

    Returns:
        The norm before.
    """
    norm = global_norm(gradients)
    factor = bound / (norm + 1e-6)
    if factor < 1:
        for gradient in gradients:
            array = np.asarray(gradient)
            np.multiply(array, factor, out=array)
    return norm


def _arrays(*groups: Sequence[Array]) -> Iterator[tuple[Array, ...]]:
    """Walk through groups of arrays in step, as plain arrays."""
    for group in zip(*groups, strict=True):
        yield tuple(np.asarray(array) for array in group)


def blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Arrays of one shape in pieces that fit the cache: an update of many passes is then bound by arithmetic."""
    size = arrays[0].size
    if size <= _BLOCK or not all(array.flags.c_contiguous for array in arrays):
        yield arrays
        return
    rows = [array.reshape(-1) for array in arrays]
    for start in range(0, size, _BLOCK):
        yield tuple(row[start : start + _BLOCK] for row in rows)


def _check_decay(weight_decay: float) -> None:
    if not 0 <= weight_decay < math.inf:
        raise SettingError(f"weight_decay {weight_decay} must be finite and not negative", setting="weight_decay")


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise SettingError(f"{name} {value} is not in [0, 1)", setting=name)


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
        moments.append(memory.copy(array))
    return moments


def _count(state: Mapping[str, Array]) -> int:
    """The number of steps taken; 0 where the state does not say."""
    steps = state.get("steps", np.array(0, np.int64))
    if steps.shape != () or steps.dtype != np.int64 or steps < 0:
        raise CheckpointError("the optimizer's step count is no whole number from 0 on", tensor="steps")
    return int(steps)


def _check_rest(state: Mapping[str, Array], used: int) -> None:
    if len(state) != used:
        raise CheckpointError(
            f"the optimizer's state is of another kind of optimizer: it has {', '.join(sorted(state))}"
        )
