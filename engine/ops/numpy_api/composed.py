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
from engine.ops import elementwise, linalg, reductions, shape
from engine.ops.numpy_api import data_movement, decompositions


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


def average(a: Any, axis: Any = None, weights: Any = None, *, keepdims: bool = False) -> Any:
    """As ``np.average``, without the sum of the weights."""
    if weights is None:
        return reductions.mean(a, axis=axis, keepdims=keepdims)
    a, weights = np.asanyarray(a), np.asanyarray(weights)
    if weights.shape != a.shape:
        if axis is None:
            raise TypeError("np.average: axis must be specified when the shapes of a and weights differ")
        spread = shape.reshape(weights, shape=weights.shape + (1,) * (a.ndim - weights.ndim))
        weights = shape.moveaxis(spread, range(weights.ndim), _as_list(axis))
    parts = (reductions.sum(x, axis=axis, keepdims=keepdims) for x in (elementwise.multiply(a, weights), weights))
    return elementwise.divide(*parts)


def diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    """As ``np.diff``."""
    for _ in range(n):
        rows = shape.moveaxis(x, axis, 0)
        x = shape.moveaxis(
            elementwise.subtract(shape.getitem(rows, slice(1, None)), shape.getitem(rows, slice(-1))), 0, axis
        )
    return x


def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """As ``np.trapezoid``."""
    rows = shape.moveaxis(np.asanyarray(y), axis, -1)
    if x is not None:
        x = np.asanyarray(x)
        dx = diff(shape.moveaxis(x, axis, -1) if x.ndim > 1 else x)
    sums = elementwise.add(shape.getitem(rows, (..., slice(1, None))), shape.getitem(rows, (..., slice(-1))))
    return reductions.sum(elementwise.multiply(elementwise.multiply(sums, 0.5), dx), axis=-1)


def reducing(reduce: Any, of_chosen: Any) -> Any:
    """The NumPy form of a reduction: ``dtype`` converts the elements first, and ``where`` chooses some of them.

    Args:
        of_chosen: the reduction of the elements under a mask: ``of_chosen(x, mask, axis=axis, **options)``.
    """

    def on_tape(x: Any, axis: Any = None, *, dtype: Any = None, where: Any = True, **options: Any) -> Any:
        if dtype is not None:
            x = elementwise.cast(x, dtype=dtype)
        if where is True:
            return reduce(x, axis=axis, **options)
        return of_chosen(x, np.broadcast_to(snapshot(where), np.shape(x)), axis=axis, **options)

    return on_tape


def _filling(reduce: Any, neutral: float, combine: Any = None) -> Any:
    """A reduction with an initial value; elements that are not chosen become ``neutral``."""

    def from_initial(x: Any, *, initial: Any = None, **options: Any) -> Any:
        if combine is None or initial is None:
            return reduce(x, **options, **({} if initial is None else {"initial": initial}))
        return combine(reduce(x, **options), elementwise.cast(np.asanyarray(initial), dtype=x.dtype))

    return reducing(
        from_initial, lambda x, mask, **options: from_initial(elementwise.where(mask, x, neutral), **options)
    )


def _mean_of_chosen(x: Any, mask: Any, axis: Any, keepdims: bool = False) -> Any:
    total = reductions.sum(elementwise.where(mask, x, 0), axis=axis, keepdims=keepdims)
    return elementwise.divide(total, np.sum(mask, axis=axis, keepdims=keepdims, dtype=x.dtype))


def _spread_of_chosen(size: Any, scale: Any) -> Any:
    """``size`` of the deviations from the mean, divided by ``scale`` of their degrees of freedom."""

    def of_chosen(x: Any, mask: Any, axis: Any, ddof: float = 0, keepdims: bool = False) -> Any:
        deviations = elementwise.where(mask, elementwise.subtract(x, _mean_of_chosen(x, mask, axis, True)), 0)
        freedom = np.maximum(np.sum(mask, axis=axis, keepdims=keepdims, dtype=x.dtype) - ddof, 0)
        return elementwise.divide(size(deviations, axis=axis, keepdims=keepdims), scale(freedom))

    return of_chosen


