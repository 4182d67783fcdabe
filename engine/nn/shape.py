"""Layers that only change the shape of an example: Flatten and Reshape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import ops
from engine.errors import SettingError
from engine.nn.layer import Layer, Shape, shape_error

__all__ = ["Flatten", "Reshape"]


class Flatten(Layer):
    """Images to vectors, which Dense requires: (batch, height, width, channels) to (batch, features)."""

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (height * width * channels,)."""
        return (math.prod(shape),)

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, ...); returns (batch, features)."""
        return as_inputs(x, (math.prod(x.shape[1:]),))


class Reshape(Layer):
    """Examples to another shape of the same size, usually vectors to images.

    Raises:
        SettingError: a size that is not positive.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        if not shape or min(shape) < 1:
            raise SettingError(f"Reshape: the sizes of {tuple(shape)} must be positive", setting="shape")
        self.shape = tuple(shape)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape that the layer was given; raises ShapeError if the sizes differ."""
        if math.prod(shape) != math.prod(self.shape):
            raise shape_error("Reshape", f"{math.prod(self.shape)} numbers for the shape {self.shape}", shape)
        return self.shape

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, ...)."""
        return as_inputs(x, self.shape)


def as_inputs(x: Any, shape: Shape) -> Any:
    """A batch reshaped to examples of ``shape``."""
    if x.shape[1:] == shape:
        return x
    return ops.flatten(x) if len(shape) == 1 else ops.reshape(x, shape=(len(x), *shape))
