"""The table of primitives, and which NumPy functions they stand for on a tape.

The primitives live by topic in ``ops_elementwise``, ``ops_reductions``, ``ops_shape``, ``ops_network``, ``ops_images``
and ``ops_norm``; here they get their public names. A NumPy function that is in none of the tables below is refused on
a tape, never ignored.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine import ops_arrangement, ops_elementwise, ops_network, ops_reductions, tensor
from engine.errors import GradientError
from engine.ops_elementwise import (
    absolute,
    add,
    cast,
    clip,
    cos,
    divide,
    exp,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    sin,
    sqrt,
    square,
    subtract,
    where,
)
from engine.ops_images import conv2d, flatten, max_pool2d, upsample2d
from engine.ops_network import (
    affine,
    leaky_relu,
    log_softmax,
    matmul,
    relu,
    sigmoid,
    sigmoid_cross_entropy,
    softmax,
    softmax_cross_entropy,
    squared_error,
    tanh,
)
from engine.ops_norm import batch_norm
from engine.ops_reductions import max, mean, min, std, sum, var  # noqa: A004 - NumPy's names
from engine.ops_shape import (
    broadcast_to,
    concatenate,
    expand_dims,
    getitem,
    moveaxis,
    ravel,
    reshape,
    squeeze,
    stack,
    swapaxes,
    transpose,
)

__all__ = [
    "absolute",
    "add",
    "affine",
    "batch_norm",
    "broadcast_to",
    "cast",
    "clip",
    "concatenate",
    "conv2d",
    "cos",
    "divide",
    "exp",
    "expand_dims",
    "expm1",
    "flatten",
    "getitem",
    "leaky_relu",
    "log",
    "log1p",
    "log_softmax",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "moveaxis",
    "multiply",
    "negative",
    "power",
    "ravel",
    "relu",
    "reshape",
    "sigmoid",
    "sigmoid_cross_entropy",
    "sin",
    "softmax",
    "softmax_cross_entropy",
    "sqrt",
    "square",
    "squared_error",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "swapaxes",
    "tanh",
    "transpose",
    "upsample2d",
    "var",
    "where",
]


def _positive(x: Any) -> Any:
    return cast(x, dtype=x.dtype)


def _reciprocal(x: Any) -> Any:
    return divide(1, x)


def _float_power(a: Any, b: Any) -> Any:
    return power(*(cast(x, dtype=np.float64) if isinstance(x, np.ndarray) else x for x in (a, b)))


def _flatten(x: Any) -> Any:
    return ravel(_positive(x))  # a copy, which np.ravel need not give


def _dot(a: Any, b: Any) -> Any:
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return multiply(np.asanyarray(a), np.asanyarray(b))  # np.dot takes Python's numbers for float64
    if np.ndim(b) > 2:
        raise GradientError("np.dot has no gradient beyond two axes; use np.matmul", operation="np.dot")
    return matmul(a, b)


def _where(condition: Any, *choices: Any) -> Any:
    if len(choices) != 2:
        raise GradientError("np.where(condition) gives positions, which have no gradient", operation="np.where")
    return where(tensor.plain(condition) if tensor.is_tracked((condition,)) else condition, *choices)


def _clip(x: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:  # noqa: A002
    return clip(x, a_min if min is None else min, a_max if max is None else max)


def _norm(x: Any, ord: None = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002 - NumPy's name
    if ord is not None:
        raise GradientError("np.linalg.norm has a gradient without ord= only", operation="np.linalg.norm")
    return ops_reductions.norm(x, axis=axis, keepdims=keepdims)


def _outer(a: Any, b: Any) -> Any:
    return multiply(reshape(a, shape=(-1, 1)), reshape(b, shape=(1, -1)))


def _inner(a: Any, b: Any) -> Any:
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return multiply(np.asanyarray(a), np.asanyarray(b))  # np.dot takes Python's numbers for float64
    if np.ndim(b) > 2:
        raise GradientError("np.inner has no gradient beyond two axes; use np.einsum", operation="np.inner")
    return matmul(a, transpose(b))


def _vecdot(a: Any, b: Any) -> Any:
    return sum(multiply(a, b), axis=-1)


def _trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return sum(ops_arrangement.moving(np.diagonal)(x, offset, axis1, axis2), axis=-1)


def _diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    for _ in range(n):
        rows = moveaxis(x, axis, 0)
        x = moveaxis(subtract(getitem(rows, slice(1, None)), getitem(rows, slice(-1))), 0, axis)
    return x


def _reshape_method(x: Any, *shape: Any) -> Any:
    return reshape(x, shape=shape[0] if len(shape) == 1 else shape)


def _transpose_method(x: Any, *axes: Any) -> Any:
    order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
    return transpose(x, axes=order or None)


def _cast_method(x: Any, dtype: Any, copy: bool = True) -> Any:
    if not np.issubdtype(np.dtype(dtype), np.floating):
        raise GradientError(f"ndarray.astype({np.dtype(dtype)}) has no gradient", operation="ndarray.astype")
    return cast(x, dtype=dtype)


tensor.UFUNCS.update(
    {
        np.absolute: absolute,
        np.add: add,
        np.cos: cos,
        np.divide: divide,
        np.exp: exp,
        np.expm1: expm1,
        np.fabs: absolute,
        np.log: log,
        np.log1p: log1p,
        np.matmul: matmul,
        np.maximum: maximum,
        np.minimum: minimum,
        np.multiply: multiply,
        np.negative: negative,
        np.positive: _positive,
        np.power: power,
        np.float_power: _float_power,
        np.reciprocal: _reciprocal,
        np.sin: sin,
        np.sqrt: sqrt,
        np.square: square,
        np.subtract: subtract,
        np.tanh: tanh,
    }
)
_FURTHER = (
    *("arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "cbrt", "cosh", "exp2", "hypot"),
    *("log10", "log2", "logaddexp", "sinh", "tan"),
)
tensor.UFUNCS.update({getattr(np, name): getattr(ops_elementwise, name) for name in _FURTHER} | {np.vecdot: _vecdot})
tensor.REDUCTIONS.update({np.add: sum, np.maximum: max, np.minimum: min, np.multiply: ops_reductions.prod})
tensor.FUNCTIONS.update(
    {
        np.amax: max,
        np.amin: min,
        np.broadcast_to: broadcast_to,
        np.clip: _clip,
        np.concatenate: concatenate,
        np.copy: _positive,
        np.dot: _dot,
        np.expand_dims: expand_dims,
        np.max: max,
        np.mean: mean,
        np.min: min,
        np.moveaxis: moveaxis,
        np.ravel: ravel,
        np.reshape: reshape,
        np.squeeze: squeeze,
        np.stack: stack,
        np.std: std,
        np.sum: sum,
        np.swapaxes: swapaxes,
        np.transpose: transpose,
        np.var: var,
        np.where: _where,
    }
)
_MOVES = (
    *(np.diag, np.diagonal, np.flip, np.fliplr, np.flipud, np.repeat, np.roll, np.rollaxis, np.rot90, np.take),
    *(np.take_along_axis, np.tile, np.tril, np.triu),
)
_SPLITS = (np.array_split, np.dsplit, np.hsplit, np.split, np.vsplit)
tensor.FUNCTIONS.update({function: ops_arrangement.moving(function) for function in _MOVES})
tensor.FUNCTIONS.update({function: ops_arrangement.splitting(function) for function in _SPLITS})
tensor.FUNCTIONS.update(
    {
        np.atleast_1d: ops_arrangement.at_least(np.atleast_1d),
        np.atleast_2d: ops_arrangement.at_least(np.atleast_2d),
        np.atleast_3d: ops_arrangement.at_least(np.atleast_3d),
        np.cumsum: ops_reductions.cumsum,
        np.diff: _diff,
        np.einsum: ops_network.einsum,
        np.hstack: ops_arrangement.hstack,
        np.inner: _inner,
        np.linalg.norm: _norm,
        np.outer: _outer,
        np.pad: ops_arrangement.pad,
        np.prod: ops_reductions.prod,
        np.sort: ops_arrangement.sort,
        np.trace: _trace,
        np.vstack: ops_arrangement.vstack,
    }
)
tensor.METHODS.update(
    {
        "__copy__": _positive,
        "__getitem__": getitem,
        "astype": _cast_method,
        "clip": _clip,
        "copy": _positive,
        "cumsum": ops_reductions.cumsum,
        "diagonal": ops_arrangement.moving(np.diagonal),
        "dot": _dot,
        "flatten": _flatten,
        "max": max,
        "mean": mean,
        "min": min,
        "prod": ops_reductions.prod,
        "ravel": ravel,
        "repeat": ops_arrangement.moving(np.repeat),
        "reshape": _reshape_method,
        "squeeze": squeeze,
        "std": std,
        "sum": sum,
        "swapaxes": swapaxes,
        "take": ops_arrangement.moving(np.take),
        "trace": _trace,
        "transpose": _transpose_method,
        "var": var,
    }
)
# Comparisons, tests, positions and shapes: constant almost everywhere.
tensor.NO_GRADIENT.update(
    {
        *(np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal),
        *(np.isfinite, np.isinf, np.isnan, np.signbit, np.sign, np.floor, np.ceil, np.trunc, np.rint),
        *(np.logical_and, np.logical_or, np.logical_not, np.logical_xor),
        *(np.all, np.any, np.argmax, np.argmin, np.argsort, np.argwhere, np.nonzero, np.flatnonzero, np.round),
        *(np.count_nonzero, np.searchsorted, np.allclose, np.array_equal, np.isclose, np.array_equiv),
        *(np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.result_type),
        *(np.may_share_memory, np.shares_memory, np.array_repr, np.array_str, np.array2string, np.iscomplexobj),
    }
)
