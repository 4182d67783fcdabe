"""Initial weights: an initializer takes (shape, rng, dtype) and returns an array.

Weights have the shape (inputs, units), or (kernel, kernel, inputs, units) for convolutions; biases have (units,). All
random numbers come from ``rng``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from engine.autograd.graph import Array
from engine.errors import check_positive

Initializer: TypeAlias = Callable[[tuple[int, ...], np.random.Generator, DTypeLike], Array]


def uniform(scale: float) -> Initializer:
    """The initializer U(-scale, scale), for weights and biases alike.

    Raises:
        SettingError: ``scale`` is not positive.
    """
    check_positive("uniform: ", scale=scale)

    def draw(shape: tuple[int, ...], rng: np.random.Generator, dtype: DTypeLike) -> Array:
        return rng.uniform(-scale, scale, shape).astype(dtype)

    return draw


def glorot_uniform(shape: tuple[int, ...], rng: np.random.Generator, dtype: DTypeLike) -> Array:
    """U(-a, a) with a = sqrt(6 / (inputs + units)); zeros for biases. Glorot & Bengio 2010, equation 16.

    For a convolution, both inputs and units are multiplied by the number of kernel elements.
    """
    if len(shape) < 2:
        return np.zeros(shape, dtype)
    limit = np.sqrt(6 / (math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1]))
    return rng.uniform(-limit, limit, shape).astype(dtype)


def he_normal(shape: tuple[int, ...], rng: np.random.Generator, dtype: DTypeLike) -> Array:
    """N(0, 2 / inputs); zeros for biases. He et al. 2015, equation 10. The inputs of a convolution are those of a
    patch."""
    if len(shape) < 2:
        return np.zeros(shape, dtype)
    weights: Array = rng.standard_normal(shape) * np.sqrt(2 / math.prod(shape[:-1]))
    return weights.astype(dtype)
