"""Primitives that reduce axes: ``axis`` is None (all), an integer or a tuple; ``keepdims`` as in NumPy."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from engine.autograd.graph import Array, Vjp
from engine.autograd.primitive import Primitive

__all__ = ["max", "mean", "min", "std", "sum", "var"]

Axis: TypeAlias = int | tuple[int, ...] | None


def _axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


def _kept_shape(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """The shape of the result with ``keepdims=True``."""
    reduced = _axes(axis, len(shape))
    return tuple(1 if i in reduced else size for i, size in enumerate(shape))


def _count(shape: tuple[int, ...], axis: Axis) -> int:
    return int(np.prod([shape[i] for i in _axes(axis, len(shape))], dtype=np.int64))


def _sum_back(y: Array, x: Array, axis: Axis = None, keepdims: bool = False) -> Vjp:
    shape, kept_shape = x.shape, _kept_shape(x.shape, axis)
    return lambda g: np.broadcast_to(g.reshape(kept_shape), shape)


sum = Primitive("sum", np.sum, _sum_back, doc="Sum over ``axis``.")  # noqa: A001 - NumPy's name


def _mean_back(y: Array, x: Array, axis: Axis = None, keepdims: bool = False) -> Vjp:
    # The count is 0 only if x is empty. Its gradient is then also empty, for any count.
    shape, kept_shape, count = x.shape, _kept_shape(x.shape, axis), _count(x.shape, axis) or 1
    return lambda g: np.broadcast_to(g.reshape(kept_shape) / count, shape)


mean = Primitive("mean", np.mean, _mean_back, doc="Arithmetic mean over ``axis``.")


def _var_back(y: Array, x: Array, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Vjp:
    kept_shape, divisor = _kept_shape(x.shape, axis), _variance_divisor(x.shape, axis, ddof)
    return lambda g: g.reshape(kept_shape) * (2 / divisor) * _centred(x, axis)


var = Primitive("var", np.var, _var_back, doc="Variance over ``axis``; divides by the count minus ``ddof``.")


def _std_vjp(g: Array, y: Array, x: Array, axis: Axis, ddof: float) -> Any:
    kept_shape = _kept_shape(x.shape, axis)
    deviation = y.reshape(kept_shape)
    flat = np.equal(deviation, 0)  # all elements are equal: slope 0, as for abs
    scaled = np.where(flat, 0, g.reshape(kept_shape) / np.where(flat, 1, deviation))
    return scaled * (1 / _variance_divisor(x.shape, axis, ddof)) * _centred(x, axis)


std = Primitive(
    "std",
    np.std,
    lambda y, x, axis=None, ddof=0, keepdims=False: lambda g: _std_vjp(g, y, x, axis, ddof),
    doc="Standard deviation over ``axis``: the root of :data:`var`.",
)


def _variance_divisor(shape: tuple[int, ...], axis: Axis, ddof: float) -> float:
    """The divisor of a variance; NaN if NumPy would divide by 0, so that the gradient is NaN too."""
    divisor = _count(shape, axis) - ddof
    return divisor if divisor > 0 else np.nan


def _centred(x: Array, axis: Axis) -> Array:
    centred: Array = x - np.mean(x, axis=axis, keepdims=True) if x.size else x
    return centred


def _extremum_vjp(g: Array, y: Array, x: Array, axis: Axis, initial: Any) -> Any:
    kept_shape = _kept_shape(x.shape, axis)
    extremum = y.reshape(kept_shape)
    winners: Array = np.equal(x, extremum)
    # Equal extremes share the gradient; any other choice would depend on their order.
    count = np.sum(winners, axis=axis, keepdims=True, dtype=g.dtype)
    if initial is not None:
        count = count + np.equal(extremum, np.asarray(initial, y.dtype))
    return winners * (g.reshape(kept_shape) / count)


def _extremum_back(y: Array, x: Array, axis: Axis = None, keepdims: bool = False, initial: Any = None) -> Vjp:
    return lambda g: _extremum_vjp(g, y, x, axis, initial)


max = Primitive("max", np.max, _extremum_back, doc="Largest element over ``axis``.")  # noqa: A001 - NumPy's name
min = Primitive("min", np.min, _extremum_back, doc="Smallest element over ``axis``.")  # noqa: A001 - NumPy's name


def _prod_vjp(g: Any, x: Any, axis: Axis, others: Any) -> Any:
    axes = _axes(axis, x.ndim)
    order = (*(i for i in range(x.ndim) if i not in axes), *axes)
    moved = np.transpose(x, order)
    rows = moved.reshape((*moved.shape[: x.ndim - len(axes)], _count(x.shape, axis)))
    slopes = np.transpose(others(rows).reshape(moved.shape), np.argsort(order))
    return np.multiply(g.reshape(_kept_shape(x.shape, axis)), slopes)


def _products_of_others(rows: Array) -> Array:
    """For each element, the product of those before and after it in its row; y / x would divide by zero."""
    ones = np.ones((*rows.shape[:-1], 1), rows.dtype)
    before = np.cumprod(np.concatenate([ones, rows[..., :-1]], axis=-1), axis=-1)
    after = np.cumprod(np.concatenate([ones, rows[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
    return (before * after)[..., : rows.shape[-1]]


def _recordable_products_of_others(rows: Any) -> Any:
    """Like :func:`_products_of_others`, but with a separate product for each element, which is more work."""
    itself = np.eye(rows.shape[-1], dtype=np.bool_)
    return np.prod(np.where(itself, np.ones((), rows.dtype), np.expand_dims(rows, -2)), axis=-1)


prod = Primitive(
    "prod",
    np.prod,
    lambda y, x, axis=None, keepdims=False: lambda g: _prod_vjp(g, x, axis, _products_of_others),
    graph=[lambda y, x, axis=None, keepdims=False: lambda g: _prod_vjp(g, x, axis, _recordable_products_of_others)],
    doc="Product over ``axis``.",
)


def _cumsum_back(y: Array, x: Array, axis: int | None = None) -> Vjp:
    shape, summed_axis = x.shape, 0 if axis is None else axis
    return lambda g: np.flip(np.cumsum(np.flip(g, summed_axis), axis=summed_axis), summed_axis).reshape(shape)


cumsum = Primitive("cumsum", np.cumsum, _cumsum_back, doc="Cumulative sums along ``axis``.")


def _norm_vjp(g: Array, y: Array, x: Array, axis: Axis) -> Array:
    kept_shape = _kept_shape(x.shape, axis)
    length = y.reshape(kept_shape)
    return np.multiply(x, g.reshape(kept_shape) / np.where(np.equal(length, 0), 1, length))


norm = Primitive(
    "norm",
    lambda x, *, axis=None, keepdims=False: np.sqrt(np.sum(np.square(x), axis=axis, keepdims=keepdims)),
    lambda y, x, axis=None, keepdims=False: lambda g: _norm_vjp(g, y, x, axis),
    doc="Root of the sum of squares over ``axis``; slope 0 at 0.",
)
