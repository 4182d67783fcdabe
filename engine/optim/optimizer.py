"""The base of optimizers: settings, clipping before each step, and state.

Optimizers update parameters in place from gradients, with a learning rate that is given for each step. Their state is
created at the first step and is part of a checkpoint, so that a resumed optimizer gives the same bits.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.lib.array_utils import byte_bounds

from engine import memory
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor, refuse_write
from engine.autograd.tracing import refuse_in_trace
from engine.errors import CheckpointError, SettingError, ShapeError

CACHE_BLOCK_ELEMENTS = 2**16
"""Elements updated at a time: the operands of one block stay in a core's second-level cache."""
SMALL_ELEMENTS = 2**13
"""Parameters of at most so many elements are updated together, as one vector: ten calls for each of them would take
longer than copying them."""
GROUP_ELEMENTS = 2**18
"""Number of elements after which another vector begins. Larger ones would leave the second-level cache."""
UNDERFLOW = 1e-30
"""Magnitude below which elements of momentum sums are set to 0. Below 1e-38, a float32 is denormal, which some
processors handle a hundred times more slowly; with momentum 0.9, this happens 830 steps after the last gradient."""
UNDERFLOW_INTERVAL_STEPS = 32
"""Number of steps between two searches for such elements."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Small parameters that are updated together, or a parameter alone."""

    numbers: Sequence[int]
    decay: float
    sums: Sequence[Array]
    """Of each kind: a vector, of which those of the parameters are parts."""
    vectors: tuple[Array, Array] | None = None
    """Memory for the values and the gradients of several parameters."""
    parts: Sequence[Array] = ()
    """Of the first vector, with the shapes of the parameters."""


