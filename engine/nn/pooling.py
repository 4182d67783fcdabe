"""Layers that shrink and enlarge images: MaxPool2D and Upsample2D."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine import ops
from engine.nn.layer import IMAGES, Parameterless, Shape, check_sizes, misfit, reshape_hint


class MaxPool2D(Parameterless):
    """The largest of each window of ``size`` x ``size`` pixels; windows lie side by side and must divide the image.

    The gradient goes to the first maximum of a window.

    Raises:
        SettingError: a size that is not positive.
    """

    def __init__(self, size: int = 2) -> None:
        check_sizes("MaxPool2D", size=size)
        self.size = size

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (height / size, width / size, channels)."""
        if len(shape) != 3 or shape[0] % self.size or shape[1] % self.size:
            takes = f"{IMAGES} whose height and width are multiples of {self.size}"
            raise misfit("MaxPool2D", takes, shape, reshape_hint(shape))
        return (shape[0] // self.size, shape[1] // self.size, shape[2])

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, height, width, channels)."""
        return ops.max_pool2d(x, size=self.size)


class Upsample2D(Parameterless):
    """Each pixel ``size`` x ``size`` times: with Conv2D after it, what a generator grows images with.

    Raises:
        SettingError: a size that is not positive.
    """

    def __init__(self, size: int = 2) -> None:
        check_sizes("Upsample2D", size=size)
        self.size = size

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (height * size, width * size, channels)."""
        if len(shape) != 3:
            raise misfit("Upsample2D", IMAGES, shape, reshape_hint(shape))
        return (shape[0] * self.size, shape[1] * self.size, shape[2])

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, height, width, channels)."""
        return ops.upsample2d(x, size=self.size)
