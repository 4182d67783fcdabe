"""Pooling and upsampling layers: MaxPool2D, AvgPool2D, GlobalAvgPool2D and Upsample2D."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine import ops
from engine.errors import check_positive
from engine.nn.layer import IMAGES, Layer, Shape, reshape_hint, shape_error

__all__ = ["AvgPool2D", "GlobalAvgPool2D", "MaxPool2D", "Upsample2D"]


class _WindowPool(Layer):
    """One value per window of ``size`` x ``size`` pixels. Windows do not overlap, and must divide the image.

    Raises:
        SettingError: a size that is not positive.
    """

    def __init__(self, size: int = 2) -> None:
        check_positive(f"{type(self).__name__}: ", size=size)
        self.size = size

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (height / size, width / size, channels)."""
        if len(shape) != 3 or shape[0] % self.size or shape[1] % self.size:
            takes = f"{IMAGES} whose height and width are multiples of {self.size}"
            raise shape_error(type(self).__name__, takes, shape, reshape_hint(shape))
        return (shape[0] // self.size, shape[1] // self.size, shape[2])


class MaxPool2D(_WindowPool):
    """The maximum of each window of ``size`` x ``size`` pixels; the gradient goes to the first maximum of a window."""

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, height, width, channels)."""
        return ops.max_pool2d(x, size=self.size)


class AvgPool2D(_WindowPool):
    """The mean of each window of ``size`` x ``size`` pixels."""

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, height, width, channels)."""
        return ops.multiply(ops.sum_pool2d(x, size=self.size), 1 / self.size**2)


class GlobalAvgPool2D(Layer):
    """The mean of each channel over the whole image: images to vectors (Lin et al. 2014, "Network in network")."""

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (channels,)."""
        if len(shape) != 3:
            raise shape_error("GlobalAvgPool2D", IMAGES, shape, reshape_hint(shape))
        return (shape[2],)

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, height, width, channels); returns (batch, channels)."""
        return ops.mean(x, axis=(1, 2))


class Upsample2D(Layer):
    """Repeats each pixel ``size`` x ``size`` times. Generators enlarge images with it, followed by Conv2D.

    Raises:
        SettingError: a size that is not positive.
    """

    def __init__(self, size: int = 2) -> None:
        check_positive("Upsample2D: ", size=size)
        self.size = size

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (height * size, width * size, channels)."""
        if len(shape) != 3:
            raise shape_error("Upsample2D", IMAGES, shape, reshape_hint(shape))
        return (shape[0] * self.size, shape[1] * self.size, shape[2])

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, height, width, channels)."""
        return ops.upsample2d(x, size=self.size)
