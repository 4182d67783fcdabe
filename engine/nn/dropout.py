"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine import ops
from engine.autograd.graph import Array
from engine.errors import SettingError, check_fraction
from engine.memory import is_batch_innermost
from engine.nn.layer import Layer, Shape
from engine.ops.images.geometry import from_planes

__all__ = ["Dropout"]


class Dropout(Layer):
    """Zeroes each element with probability ``rate`` while training, and scales the others by 1 / (1 - rate).

    Srivastava et al. 2014, in the inverted form, which does nothing at inference. The rate is rounded to a multiple of
    2**-16, because 16 random bits per element cost half as much as a float.

    Raises:
        SettingError: ``rate`` is not in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        check_fraction("Dropout: ", rate=rate)
        self.rate = rate
        self._threshold = min(round(rate * 2**16), 2**16 - 1)

    def output_shape(self, shape: Shape) -> Shape:
        """Any shape; it does not change."""
        return shape

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` of any shape; needs ``rng`` while training."""
        if not training or self._threshold == 0:
            return x
        if rng is None:
            raise SettingError(
                "Dropout: training needs a random generator: layer(x, training=True, rng=...)", setting="rng"
            )
        kept = _draw(rng, x) >= self._threshold
        mask = kept.astype(x.dtype)
        mask *= 2**16 / (2**16 - self._threshold)
        return ops.multiply(x, mask)


def _draw(rng: np.random.Generator, x: Array) -> Array:
    """16 random bits per element of ``x``, in its memory order: a product of two layouts takes ten times as long."""
    if x.ndim == 4:
        batch, height, width, channels = x.shape
        return from_planes(rng.integers(0, 2**16, (height, channels, width, batch), np.uint16))
    shape: Shape = x.shape
    if is_batch_innermost(x):
        return rng.integers(0, 2**16, shape[::-1], np.uint16).T
    return rng.integers(0, 2**16, shape, np.uint16)
