"""NumPy functions composed of primitives, which need no rules of their own."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.tensor import is_tracked, snapshot, untracked
from engine.errors import GradientError
from engine.ops import data_movement, decompositions, elementwise, linalg, reductions, shape


def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """As ``np.tensordot``."""
    a, b = np.asanyarray(a), np.asanyarray(b)
    if isinstance(axes, int):
        axes = (range(a.ndim - axes, a.ndim), range(axes))
    summed_a, summed_b = ([axis % x.ndim for axis in _as_list(x_axes)] for x, x_axes in ((a, axes[0]), (b, axes[1])))
    free_a, free_b = (
        [axis for axis in range(x.ndim) if axis not in summed] for x, summed in ((a, summed_a), (b, summed_b))
    )
    if [a.shape[axis] for axis in summed_a] != [b.shape[axis] for axis in summed_b]:
        raise ValueError("shape-mismatch for sum")
    count = math.prod(a.shape[axis] for axis in summed_a)
    result = [a.shape[axis] for axis in free_a] + [b.shape[axis] for axis in free_b]
    rows, columns = (math.prod(x.shape[axis] for axis in free) for x, free in ((a, free_a), (b, free_b)))
    left = shape.reshape(shape.transpose(a, axes=(*free_a, *summed_a)), shape=(rows, count))
    right = shape.reshape(shape.transpose(b, axes=(*summed_b, *free_b)), shape=(count, columns))
    return shape.reshape(linalg.matmul(left, right), shape=tuple(result))


def _as_list(axes: Any) -> list[int]:
    return [int(axes)] if np.ndim(axes) == 0 else [int(axis) for axis in axes]


def kron(a: Any, b: Any) -> Any:
    """As ``np.kron``: each element of a times all of b (Van Loan 2000)."""
    a, b = np.asanyarray(a), np.asanyarray(b)
    ndim = max(a.ndim, b.ndim)
    sizes = [(1,) * (ndim - x.ndim) + x.shape for x in (a, b)]
    spread = [
        shape.reshape(a, shape=tuple(size for size_a in sizes[0] for size in (size_a, 1))),
        shape.reshape(b, shape=tuple(size for size_b in sizes[1] for size in (1, size_b))),
    ]
    full_shape = tuple(size_a * size_b for size_a, size_b in zip(*sizes, strict=True))
    return shape.reshape(elementwise.multiply(*spread), shape=full_shape)


def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """As ``np.cross``, for vectors of three numbers."""
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = shape.moveaxis(np.asanyarray(a), axisa, -1), shape.moveaxis(np.asanyarray(b), axisb, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        raise GradientError("np.cross has a gradient for vectors of three numbers", operation="np.cross")
    next_, last = (..., [1, 2, 0]), (..., [2, 0, 1])
    ahead = elementwise.multiply(shape.getitem(a, next_), shape.getitem(b, last))
    back = elementwise.multiply(shape.getitem(a, last), shape.getitem(b, next_))
    return shape.moveaxis(elementwise.subtract(ahead, back), -1, axisc)


def einsum(subscripts: Any, *operands: Any) -> Any:
    """As ``np.einsum``, by letters or by lists: ``einsum(a, [0, 1], b, [1, 2], [0, 2])``."""
    if isinstance(subscripts, str):
        return linalg.einsum(subscripts, *operands)
    arguments = (subscripts, *operands)
    arrays, axes = arguments[: len(arguments) // 2 * 2 : 2], arguments[1::2]
    if any(Ellipsis in axis for axis in axes):
        raise GradientError("np.einsum has no gradient with dots", operation="np.einsum")
    terms = ["".join(string.ascii_letters[number] for number in axis) for axis in axes]
    rule = ",".join(terms)
    if len(arguments) % 2:
        rule += "->" + "".join(string.ascii_letters[number] for number in arguments[-1])
    return linalg.einsum(rule, *arrays)


def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Any:
    """As ``np.select``: the first choice whose condition holds."""
    chosen = default
    for condition, choice in reversed(list(zip(condlist, choicelist, strict=True))):
        chosen = elementwise.where(condition, choice, chosen)
    return chosen


def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """As ``np.gradient``. It is linear along each axis: a matrix product with the differences of unit vectors."""
    if is_tracked(varargs):
        raise GradientError("np.gradient has no gradient for distances", operation="np.gradient")
    axes = list(range(f.ndim)) if axis is None else [number % f.ndim for number in _as_list(axis)]
    spacings = [varargs[0]] * len(axes) if len(varargs) == 1 else list(varargs) or [1.0] * len(axes)
    gradients = []
    for along, spacing in zip(axes, spacings, strict=True):
        units: Any = np.eye(f.shape[along], dtype=f.dtype)
        options: dict[str, Any] = {"axis": 0, "edge_order": edge_order}
        matrix = np.gradient(units, snapshot(spacing), **options).astype(f.dtype)
        gradients.append(shape.moveaxis(tensordot(matrix, f, axes=([1], [along])), 0, along))
    return gradients[0] if len(gradients) == 1 else tuple(gradients)


def column_stack(tup: Sequence[Any]) -> Any:
    """As ``np.column_stack``."""
    columns = [np.asanyarray(x) for x in tup]
    return shape.concatenate([shape.reshape(x, shape=(-1, 1)) if x.ndim < 2 else x for x in columns], axis=1)


def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    """As ``np.append``."""
    return shape.concatenate([np.asanyarray(arr), np.asanyarray(values)], axis=axis)


def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None, axis: int = 0
) -> Any:
    """As ``np.linspace``, without the step."""
    if retstep or dtype is not None:
        raise GradientError("np.linspace has a gradient without retstep= and dtype=", operation="np.linspace")
    result_dtype = np.result_type(untracked(start), untracked(stop), np.float32)
    ndim = max(np.ndim(start), np.ndim(stop))
    weights = np.linspace(0, 1, num, endpoint).astype(result_dtype).reshape(-1, *(1,) * ndim)
    rows = elementwise.add(elementwise.multiply(start, 1 - weights), elementwise.multiply(stop, weights))
    return shape.moveaxis(rows, 0, axis) if axis else rows


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002 - NumPy's name
    """As ``np.linalg.norm``, for vectors with any order except 0, and for matrices with 1, 2, inf, ``fro``, ``nuc``."""
    if ord is None:
        return reductions.norm(x, axis=axis, keepdims=keepdims)
    axes = tuple(range(x.ndim)) if axis is None else tuple(_as_list(axis))
    if len(axes) == 1 and ord != 0 and not isinstance(ord, str):
        return _vector_norm(x, ord, axes[0], keepdims)
    if len(axes) == 2 and ord == "fro":
        return reductions.norm(x, axis=axes, keepdims=keepdims)
    if len(axes) == 2 and ord in (1, 2, np.inf, "nuc"):
        return _matrix_norm(x, ord, axes, keepdims)
    raise GradientError(f"np.linalg.norm has no gradient with ord={ord!r} here", operation="np.linalg.norm")


def _vector_norm(x: Any, order: float, axis: int, keepdims: bool) -> Any:
    if order == 2:
        return reductions.norm(x, axis=axis, keepdims=keepdims)
    sizes = elementwise.absolute(x)
    if np.isinf(order):
        return (reductions.max if order > 0 else reductions.min)(sizes, axis=axis, keepdims=keepdims)
    if order == 1:
        return reductions.sum(sizes, axis=axis, keepdims=keepdims)
    total = reductions.sum(elementwise.power(sizes, order), axis=axis, keepdims=keepdims)
    return elementwise.power(total, 1 / order)


def _matrix_norm(x: Any, order: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    matrices = shape.moveaxis(x, axes, (-2, -1))
    if order in (1, np.inf):
        sums = reductions.sum(elementwise.absolute(matrices), axis=-2 if order == 1 else -1)
        norms = reductions.max(sums, axis=-1)
    else:
        values = decompositions.svd(matrices, compute_uv=False)
        norms = reductions.sum(values, axis=-1) if order == "nuc" else reductions.max(values, axis=-1)
    return shape.expand_dims(norms, tuple(axis % x.ndim for axis in axes)) if keepdims else norms


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    """As ``np.pad``, with constants or with a mode that repeats elements."""
    if mode != "constant" or not np.any(np.not_equal(untracked(constant_values), 0)):
        return data_movement.pad(x, pad_width, mode)
    if is_tracked((constant_values,)):
        raise GradientError("np.pad has no gradient for constant_values", operation="np.pad")
    frame: Array = np.pad(np.zeros(x.shape, x.dtype), pad_width, constant_values=constant_values)
    return elementwise.add(data_movement.pad(x, pad_width), frame)
