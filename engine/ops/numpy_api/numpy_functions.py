"""Maps NumPy functions, ufuncs and methods to primitives, or functions composed of them, for use on a tape.

On a tape, a function that is in none of these tables raises an error; it is never ignored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.autograd import numpy_dispatch
from engine.autograd.tensor import is_tracked, untracked, untracked_tree
from engine.errors import GradientError
from engine.ops import activations, elementwise, linalg, reductions, shape
from engine.ops.numpy_api import composed, data_movement, decompositions


def register() -> None:
    """Register the tables in :mod:`engine.autograd.numpy_dispatch`."""
    numpy_dispatch.UFUNCS.update(_ELEMENTWISE | _COMPOSED)
    numpy_dispatch.REDUCTIONS.update(_REDUCTIONS)
    numpy_dispatch.FUNCTIONS.update(_MOVED | _SPLIT | _FUNCTIONS)
    numpy_dispatch.METHODS.update(_METHODS)
    numpy_dispatch.NO_GRADIENT.update(_NO_GRADIENT)


def _positive(x: Any) -> Any:
    return elementwise.cast(x, dtype=x.dtype)


def _float_power(a: Any, b: Any) -> Any:
    return elementwise.power(
        *(elementwise.cast(x, dtype=np.float64) if isinstance(x, np.ndarray) else x for x in (a, b))
    )


def _product(name: str, remedy: str, of_matrices: Any) -> Any:
    """``np.dot`` or ``np.inner``, which multiply numbers, and differ for matrices."""

    def product(a: Any, b: Any) -> Any:
        if np.ndim(a) == 0 or np.ndim(b) == 0:
            return elementwise.multiply(np.asanyarray(a), np.asanyarray(b))  # both treat Python numbers as float64
        if np.ndim(b) > 2:
            raise GradientError(f"{name} has no gradient beyond two axes; use {remedy}", operation=name)
        return of_matrices(a, b)

    return product


_dot = _product("np.dot", "np.matmul", linalg.matmul)
_inner = _product("np.inner", "np.einsum", lambda a, b: linalg.matmul(a, shape.transpose(b)))


def _where(condition: Any, *choices: Any) -> Any:
    if len(choices) != 2:
        raise GradientError("np.where(condition) gives positions, which have no gradient", operation="np.where")
    return elementwise.where(condition, *choices)


def _full_like(x: Any, fill_value: Any, dtype: Any = None, **options: Any) -> Any:
    if not is_tracked((fill_value,)):
        return np.full_like(untracked(x), untracked_tree(fill_value), dtype, **options)
    return elementwise.multiply(np.ones_like(untracked(x), dtype, **options), fill_value)


def _cumsum(x: Any, axis: int | None = None, dtype: Any = None) -> Any:
    return reductions.cumsum(x if dtype is None else elementwise.cast(x, dtype=dtype), axis=axis)


def _clip(x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:  # noqa: A002
    return elementwise.clip(x, a_min if min is None else min, a_max if max is None else max)


def _nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    if not copy:
        raise GradientError("np.nan_to_num has no gradient with copy=False", operation="np.nan_to_num")
    return elementwise.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


def _outer(a: Any, b: Any) -> Any:
    return elementwise.multiply(shape.reshape(a, shape=(-1, 1)), shape.reshape(b, shape=(1, -1)))


def _compress(condition: Any, a: Any, axis: int | None = None) -> Any:
    return data_movement.moving(lambda x, chosen: np.compress(chosen, x, axis))(a, condition)


def _trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return reductions.sum(data_movement.moving(np.diagonal)(x, offset, axis1, axis2), axis=-1)


def _transpose_method(x: Any, *axes: Any) -> Any:
    order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
    return shape.transpose(x, axes=order or None)


def _cast_method(x: Any, dtype: Any, copy: bool = True) -> Any:
    if not np.issubdtype(np.dtype(dtype), np.floating):
        raise GradientError(f"np.astype(x, {np.dtype(dtype)}) has no gradient", operation="np.astype")
    return elementwise.cast(x, dtype=dtype)


def _same_names(space: Any, module: Any, *names: str) -> dict[Any, Any]:
    return {getattr(space, name): getattr(module, name) for name in names}


_ELEMENTWISE: dict[np.ufunc, Any] = _same_names(
    np,
    elementwise,
    *("absolute", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "cbrt", "cos"),
    *("cosh", "deg2rad", "divide", "exp", "exp2", "expm1", "fmax", "fmin", "fmod", "hypot", "log", "log10"),
    *("log1p", "log2", "logaddexp", "logaddexp2", "maximum", "minimum", "multiply", "negative", "power"),
    *("rad2deg", "remainder", "sin", "sinh", "sqrt", "square", "subtract", "tan"),
)
_COMPOSED: dict[np.ufunc, Any] = {
    np.degrees: elementwise.rad2deg,
    np.fabs: elementwise.absolute,
    np.float_power: _float_power,
    np.matmul: linalg.matmul,
    np.matvec: lambda a, b: shape.squeeze(linalg.matmul(a, shape.expand_dims(b, -1)), -1),
    np.positive: _positive,
    np.radians: elementwise.deg2rad,
    np.reciprocal: lambda x: elementwise.divide(1, x),
    np.tanh: activations.tanh,
    np.vecdot: lambda a, b: reductions.sum(elementwise.multiply(a, b), axis=-1),
    np.vecmat: lambda a, b: shape.squeeze(linalg.matmul(shape.expand_dims(a, -2), b), -2),
}
_REDUCTIONS: dict[np.ufunc, Any] = {
    np.add: composed.sum_,
    np.maximum: composed.max_,
    np.minimum: composed.min_,
    np.multiply: composed.prod,
}
_MOVED: dict[Any, Any] = {
    function: data_movement.moving(function)
    for function in (
        *(np.diag, np.diagonal, np.flip, np.fliplr, np.flipud, np.repeat, np.roll, np.rollaxis, np.rot90),
        *(np.take_along_axis, np.tile, np.tril, np.triu),
    )
}
_SPLIT: dict[Any, Any] = {
    function: data_movement.splitting(function)
    for function in (np.array_split, np.dsplit, np.hsplit, np.split, np.unstack, np.vsplit)
}


_FUNCTIONS: dict[Any, Any] = {
    **_same_names(
        np,
        composed,
        *("append", "average", "column_stack", "cross", "diff", "einsum", "gradient", "kron", "linspace"),
        *("mean", "pad", "prod", "select", "std", "tensordot", "trapezoid", "var"),
    ),
    **_same_names(
        np,
        shape,
        *("broadcast_to", "concatenate", "expand_dims", "moveaxis", "ravel", "reshape", "squeeze"),
        *("stack", "swapaxes", "transpose"),
    ),
    **_same_names(np, data_movement, "hstack", "sort", "take", "vstack"),
    **_same_names(np.linalg, decompositions, "cholesky", "det", "eigh", "eigvalsh", "inv", "slogdet", "solve", "svd"),
    **_same_names(np.linalg, composed, "norm", "vector_norm"),
    np.sinc: elementwise.sinc,
    np.amax: composed.max_,
    np.amin: composed.min_,
    np.astype: _cast_method,
    np.atleast_1d: data_movement.at_least(np.atleast_1d),
    np.atleast_2d: data_movement.at_least(np.atleast_2d),
    np.atleast_3d: data_movement.at_least(np.atleast_3d),
    np.clip: _clip,
    np.compress: _compress,
    np.copy: lambda a, order="K": shape.copied(a, order=order),
    np.cumsum: _cumsum,
    np.dot: _dot,
    np.full_like: _full_like,
    np.inner: _inner,
    np.linalg.outer: _outer,
    np.linalg.trace: lambda x, *, offset=0: _trace(x, offset, -2, -1),
    np.matrix_transpose: lambda x: shape.swapaxes(x, -1, -2),
    np.max: composed.max_,
    np.min: composed.min_,
    np.nan_to_num: _nan_to_num,
    np.outer: _outer,
    np.sum: composed.sum_,
    np.trace: _trace,
    np.where: _where,
}
_METHODS: dict[str, Any] = {
    name: (_MOVED | _FUNCTIONS)[getattr(np, name)]
    for name in (
        *("astype", "clip", "cumsum", "diagonal", "dot", "max", "mean", "min", "prod", "ravel", "repeat"),
        *("squeeze", "std", "sum", "swapaxes", "take", "trace", "var"),
    )
} | {
    "__getitem__": shape.getitem,
    "compress": lambda x, condition, axis=None: _compress(condition, x, axis),
    "copy": shape.copied,
    "flatten": lambda x: shape.ravel(_positive(x)),  # always a copy, unlike np.ravel
    "reshape": lambda x, *sizes: shape.reshape(x, shape=sizes[0] if len(sizes) == 1 else sizes),
    "transpose": _transpose_method,
}
# Comparisons, tests, positions and shapes are constant almost everywhere.
_NO_GRADIENT: set[Any] = {
    *(np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal),
    *(np.isfinite, np.isinf, np.isnan, np.signbit, np.sign, np.floor, np.ceil, np.trunc, np.rint),
    *(np.logical_and, np.logical_or, np.logical_not, np.logical_xor),
    *(np.all, np.any, np.argmax, np.argmin, np.argsort, np.argwhere, np.nonzero, np.flatnonzero, np.round),
    *(np.count_nonzero, np.searchsorted, np.allclose, np.array_equal, np.isclose, np.array_equiv),
    *(np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like, np.result_type),
    *(np.may_share_memory, np.shares_memory, np.array_repr, np.array_str, np.array2string, np.iscomplexobj),
}
