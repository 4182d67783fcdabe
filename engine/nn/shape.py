"""Layers that change the shape of an input and nothing else: Flatten and Reshape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import ops
from engine.errors import SettingError
from engine.nn.layer import Parameterless, Shape, misfit


class Flatten(Parameterless):
    """Images to vectors, as Dense takes them: (batch, height, width, channels) to (batch, features)."""

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (height * width * channels,)."""
        return (math.prod(shape),)

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, ...); gives (batch, features)."""
        return as_inputs(x, (math.prod(x.shape[1:]),))


class Reshape(Parameterless):
    """Inputs of one shape to another of as many numbers: vectors to images.

    Raises:
        SettingError: a size that is not positive.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        if not shape or min(shape) < 1:
            raise SettingError(f"Reshape: the sizes of {tuple(shape)} must be positive", setting="shape")
        self.shape = tuple(shape)

    def output_shape(self, shape: Shape) -> Shape:
        """The layer's own, if it has as many numbers."""
        if math.prod(shape) != math.prod(self.shape):
            raise misfit("Reshape", f"{math.prod(self.shape)} numbers to make {self.shape} of them", shape)
        return self.shape

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, ...)."""
        return as_inputs(x, self.shape)


def as_inputs(x: Any, shape: Shape) -> Any:
    """A batch of inputs of ``shape``."""
    if x.shape[1:] == shape:
        return x
    return ops.flatten(x) if len(shape) == 1 else ops.reshape(x, shape=(len(x), *shape))