sum_ = _filling(reductions.sum, 0, elementwise.add)
prod = _filling(reductions.prod, 1, elementwise.multiply)
max_ = _filling(reductions.max, -np.inf)
min_ = _filling(reductions.min, np.inf)
mean = reducing(reductions.mean, _mean_of_chosen)
var = reducing(
    reductions.var,
    _spread_of_chosen(lambda x, **o: reductions.sum(elementwise.square(x), **o), np.positive),
)
std = reducing(reductions.std, _spread_of_chosen(reductions.norm, np.sqrt))


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002 - NumPy's name
    """As ``np.linalg.norm``, for vectors with any order except 0, and for matrices with 1, 2, inf, ``fro``, ``nuc``."""
    if ord is None:
        return reductions.norm(x, axis=axis, keepdims=keepdims)
    axes = tuple(range(x.ndim)) if axis is None else tuple(_as_list(axis))
    if len(axes) == 1 and ord != 0 and not isinstance(ord, str):
        return vector_norm(x, axis=axes[0], keepdims=keepdims, ord=ord)
    if len(axes) == 2 and ord == "fro":
        return reductions.norm(x, axis=axes, keepdims=keepdims)
    if len(axes) == 2 and ord in (1, 2, np.inf, "nuc"):
        return _matrix_norm(x, ord, axes, keepdims)
    raise GradientError(f"np.linalg.norm has no gradient with ord={ord!r} here", operation="np.linalg.norm")


def vector_norm(
    x: Any,
    *,
    axis: Any = None,
    keepdims: bool = False,
    ord: float = 2,  # noqa: A002 - NumPy's name
) -> Any:
    """As ``np.linalg.vector_norm``, with any order except 0. The slope at 0 is 0."""
    if ord == 0:
        raise GradientError("np.linalg.vector_norm has no gradient with ord=0", operation="np.linalg.vector_norm")
    if ord == 2:
        return reductions.norm(x, axis=axis, keepdims=keepdims)
    sizes = elementwise.absolute(x)
    if np.isinf(ord):
        return (reductions.max if ord > 0 else reductions.min)(sizes, axis=axis, keepdims=keepdims)
    if ord == 1:
        return reductions.sum(sizes, axis=axis, keepdims=keepdims)
    return _power(reductions.sum(_power(sizes, ord), axis=axis, keepdims=keepdims), 1 / ord)


def _power(x: Any, exponent: float) -> Any:
    """``x ** exponent`` for x >= 0, with the slope 0 at 0."""
    zero = np.equal(x, 0)
    powers = elementwise.power(elementwise.where(zero, 1, x), exponent)
    return elementwise.where(zero, 0 if exponent > 0 else np.inf, powers)


def _matrix_norm(x: Any, order: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    matrices = shape.moveaxis(x, axes, (-2, -1))
    if order in (1, np.inf):
        sums = reductions.sum(elementwise.absolute(matrices), axis=-2 if order == 1 else -1)
        norms = reductions.max(sums, axis=-1)
    else:
        values = decompositions.svd(matrices, compute_uv=False)
        norms = reductions.sum(values, axis=-1) if order == "nuc" else reductions.max(values, axis=-1)
    return shape.expand_dims(norms, tuple(axis % x.ndim for axis in axes)) if keepdims else norms


_PADS = ("edge", "reflect", "symmetric", "wrap")


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    """As ``np.pad``, with constants or with a mode that repeats elements."""
    if mode not in ("constant", *_PADS):
        modes = ", ".join(_PADS)
        raise GradientError(
            f"np.pad has a gradient for constants and the modes {modes}, not {mode!r}", operation="np.pad"
        )
    padded = data_movement.moving(np.pad)(x, pad_width, mode)
    if mode != "constant" or not np.any(np.not_equal(untracked(constant_values), 0)):
        return padded
    if is_tracked((constant_values,)):
        raise GradientError("np.pad has no gradient for constant_values", operation="np.pad")
    frame: Array = np.pad(np.zeros(x.shape, x.dtype), pad_width, constant_values=constant_values)
    return elementwise.add(padded, frame)