class Optimizer(ABC):
    """Base of all optimizers: common settings, the checks and clipping before each step, and the state.

    Attributes:
        learning_rate: the base rate, which is multiplied by the factor of the schedule.
    """

    sums: ClassVar[tuple[str, ...]]
    """The kinds of sums of gradients that belong to each parameter, by their names in a state."""

    def __init__(
        self, learning_rate: float, *, weight_decay: float, decay_biases: bool, clip_norm: float | None
    ) -> None:
        if not 0 < learning_rate < math.inf:
            raise SettingError(f"learning_rate {learning_rate} must be positive and finite", setting="learning_rate")
        if not 0 <= weight_decay < math.inf:
            raise SettingError(f"weight_decay {weight_decay} must be finite and not negative", setting="weight_decay")
        if clip_norm is not None and not 0 < clip_norm < math.inf:
            raise SettingError(f"clip_norm {clip_norm} must be positive and finite", setting="clip_norm")
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.decay_biases = decay_biases
        self.clip_norm = clip_norm
        self._steps = 0
        self._sums: list[list[Array]] = []
        self._groups: list[_Group] = []
        self._grouped: Any = None  # what determines the groups: properties of the parameters, and settings

    def __getstate__(self) -> dict[str, Any]:
        """Without the groups: in a copy, the sums would no longer be parts of their vectors."""
        return vars(self) | {"_groups": [], "_grouped": None}

    def state_dict(self) -> dict[str, Array]:
        """Copies of ``steps`` and the sums, such as ``velocity.0``, ``velocity.1``, ... in the order of the parameters;
        empty before the first step, and without sums."""
        if not any(self._sums):
            return {}
        state: dict[str, Array] = {"steps": np.array(self._steps, np.int64)}
        for kind, arrays in zip(self.sums, self._sums, strict=True):
            state |= {f"{kind}.{i}": array.copy() for i, array in enumerate(arrays)}
        return state

    def load_state_dict(self, state: Mapping[str, Array], parameters: Sequence[Tensor]) -> None:
        """Load the ``state`` of an optimizer of the same kind for parameters with the same shapes."""
        sums = [_load_sums(state, kind, parameters) for kind in self.sums]
        steps = state.get("steps", np.array(0, np.int64))
        if steps.shape != () or steps.dtype != np.int64 or steps < 0:
            raise CheckpointError("the optimizer's step count is not a non-negative integer", tensor="steps")
        if len(state) != sum(map(len, sums)) + ("steps" in state):
            raise CheckpointError(f"the state belongs to another kind of optimizer: it has {', '.join(sorted(state))}")
        self._check_sums(int(steps), sums)
        self._steps, self._sums, self._grouped = int(steps), sums if any(sums) else [], None

    def _check_sums(self, steps: int, sums: Sequence[Sequence[Array]]) -> None:  # noqa: B027 - SGD has nothing to check
        """Raise CheckpointError unless the sums in a state are possible after this number of steps."""

    def apply(self, parameters: Sequence[Tensor], gradients: Sequence[Array], learning_rate: float) -> None:
        """Take one step. The gradients are used as scratch memory, and may be overwritten.

        Raises:
            ShapeError: gradients or earlier steps had other shapes or dtypes. Nothing is changed.
        """
        refuse_in_trace("an optimizer's step")
        for parameter in parameters:
            refuse_write(parameter, "an optimizer's step")
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
        self._prepare(parameters, gradients)
        if self.clip_norm is not None:
            clip_by_global_norm(gradients, self.clip_norm)
        self._steps += 1
        self._update(parameters, gradients, learning_rate)
        if self._sums and self._steps % UNDERFLOW_INTERVAL_STEPS == 0:
            _flush_underflow(self._sums[0], gradients)

    @abstractmethod
    def _update(self, parameters: Sequence[Tensor], gradients: Sequence[Array], learning_rate: float) -> None:
        """Update the parameters, and the sums."""

    @property
    def _used_sums(self) -> tuple[str, ...]:
        """The kinds of sums that a step uses."""
        return self.sums

    def _prepare(self, parameters: Sequence[Tensor], gradients: Sequence[Array]) -> None:
        """Group the parameters, unless they and the settings are those of the step before."""
        decays = [self._decay_of(parameter) for parameter in parameters]
        arrays = [(id(p), p.shape, p.dtype, g.dtype) for p, g in zip(parameters, gradients, strict=True)]
        if (properties := (self._used_sums, decays, arrays)) == self._grouped:
            return
        for sums in self._sums:
            if [(s.shape, s.dtype) for s in sums] != [(p.shape, p.dtype) for p in parameters]:
                raise ShapeError(
                    "apply: the parameters have other shapes or dtypes than in earlier steps", operation="apply"
                )
        self._groups, self._grouped = self._group(parameters, gradients, decays), properties

    def _operands(
        self, parameters: Sequence[Tensor], gradients: Sequence[Array]
    ) -> Iterator[tuple[float, tuple[Array, ...]]]:
        """All that is to be updated: a weight decay, and arrays of one shape, which are values, gradients and sums.

        Small parameters are copied into one vector, and back after the update; large ones are split into blocks.
        """
        for group in self._groups:
            own = [np.asarray(parameters[number]) for number in group.numbers]
            own_gradients = [np.asarray(gradients[number]) for number in group.numbers]
            if group.vectors is None:
                for block in blocks(*own, *own_gradients, *group.sums):
                    yield group.decay, block
                continue
            for vector, parts in zip(group.vectors, (own, own_gradients), strict=True):
                np.concatenate(parts, axis=None, out=vector)
            yield group.decay, (*group.vectors, *group.sums)
            for parameter, part in zip(own, group.parts, strict=True):
                np.copyto(parameter, part)

    def _group(self, parameters: Sequence[Tensor], gradients: Sequence[Array], decays: Sequence[float]) -> list[_Group]:
        """The groups of the parameters; small ones have the same dtype and decay. Their sums become parts of vectors,
        and are zero before the first step."""
        if self._used_sums and not self._sums:
            self._sums = [[memory.zeros(p.shape, p.dtype) for p in parameters] for _ in self.sums]
        used = self._sums if self._used_sums else []
        largest = -1 if _overlap(parameters) else SMALL_ELEMENTS  # each sees what the update of another has changed
        members: dict[Any, list[int]] = {}
        sizes: Counter[Any] = Counter()
        for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            key: Any = number
            if parameter.size <= largest and parameter.dtype == gradient.dtype:
                kind = parameter.dtype, decays[number]
                sizes[kind] += parameter.size
                key = kind, sizes[kind] // GROUP_ELEMENTS
            members.setdefault(key, []).append(number)
        groups = []
        for numbers in members.values():
            first = numbers[0]
            if len(numbers) == 1:
                groups.append(_Group(numbers, decays[first], [arrays[first] for arrays in used]))
                continue
            chosen = [parameters[number] for number in numbers]
            size, dtype = sum(parameter.size for parameter in chosen), chosen[0].dtype
            values, scratch, *sums = (memory.empty((size,), dtype) for _ in range(2 + len(used)))
            for arrays, vector in zip(used, sums, strict=True):
                np.concatenate([arrays[number] for number in numbers], axis=None, out=vector)
                for number, part in zip(numbers, _parts(vector, chosen), strict=True):
                    arrays[number] = part
            groups.append(_Group(numbers, decays[first], sums, (values, scratch), _parts(values, chosen)))
        return groups

    def _decay_of(self, parameter: Array) -> float:
        return self.weight_decay if self.decay_biases or parameter.ndim > 1 else 0.0


