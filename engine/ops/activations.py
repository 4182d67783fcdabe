"""Activations. Where possible, the gradient is computed from the output, so that a tape need not keep the input.

Exponentials are shifted by their maximum (Blanchard, Higham & Higham 2021, arXiv:1909.03469). Each activation is one
record, which needs fewer passes over memory than a composition would.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.autograd.graph import Array, Vjp
from engine.autograd.primitive import Primitive
from engine.autograd.tensor import untracked
from engine.errors import SettingError

__all__ = ["elu", "gelu", "leaky_relu", "log_softmax", "relu", "sigmoid", "silu", "softmax", "softplus", "tanh"]


def _sigmoid(x: Any) -> Array:
    y: Array = np.asanyarray(np.negative(x))  # NumPy returns a scalar for an array without axes
    # exp overflows to infinity for large negative x, and 1 / infinity is the correct result.
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    y += 1
    np.divide(1, y, out=y)
    return y


def _sigmoid_vjp(g: Array, y: Array) -> Array:
    slope: Array = np.subtract(1, y)
    slope *= y
    slope *= g
    return slope


sigmoid = Primitive(
    "sigmoid",
    _sigmoid,
    lambda y, x: lambda g: _sigmoid_vjp(g, y),
    graph=[lambda y, x: lambda g: g * (y * (1 - y))],
    doc="``1 / (1 + exp(-x))``, without overflow.",
)


def _tanh_vjp(g: Array, y: Array) -> Array:
    slope = np.asanyarray(np.multiply(y, y))
    np.subtract(1, slope, out=slope)
    slope *= g
    return slope


tanh = Primitive(
    "tanh", np.tanh, lambda y, x: lambda g: _tanh_vjp(g, y), graph=[lambda y, x: lambda g: g * (1 - y * y)]
)


relu = Primitive(
    "relu", lambda x: np.maximum(x, 0), lambda y, x: lambda g: g * (y > 0), doc="``max(x, 0)``; slope 0 at 0."
)


def _leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    if not 0 <= negative_slope <= 1:
        raise SettingError(f"leaky_relu: negative_slope {negative_slope} is not in [0, 1]", setting="negative_slope")
    y = np.multiply(x, negative_slope)
    return np.maximum(x, y, out=y if isinstance(y, np.ndarray) else None)


def _leaky_relu_vjp(g: Array, y: Array, negative_slope: float) -> Array:
    # The output has the sign of the input. With slope 0, negative inputs give 0, which is not positive either.
    slope: Array = (y > 0).astype(g.dtype)
    slope *= 1 - negative_slope
    slope += negative_slope
    slope *= g
    return slope


def _leaky_relu_graph(y: Any, x: Any, negative_slope: float = 0.2) -> Vjp:
    # The slope is constant almost everywhere.
    slope = _leaky_relu_vjp(np.ones_like(untracked(y)), untracked(y), negative_slope)
    return lambda g: g * slope


leaky_relu = Primitive(
    "leaky_relu",
    _leaky_relu,
    lambda y, x, negative_slope=0.2: lambda g: _leaky_relu_vjp(g, y, negative_slope),
    graph=[_leaky_relu_graph],
    doc="``x`` where positive, else ``negative_slope * x``; the slope must lie in [0, 1].",
)


def _softmax(x: Any, axis: int = -1) -> Array:
    y: Array = np.subtract(x, np.max(x, axis=axis, keepdims=True))
    np.exp(y, out=y)
    y /= np.sum(y, axis=axis, keepdims=True)
    return y


softmax = Primitive(
    "softmax",
    _softmax,
    lambda y, x, axis=-1: lambda g: y * (g - np.sum(g * y, axis=axis, keepdims=True)),
    doc="Exponentials over ``axis``, scaled to sum to 1; shifted by the maximum.",
)


def _log_softmax(x: Any, axis: int = -1) -> Array:
    y: Array = np.subtract(x, np.max(x, axis=axis, keepdims=True))
    y -= np.log(np.sum(np.exp(y), axis=axis, keepdims=True))
    return y


log_softmax = Primitive(
    "log_softmax",
    _log_softmax,
    lambda y, x, axis=-1: lambda g: g - np.exp(y) * np.sum(g, axis=axis, keepdims=True),
    doc="``log(softmax(x))``, exact where the softmax underflows.",
)


elu = Primitive(
    "elu",
    lambda x: np.where(np.greater(x, 0), x, np.expm1(np.minimum(x, 0))),
    lambda y, x: lambda g: g * (np.minimum(y, 0) + 1),
    doc="``x`` where positive, else ``exp(x) - 1`` (Clevert et al. 2016).",
)
softplus = Primitive(
    "softplus",
    lambda x: np.logaddexp(x, 0),
    lambda y, x: lambda g: g * sigmoid(x),
    doc="``log(1 + exp(x))``, without overflow (Dugas et al. 2001); its slope is the sigmoid.",
)


def _silu_vjp(g: Any, x: Any) -> Any:
    squashed = sigmoid(x)
    return g * (squashed * (1 + x * (1 - squashed)))


silu = Primitive(
    "silu",
    lambda x: np.multiply(x, _sigmoid(x)),
    lambda y, x: lambda g: _silu_vjp(g, x),
    doc="``x sigmoid(x)`` (Hendrycks & Gimpel 2016, section 2; Ramachandran et al. 2017 call it swish).",
)

_GELU_SCALE, _GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715


def _gelu(x: Any) -> Any:
    return np.multiply(x, 0.5 * (1 + np.tanh(_GELU_SCALE * (x + _GELU_CUBIC * (x * x * x)))))


def _gelu_vjp(g: Any, x: Any) -> Any:
    squared = x * x
    bend = np.tanh(_GELU_SCALE * (x + _GELU_CUBIC * (squared * x)))
    slope = _GELU_SCALE * (1 + 3 * _GELU_CUBIC * squared)
    return g * (0.5 * (1 + bend + x * (1 - bend * bend) * slope))


gelu = Primitive(
    "gelu",
    _gelu,
    lambda y, x: lambda g: _gelu_vjp(g, x),
    doc="``x`` times the normal CDF of ``x``, by the tanh approximation (Hendrycks & Gimpel 2016, equation 2).",
)
