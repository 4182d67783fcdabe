"""What every layer is: the protocols that Sequential asks for, and what layers share.

A layer is called with a batch, arrays or tensors of shape (batch, features) or (batch, height, width, channels), and
returns a tensor. Shapes without the batch axis are those of one input.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor
from engine.errors import SettingError, ShapeError
from engine.nn.activations import Activation

IMAGES = "images (height, width, channels)"
"""What errors call the inputs of layers for images."""

Shape: TypeAlias = tuple[int, ...]
"""The shape of one input, without the batch axis: (features,) or (height, width, channels)."""


class Layer(Protocol):
    """What Sequential asks of its parts."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Trainable tensors by name; empty for layers that learn nothing."""

    @property
    def buffers(self) -> dict[str, Array]:
        """What training changes in place, but not by gradients: running statistics, by name."""

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of ``shape``.

        Raises:
            ShapeError: the layer cannot take such an input; the message says what it takes.
        """

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to a batch."""


@runtime_checkable
class OutputLayer(Layer, Protocol):
    """What Sequential asks of its last part: losses on logits need it without its activation."""

    @property
    def activation(self) -> Activation | None:
        """What the layer ends with."""

    @property
    def weight(self) -> Tensor:
        """Its weights, whose dtype is the network's."""

    def logits(self, x: Any, *, training: bool = False) -> Any:
        """The layer without its activation."""

    def activate(self, logits: Any) -> Any:
        """The activation alone."""


class Parameterless:
    """Base of layers that learn nothing."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """None."""
        return {}

    @property
    def buffers(self) -> dict[str, Array]:
        """None."""
        return {}


def misfit(layer: str, takes: str, shape: Shape, hint: str = "") -> ShapeError:
    """The error of a layer that cannot take an input of ``shape``."""
    return ShapeError(f"{layer} takes {takes}, not {shape}{hint}", operation=layer, shapes=(shape,))


def check_sizes(layer: str, **sizes: int) -> None:
    """Raise SettingError unless every size of the ``layer`` is positive."""
    for name, size in sizes.items():
        if size < 1:
            raise SettingError(f"{layer}: {name} {size} must be positive", setting=name)


def reshape_hint(shape: Shape) -> str:
    """What an error adds where rows of numbers came instead of images."""
    return "; put Reshape before it" if len(shape) == 1 else ""
