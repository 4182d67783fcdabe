"""Elementwise primitives: arithmetic, powers, exponentials, and selections such as maximum and where.

Standard derivatives are in any table, for example Abramowitz & Stegun 3.3 and 4.2 to 4.5.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.autograd.graph import Array, Vjp
from engine.autograd.primitive import Primitive, unbroadcast
from engine.autograd.tensor import snapshot

__all__ = [
    "absolute",
    "add",
    "cast",
    "clip",
    "cos",
    "divide",
    "exp",
    "expm1",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "power",
    "sin",
    "sqrt",
    "square",
    "subtract",
    "where",
]


def _log_of_sum(name: str, function: np.ufunc, exponential: np.ufunc) -> Primitive:
    return Primitive(
        name,
        function,
        lambda y, a, b: unbroadcast(y, a, lambda g: g * exponential(np.subtract(a, y))),
        lambda y, a, b: unbroadcast(y, b, lambda g: g * exponential(np.subtract(b, y))),
    )


def _remainder(name: str, function: np.ufunc, rounded: np.ufunc, doc: str) -> Primitive:
    return Primitive(
        name,
        function,
        lambda y, a, b: unbroadcast(y, a, lambda g: g),
        lambda y, a, b: unbroadcast(y, b, lambda g: g * -rounded(np.true_divide(a, b))),
        doc=doc,
    )


add = Primitive(
    "add",
    np.add,
    lambda y, a, b: unbroadcast(y, a, lambda g: g),
    lambda y, a, b: unbroadcast(y, b, lambda g: g),
)
subtract = Primitive(
    "subtract",
    np.subtract,
    lambda y, a, b: unbroadcast(y, a, lambda g: g),
    lambda y, a, b: unbroadcast(y, b, np.negative),
)
multiply = Primitive(
    "multiply",
    np.multiply,
    lambda y, a, b: unbroadcast(y, a, lambda g: g * b),
    lambda y, a, b: unbroadcast(y, b, lambda g: g * a),
)
divide = Primitive(
    "divide",
    np.true_divide,
    lambda y, a, b: unbroadcast(y, a, lambda g: g / b),
    lambda y, a, b: unbroadcast(y, b, lambda g: -g * y / b),
)
negative = Primitive("negative", np.negative, lambda y, x: np.negative)
square = Primitive("square", np.square, lambda y, x: lambda g: 2 * g * x)
sqrt = Primitive("sqrt", np.sqrt, lambda y, x: lambda g: g / (2 * y))
exp = Primitive("exp", np.exp, lambda y, x: lambda g: g * y)
expm1 = Primitive("expm1", np.expm1, lambda y, x: lambda g: g * (y + 1))
log = Primitive("log", np.log, lambda y, x: lambda g: g / x)
log1p = Primitive("log1p", np.log1p, lambda y, x: lambda g: g / (1 + x))
sin = Primitive("sin", np.sin, lambda y, x: lambda g: g * np.cos(x))
cos = Primitive("cos", np.cos, lambda y, x: lambda g: g * -np.sin(x))
absolute = Primitive("absolute", np.absolute, lambda y, x: lambda g: g * np.sign(x))

tan = Primitive("tan", np.tan, lambda y, x: lambda g: g * (1 + y * y))
arcsin = Primitive("arcsin", np.arcsin, lambda y, x: lambda g: g / np.sqrt(1 - x * x))
arccos = Primitive("arccos", np.arccos, lambda y, x: lambda g: -g / np.sqrt(1 - x * x))
arctan = Primitive("arctan", np.arctan, lambda y, x: lambda g: g / (1 + x * x))
sinh = Primitive("sinh", np.sinh, lambda y, x: lambda g: g * np.cosh(x))
cosh = Primitive("cosh", np.cosh, lambda y, x: lambda g: g * np.sinh(x))
arcsinh = Primitive("arcsinh", np.arcsinh, lambda y, x: lambda g: g / np.sqrt(x * x + 1))
arccosh = Primitive("arccosh", np.arccosh, lambda y, x: lambda g: g / np.sqrt(x * x - 1))
arctanh = Primitive("arctanh", np.arctanh, lambda y, x: lambda g: g / (1 - x * x))
exp2 = Primitive("exp2", np.exp2, lambda y, x: lambda g: g * (y * math.log(2)))
log2 = Primitive("log2", np.log2, lambda y, x: lambda g: g / (x * math.log(2)))
log10 = Primitive("log10", np.log10, lambda y, x: lambda g: g / (x * math.log(10)))
cbrt = Primitive("cbrt", np.cbrt, lambda y, x: lambda g: g / (3 * y * y))
arctan2 = Primitive(
    "arctan2",
    np.arctan2,
    lambda y, a, b: unbroadcast(y, a, lambda g: g * b / (np.square(a) + np.square(b))),
    lambda y, a, b: unbroadcast(y, b, lambda g: -g * a / (np.square(a) + np.square(b))),
)
hypot = Primitive(
    "hypot",
    np.hypot,
    lambda y, a, b: unbroadcast(y, a, lambda g: g * a / np.where(np.equal(y, 0), 1, y)),
    lambda y, a, b: unbroadcast(y, b, lambda g: g * b / np.where(np.equal(y, 0), 1, y)),
    doc="``sqrt(a**2 + b**2)``; slope 0 where both are 0.",
)
logaddexp = _log_of_sum("logaddexp", np.logaddexp, np.exp)
logaddexp2 = _log_of_sum("logaddexp2", np.logaddexp2, np.exp2)
deg2rad = Primitive("deg2rad", np.deg2rad, lambda y, x: lambda g: g * (math.pi / 180))
rad2deg = Primitive("rad2deg", np.rad2deg, lambda y, x: lambda g: g * (180 / math.pi))
remainder = _remainder("remainder", np.remainder, np.floor, "The remainder of a divided by b, with the sign of b.")
fmod = _remainder("fmod", np.fmod, np.trunc, "The remainder of a divided by b, with the sign of a.")
nan_to_num = Primitive(
    "nan_to_num",
    np.nan_to_num,
    lambda y, x, **_: lambda g: np.where(np.isfinite(x), g, 0),
    doc="Replaces values that are not finite by finite ones; their slope is 0.",
)


def _sinc_slope(y: Any, x: Any) -> Any:
    """The slope of sin(pi x) / (pi x). Near 0, it uses the series, because the difference below loses precision."""
    near = np.less(np.abs(x), 0.01)
    square_ = math.pi**2 * x * x
    series = x * (-(math.pi**2) / 3) * (1 - square_ / 10 * (1 - square_ / 28 * (1 - square_ / 54)))
    return np.where(near, series, (np.cos(math.pi * x) - y) / np.where(near, 1, x))


sinc = Primitive("sinc", np.sinc, lambda y, x: lambda g: g * _sinc_slope(y, x))


def _power_base(g: Array, a: Any, b: Any) -> Any:
    """``g * b * a ** (b - 1)``, and 0 where b is 0, because the power is then constant, even at a = 0."""
    if np.ndim(b) == 0 and b != 0:
        return g * (b * np.power(a, b - 1))
    constant = np.equal(b, 0)
    return np.where(constant, 0, g * b * np.power(a, np.where(constant, b, b - 1)))


def _power_exponent(g: Array, y: Array, a: Any) -> Any:
    """``g * y * log a``, and its limit 0 where a is 0 and the exponent not negative."""
    zero = np.logical_and(np.equal(a, 0), np.isfinite(y))
    return np.where(zero, 0, g * y * np.log(np.where(zero, np.ones_like(a), a)))


power = Primitive(
    "power",
    np.power,
    lambda y, a, b: unbroadcast(y, a, lambda g: _power_base(g, a, b)),
    lambda y, a, b: unbroadcast(y, b, lambda g: _power_exponent(g, y, a)),
)


def _share(chosen: Any, other: Any, y: Array) -> Any:
    """The weight of ``chosen`` in a maximum or minimum ``y``: 1 where it was selected, 1/2 where both are equal."""
    return np.equal(chosen, y) / np.where(np.equal(chosen, other), 2, 1).astype(y.dtype)


def _extremum(name: str, function: np.ufunc, doc: str | None = None) -> Primitive:
    return Primitive(
        name,
        function,
        lambda y, a, b: unbroadcast(y, a, lambda g: g * _share(a, b, y)),
        lambda y, a, b: unbroadcast(y, b, lambda g: g * _share(b, a, y)),
        doc=doc,
    )


maximum = _extremum("maximum", np.maximum)
minimum = _extremum("minimum", np.minimum)
fmax = _extremum("fmax", np.fmax, "The larger of both; if one is NaN, the other one.")
fmin = _extremum("fmin", np.fmin, "The smaller of both; if one is NaN, the other one.")


_where = Primitive(
    "where",
    np.where,
    None,
    lambda y, condition, a, b: unbroadcast(y, a, lambda g: np.where(condition, g, 0)),
    lambda y, condition, a, b: unbroadcast(y, b, lambda g: np.where(condition, 0, g)),
)


def where(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where ``condition`` holds, else ``b``."""
    return _where(snapshot(condition), a, b)


def _below(x: Array, low: Any) -> Any:
    return False if low is None else np.less(x, low)


def _above(x: Array, high: Any) -> Any:
    return False if x is None or high is None else np.greater(x, high)


clip = Primitive(
    "clip",
    lambda x, low=None, high=None: np.clip(x, low, high),
    lambda y, x, low=None, high=None: unbroadcast(y, x, lambda g: g * ~np.logical_or(_below(x, low), _above(x, high))),
    lambda y, x, low=None, high=None: unbroadcast(
        y, low, lambda g: g * np.logical_and(_below(x, low), np.logical_not(_above(low, high)))
    ),
    lambda y, x, low=None, high=None: unbroadcast(
        y, high, lambda g: g * np.logical_or(_above(x, high), _above(low, high))
    ),
    doc="``x`` limited to [low, high]; the gradient passes inside and on the bounds. ``high`` overrides ``low``.",
)


def _cast_back(y: Array, x: Array, dtype: Any) -> Vjp:
    original = x.dtype
    return lambda g: g.astype(original)


cast = Primitive(
    "cast",
    lambda x, dtype: x.astype(dtype),
    _cast_back,
    doc="``x`` with another floating dtype, always a copy.",
)
