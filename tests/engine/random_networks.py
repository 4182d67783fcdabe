"""Random small networks of all layers, and random batches for them, drawn from a seeded generator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine import (
    Activation,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    LayerNorm,
    MaxPool2D,
    Reshape,
    Residual,
    Sequential,
    Upsample2D,
)
from engine.nn.layer import Layer, Shape
from tests.engine.arrays import LAYOUTS

MAX_VALUES = 96
"""Maximum size of the output of a layer for one example."""
ACTIVATIONS = [None, *(activation for activation in Activation if activation is not Activation.SOFTMAX)]


class Networks:
    """Draws networks.

    Args:
        rng: the source of all choices and weights.
        dtype: of the weights.
        smooth: leave out what has no second derivative, or none that differs from 0.
    """

    def __init__(self, rng: np.random.Generator, dtype: Any = np.float64, *, smooth: bool = False) -> None:
        self.rng, self.dtype, self.smooth = rng, dtype, smooth

    def draw(self, input_shape: Shape | None = None, units: int | None = None) -> Sequential:
        """A network for images or vectors, whose sides and channels may be 1, with ``units`` outputs."""
        image = (self._pick(1, 2, 3, 4), self._pick(1, 2, 4), self._pick(1, 2, 3))
        shape: Shape = input_shape or (image if self.rng.random() < 0.8 else (self._pick(1, 5),))
        input_shape, layers = shape, list[Layer]()
        for _ in range(self._pick(1, 2, 3, 4, 5)):
            layers.append(self._layer(shape))
            shape = layers[-1].output_shape(shape)
        if len(shape) > 1:
            layers.append(GlobalAvgPool2D() if self.rng.random() < 0.3 else Flatten())
            shape = layers[-1].output_shape(shape)
        layers.append(Dense(shape[0], units or self._pick(1, 2, 3), **self._weights(None)))
        network = Sequential(layers, input_shape)
        for (
            parameter
        ) in network.parameters:  # scales, shifts and biases, too; a shift of 0 is the kink of an activation
            parameter += self.rng.uniform(-0.3, 0.3, parameter.shape)
        return network

    def _layer(self, shape: Shape) -> Layer:
        while True:
            layer = self._candidate(shape)
            if math.prod(layer.output_shape(shape)) <= MAX_VALUES:
                return layer

    def _candidate(self, shape: Shape) -> Layer:
        kinds = ["batch_norm", "batch_norm", "layer_norm", "dropout", "residual", "reshape"]
        if len(shape) == 1:
            kinds += ["dense", "dense"]
        else:
            kinds += ["convolution", "convolution", "transposed", "pool", "upsample", "flatten"]
        match self._pick(*kinds):
            case "dense":
                return Dense(shape[0], self._pick(1, 4, 6), **self._weights())
            case "convolution":
                kernel, padding = self._pick(*range(1, min(shape[:2]) + 1)), self._pick("same", "valid")
                return Conv2D(shape[2], self._pick(1, 2, 4), kernel, self._pick(1, 1, 2), padding, **self._weights())
            case "transposed":
                return Conv2DTranspose(shape[2], self._pick(1, 3), 1, self._pick(1, 2), **self._weights())
            case "pool":
                size = self._pick(*(n for n in (1, 2, 3, 4) if shape[0] % n == shape[1] % n == 0))
                return self._pick(AvgPool2D, AvgPool2D if self.smooth else MaxPool2D)(size)
            case "upsample":
                return Upsample2D(self._pick(1, 2))
            case "flatten":
                return Flatten()
            case "reshape":
                return Reshape(self._factors(math.prod(shape)))
            case "residual":
                return Residual([self._inner(shape) for _ in range(self._pick(1, 2))], self._activation())
            case kind:
                return self._inner(shape, kind)

    def _inner(self, shape: Shape, kind: str | None = None) -> Layer:
        """A layer that keeps the shape."""
        kind = kind or self._pick("batch_norm", "layer_norm", "dropout", "weights")
        settings = {"epsilon": 0.01, "dtype": self.dtype, "activation": self._activation()}
        if kind == "batch_norm":
            return BatchNorm(shape[-1], **settings)
        if kind == "layer_norm":
            return LayerNorm(shape[-1], **settings)
        if kind == "dropout":
            return Dropout(self._pick(0.0, 0.3))
        if len(shape) == 1:
            return Dense(shape[0], shape[0], **self._weights())
        return Conv2D(shape[2], shape[2], self._pick(*range(1, min(shape[:2]) + 1)), **self._weights())

    def _weights(self, *activation: Any) -> dict[str, Any]:
        chosen = activation[0] if activation else self._activation()
        spectral = not self.smooth and self.rng.random() < 0.15
        return {"activation": chosen, "rng": self.rng, "dtype": self.dtype, "spectral_norm": spectral}

    def _activation(self) -> Any:
        kinked = (Activation.RELU, Activation.LEAKY_RELU, Activation.ELU)
        return self._pick(*(a for a in ACTIVATIONS if not self.smooth or a not in kinked))

    def _factors(self, size: int) -> Shape:
        if self.rng.random() < 0.2:
            return (size,)
        height = self._pick(*(n for n in range(1, size + 1) if size % n == 0))
        width = self._pick(*(n for n in range(1, size // height + 1) if size // height % n == 0))
        return (height, width, size // height // width)

    def _pick(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def batch(self, network: Sequential, count: int) -> np.ndarray:
        """Random inputs, as rows or in the shape of the examples, in any memory layout."""
        shape = (network.inputs,) if self.rng.random() < 0.5 else network.input_shape
        x = self.rng.standard_normal((count, *shape))
        return self._pick(*LAYOUTS.values())(x).astype(self.dtype)
