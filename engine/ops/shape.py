"""Primitives that move elements without computing: their VJPs move the gradients back."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from engine.autograd.graph import Array, Vjp
from engine.autograd.primitive import Primitive, VariadicPrimitive, sum_to_shape
from engine.autograd.tensor import snapshot
from engine.errors import ShapeError
from engine.memory import is_batch_innermost

__all__ = [
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "flatten",
    "getitem",
    "moveaxis",
    "ravel",
    "reshape",
    "squeeze",
    "stack",
    "swapaxes",
    "transpose",
]


def _reshape_back(y: Array, x: Array, shape: Any) -> Vjp:
    original, flat = x.shape, is_batch_innermost(x)
    # Flatten image gradients into the memory layout of the original rows.
    return lambda g: flatten(g) if flat and g.ndim > 2 and len(g) == original[0] else g.reshape(original)


reshape = Primitive(
    "reshape", np.reshape, _reshape_back, doc="``x`` with another shape of the same size; -1 is inferred."
)


def _transpose_back(y: Array, x: Array, axes: Sequence[int] | None = None) -> Vjp:
    inverse = None if axes is None else np.argsort([axis % y.ndim for axis in axes])
    return lambda g: np.transpose(g, inverse)


transpose = Primitive(
    "transpose", np.transpose, _transpose_back, doc="``x`` with its axes permuted; reversed by default."
)


copied = Primitive(
    "copy",
    lambda x, order="C": x.copy(order),
    lambda y, x, order="C": lambda g: g,
    doc="A copy of ``x``, in row-major order by default.",
)


broadcast_to = Primitive(
    "broadcast_to",
    np.broadcast_to,
    lambda y, x, shape: partial(sum_to_shape, shape=x.shape),
    doc="``x`` repeated to ``shape``, a view.",
)


def _repeats(index: Any) -> bool:
    """Whether an index can select an element twice; only integer arrays can."""
    items = index if isinstance(index, tuple) else (index,)
    return any(isinstance(item, np.ndarray) and item.ndim > 0 and item.dtype != np.bool_ for item in items)


def _as_index(item: Any) -> Any:
    """An item of an index for a VJP to keep: an integer, a slice, None, Ellipsis, or a copy of an array."""
    if item is None or item is Ellipsis or isinstance(item, (slice, int, np.integer, np.bool_)):
        return item
    if not isinstance(item, np.ndarray) and hasattr(item, "__index__"):
        return operator.index(item)
    array = snapshot(item) if isinstance(item, np.ndarray) else np.array(item)
    return array if array.size else array.astype(np.intp if array.dtype != np.bool_ else np.bool_)


def _scatter(g: Array, shape: tuple[int, ...], index: Any) -> Array:
    g = np.asanyarray(g)  # NumPy returns a scalar for an array without axes
    gradient = np.empty_like(g, order="C", shape=shape)
    gradient[...] = 0
    if _repeats(index):
        np.add.at(gradient, index, g)  # unlike =, adds up the gradients of a repeated element
    else:
        gradient[index] = g
    return gradient


_scattered = Primitive("scatter", _scatter, lambda y, g, shape, index: lambda h: h[index])
_getitem = Primitive(
    "getitem",
    lambda x, index: x[index],
    lambda y, x, index: partial(_scatter, shape=x.shape, index=index),
    graph=[lambda y, x, index: lambda g: _scattered(g, shape=x.shape, index=index)],
)


def getitem(x: Any, index: Any) -> Any:
    """``x[index]``: integers, slices, None, Ellipsis, integer arrays with repeats, masks."""
    return _getitem(x, index=tuple(map(_as_index, index)) if isinstance(index, tuple) else _as_index(index))


def _concatenate_back(position: int, y: Array, *arrays: Array, axis: int = 0) -> Vjp:
    start = sum(array.shape[axis] for array in arrays[:position])
    stop = start + arrays[position].shape[axis]
    index = (slice(None),) * (axis % y.ndim) + (slice(start, stop),)
    return lambda g: g[index]


_concatenate_all = VariadicPrimitive(
    "concatenate", lambda *arrays, axis=0: np.concatenate(arrays, axis), _concatenate_back
)


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    """Join along an existing axis; None joins the flattened arrays."""
    if axis is None:
        return _concatenate_all(*(reshape(array, -1) for array in arrays))
    return _concatenate_all(*arrays, axis=axis)


def _stack_back(position: int, y: Array, *arrays: Array, axis: int = 0) -> Vjp:
    index = (slice(None),) * (axis % y.ndim) + (position,)
    return lambda g: g[index]


_stack_all = VariadicPrimitive("stack", lambda *arrays, axis=0: np.stack(arrays, axis), _stack_back)


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Join arrays of one shape along a new axis."""
    return _stack_all(*arrays, axis=axis)


def _flatten(x: Array) -> Array:
    if x.ndim < 2:
        raise ShapeError.of("flatten", f"{x.shape} has no batch axis and others after it", x)
    inner = (*range(1, x.ndim), 0)
    columns = np.empty_like(x, order="C", shape=[x.shape[axis] for axis in inner])
    columns[...] = x.transpose(inner)
    return columns.reshape(math.prod(x.shape[1:]), len(x)).T  # -1 would be ambiguous for an empty batch


flatten = Primitive(
    "flatten",
    _flatten,
    lambda y, x: partial(np.reshape, shape=x.shape),
    doc="Anything with a batch axis as vectors (batch, features).",
)


# Composed of the functions above, without rules of their own.


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Swap two axes."""
    return transpose(x, axes=np.swapaxes(_axes_as_sizes(x), axis1, axis2).shape)


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """Move axes to other positions."""
    return transpose(x, axes=np.moveaxis(_axes_as_sizes(x), source, destination).shape)


def _axes_as_sizes(x: Any) -> Array:
    """An empty array of shape (0, 1, 2, ...). After NumPy has moved its axes, the sizes show the permutation."""
    return np.empty(tuple(range(np.ndim(x))), np.bool_)


def expand_dims(x: Any, axis: int | tuple[int, ...]) -> Any:
    """Insert axes of size 1."""
    return reshape(x, shape=np.expand_dims(np.empty(np.shape(x), np.bool_), axis).shape)


def squeeze(x: Any, axis: int | tuple[int, ...] | None = None) -> Any:
    """Drop axes of size 1."""
    return reshape(x, shape=np.squeeze(np.empty(np.shape(x), np.bool_), axis).shape)


def ravel(x: Any) -> Any:
    """All elements as one vector."""
    return reshape(x, shape=-1)