def _parts(vector: Array, like: Sequence[Array]) -> list[Array]:
    """Consecutive parts of a vector, with the shapes of these arrays."""
    ends = itertools.accumulate(array.size for array in like)
    return [vector[end - array.size : end].reshape(array.shape) for array, end in zip(like, ends, strict=True)]


def _overlap(arrays: Sequence[Array]) -> bool:
    """Whether two arrays may share memory."""
    bounds = sorted(byte_bounds(np.asarray(array)) for array in arrays if array.size)
    return any(end > start for (_, end), (start, _) in itertools.pairwise(bounds))


def _flush_underflow(sums: Sequence[Array], scratch: Sequence[Array]) -> None:
    """Set elements of ``sums`` to 0 that are too small to have an effect."""
    for total, buffer in zip(sums, scratch, strict=True):
        for block, magnitude in blocks(total, np.asarray(buffer)):
            np.abs(block, out=magnitude)
            np.copyto(block, 0, where=magnitude < UNDERFLOW)


def blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Split arrays of one shape into blocks that fit the cache, so that memory does not limit updates."""
    size = arrays[0].size
    if size <= CACHE_BLOCK_ELEMENTS or not all(array.flags.c_contiguous for array in arrays):
        yield arrays
        return
    rows = [array.reshape(-1) for array in arrays]
    for start in range(0, size, CACHE_BLOCK_ELEMENTS):
        yield tuple(row[start : start + CACHE_BLOCK_ELEMENTS] for row in rows)


def global_norm(gradients: Sequence[Array]) -> float:
    """The Euclidean norm of all gradients together, as if they were one vector."""
    squares = 0.0
    for gradient in gradients:
        # A dot product reads memory once and writes none. For a sum, the memory order does not matter.
        row = np.asarray(gradient).ravel(order="K")
        with np.errstate(over="ignore"):
            square = float(np.dot(row, row))
        if math.isinf(square):  # float32 ends at 3e38, so the square of a finite number may overflow
            wide = row.astype(np.float64)
            square = float(np.dot(wide, wide))
        squares += square
    return math.sqrt(squares)


def clip_by_global_norm(gradients: Sequence[Array], bound: float) -> float:
    """Scale all gradients by one factor, in place, so that their global norm is at most ``bound``.

    Algorithm 1 of Pascanu et al. 2013 (arXiv:1211.5063); the factor is ``bound / (norm + 1e-6)``, as in PyTorch.

    Returns:
        The norm before clipping.
    """
    refuse_in_trace("clip_by_global_norm")
    norm = global_norm(gradients)
    factor = bound / (norm + 1e-6)
    if factor < 1:
        for gradient in gradients:
            array = np.asarray(gradient)
            np.multiply(array, factor, out=array)
    return norm


def _load_sums(state: Mapping[str, Array], kind: str, parameters: Sequence[Tensor]) -> list[Array]:
    """Copies of the arrays ``kind.0``, ``kind.1``, ...: one per parameter, or none."""
    names = [f"{kind}.{i}" for i in range(len(parameters))]
    if not any(name in state for name in names):
        return []
    sums: list[Array] = []
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
            raise CheckpointError(f"{name} has values in the checkpoint that are not finite", tensor=name)
        sums.append(memory.copy(array))
    return sums
