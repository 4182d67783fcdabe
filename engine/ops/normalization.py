"""Batch normalization (Ioffe & Szegedy 2015, arXiv:1502.03167: each channel over all other axes), layer normalization.

Internally, arrays are *rows*, (groups, channels, everything else). Images of any layout are in that of planes: each row
of pixels is a group, and contiguous. Other arrays are a single group, a view in any layout.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.primitive import Primitive, sum_to_shape
from engine.autograd.tensor import untracked
from engine.autograd.tracing import computing
from engine.errors import DataError, ShapeError
from engine.ops.elementwise import add, divide, multiply, sqrt, square, subtract
from engine.ops.images.geometry import as_rows, from_planes, has_contiguous_rows
from engine.ops.linalg import sum_along_rows, sum_over_rows
from engine.ops.reductions import mean

__all__ = ["batch_norm", "layer_norm"]


def _as_rows(x: Array) -> Array:
    return as_rows(x) if x.ndim == 4 else np.reshape(x.transpose(x.ndim - 1, *range(x.ndim - 1)), (1, x.shape[-1], -1))


def _from_rows(rows: Array, shape: tuple[int, ...]) -> Array:
    if len(shape) == 4:
        batch, height, width, channels = shape
        return from_planes(rows.reshape(height, channels, width, batch))
    return rows.reshape(shape[-1], *shape[:-1]).transpose(*range(1, len(shape)), 0)


def _sums(rows: Array) -> Array:
    """The sum of each channel: (channels, 1)."""
    if has_contiguous_rows(rows):
        return _column(np.sum(sum_along_rows(rows), axis=0))
    # The columns of one matrix: images, which have several groups, never get here, and would be an error.
    return _column(sum_over_rows(np.squeeze(rows, axis=0).T))


def _products(rows: Array, others: Array) -> Array:
    """The sum of the products of each channel: (channels,)."""
    return np.asanyarray(np.sum(np.vecdot(rows, others), axis=0))


def _column(vector: Array) -> Array:
    return np.reshape(vector, (-1, 1))


def _normalize(x: Array, scale: Array, shift: Array, centred: Array, inverse: Array, epsilon: float) -> Array:
    rows = np.multiply(centred, np.multiply(inverse, _column(scale)))
    np.add(rows, _column(shift), out=rows)
    return _from_rows(rows, x.shape)


def _normalize_vjp(g: Array, scale: Array, centred: Array, inverse: Array) -> Array:
    # Page 4 of the paper, with the gradients of mean and variance substituted:
    # factor * (g - mean of g - centred * inverse^2 * mean of (g * centred)).
    rows, count = _as_rows(g), centred.size // len(inverse)
    factor = np.multiply(inverse, _column(scale))
    pull = np.multiply(_column(_products(rows, centred)), np.multiply(inverse, inverse))
    pull *= -1 / count
    gradient = np.multiply(centred, pull)
    gradient += rows
    gradient -= np.multiply(_sums(rows), 1 / count)
    gradient *= factor
    return _from_rows(gradient, g.shape)


def _standardize(x: Any, epsilon: float) -> tuple[Any, Any]:
    """x with mean 0 and variance 1, and the factor by which its deviations were multiplied."""
    axes = tuple(range(x.ndim - 1))
    centred = x - np.mean(x, axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(np.mean(centred * centred, axis=axes, keepdims=True) + epsilon)
    return centred * inverse, inverse


def _recordable_vjp(g: Any, x: Any, scale: Any, epsilon: float) -> Any:
    standard, factor = _standardize(x, epsilon)
    axes = tuple(range(x.ndim - 1))
    mean, pull = (np.mean(values, axis=axes, keepdims=True) for values in (g, g * standard))
    return scale * factor * (g - mean - standard * pull)


_normalized = Primitive(
    "batch_norm",
    _normalize,
    lambda y, x, scale, shift, centred, inverse, epsilon: lambda g: _normalize_vjp(g, scale, centred, inverse),
    lambda y, x, scale, shift, centred, inverse, epsilon: (
        lambda g: np.multiply(_products(_as_rows(g), centred), np.reshape(inverse, -1))
    ),
    lambda y, x, scale, shift, centred, inverse, epsilon: lambda g: np.reshape(_sums(_as_rows(g)), -1),
    graph=[
        lambda y, x, scale, shift, epsilon, **_: lambda g: _recordable_vjp(g, x, scale, epsilon),
        lambda y, x, scale, shift, epsilon, **_: lambda g: sum_to_shape(g * _standardize(x, epsilon)[0], scale.shape),
    ],
)


def _check(name: str, x: Array, scale: Array, shift: Array) -> None:
    if x.ndim < 2 or x.shape[-1:] != scale.shape or scale.shape != shift.shape:
        problem = f"{x.shape} with scale {scale.shape} and shift {shift.shape}: the last axes must be equal"
        raise ShapeError.of(name, problem, x, scale, shift)


def batch_norm(x: Any, scale: Any, shift: Any, epsilon: float = 1e-5) -> tuple[Any, Array, Array]:
    """``scale * (x - mean) / sqrt(variance + epsilon) + shift``, with the statistics of the batch (Algorithm 1).

    Args:
        x: (batch, ..., channels).
        scale, shift: (channels,).

    Returns:
        The result, and the mean and variance of each channel (channels,). These have no gradient of their own, because
        the gradient through the statistics is part of that of the result. The variance is the biased one.

    Raises:
        ShapeError: the last axes differ.
        DataError: an empty batch, which has no mean.
    """
    values = untracked(x)
    _check("batch_norm", values, scale, shift)
    if values.size == 0:
        raise DataError(f"batch_norm: an empty batch {values.shape} has no mean")
    rows = _as_rows(values)
    weight = len(scale) / rows.size
    means = np.multiply(_sums(rows), weight)
    centred = np.subtract(rows, means)
    variance = np.multiply(_products(centred, centred), weight)
    inverse = np.divide(1, np.sqrt(np.add(_column(variance), epsilon)))
    y = _normalized(x, scale, shift, centred=centred, inverse=inverse, epsilon=epsilon)
    return y, np.reshape(means, -1), variance


def layer_norm(x: Any, scale: Any, shift: Any, epsilon: float = 1e-5) -> Any:
    """``scale * (x - mean) / sqrt(variance + epsilon) + shift``, with the statistics of each example.

    Args:
        x: (batch, ..., channels); the statistics cover all axes except the first.
        scale, shift: (channels,).

    Raises:
        ShapeError: the last axes differ.
    """
    _check("layer_norm", x, scale, shift)
    axes = tuple(range(1, x.ndim))
    centred = subtract(x, mean(x, axis=axes, keepdims=True))
    variance = mean(square(centred), axis=axes, keepdims=True)
    standard = divide(centred, sqrt(add(variance, epsilon)))
    return add(multiply(standard, scale), shift)


def update_running_average(average: Array, value: Array, momentum: float) -> None:
    """``average = momentum * average + (1 - momentum) * value``, in place; all of shape (channels,)."""
    target = average.view(computing.array_class)  # a traced view, so that a replay repeats the update
    np.multiply(target, momentum, out=target)
    np.add(target, np.multiply(value, 1 - momentum), out=target)
