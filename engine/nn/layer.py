"""The base of layers, and helpers that layers share.

A layer is called with a batch, arrays or tensors of shape (batch, features) or (batch, height, width, channels), and
returns a tensor. A ``Shape`` is that of one example, without the batch axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor
from engine.errors import ShapeError
from engine.nn.activations import Activation, activation_function, by_name

IMAGES = "images (height, width, channels)"
"""How error messages describe the input of image layers."""

Shape: TypeAlias = tuple[int, ...]
"""The shape of one example, without the batch axis: (features,) or (height, width, channels)."""


class Layer(ABC):
    """The base of layers; it has no parameters and buffers."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Trainable tensors by name."""
        return {}

    @property
    def buffers(self) -> dict[str, Array]:
        """Arrays that training updates in place without gradients, such as running statistics, by name."""
        return {}

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of ``shape``.

        Raises:
            ShapeError: the layer does not accept such an input; the message says what it accepts.
        """

    @abstractmethod
    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to a batch."""


class Activated(Layer):
    """Base of layers that end with an activation.

    Attributes:
        activation: an Activation; None for none.
        negative_slope: of leaky_relu, in [0, 1].
        activate: the activation as a function.
    """

    def __init__(self, activation: Activation | str | None, negative_slope: float) -> None:
        self.activation = None if activation is None else by_name(Activation, activation, "activation")
        self.negative_slope = negative_slope
        self.activate = activation_function(self.activation, negative_slope)


def shape_error(layer: str, takes: str, shape: Shape, hint: str = "") -> ShapeError:
    """The error of a layer that does not accept an input of ``shape``."""
    return ShapeError(f"{layer} takes {takes}, not {shape}{hint}", operation=layer, shapes=(shape,))


def reshape_hint(shape: Shape) -> str:
    """A hint for error messages if the input consists of flat vectors instead of images."""
    return "; put Reshape before it" if len(shape) == 1 else ""
