"""The convolutional networks of the presets. Dropout can be omitted, so that results can be compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import BatchNorm, Conv2D, Dense, Dropout, Flatten, MaxPool2D, Reshape, Sequential, Upsample2D, generator_for
from engine.nn.initializers import he_normal
from engine.nn.layer import Layer

LATENT = 64


def conv_classifier(dropout: float = 0.2) -> Sequential:
    """Preset ``conv``."""
    rng = generator_for(0, "conv")
    layers: list[Layer] = [
        Conv2D(1, 16, rng=rng, initializer=he_normal),
        MaxPool2D(),
        BatchNorm(16, "relu"),
        Conv2D(16, 32, rng=rng, initializer=he_normal),
        MaxPool2D(),
        BatchNorm(32, "relu"),
        Flatten(),
        *_dropout(dropout),
        Dense(7 * 7 * 32, 128, "relu", rng=rng, initializer=he_normal),
        *_dropout(dropout),
        Dense(128, 10, "softmax", rng=rng, initializer=he_normal),
    ]
    return Sequential(layers, input_shape=(28, 28, 1))


def conv_generator() -> Sequential:
    """That of preset ``best``."""
    rng = generator_for(0, "conv generator")
    layers: list[Layer] = [
        Dense(LATENT, 256, rng=rng),
        BatchNorm(256, "relu"),
        Dense(256, 7 * 7 * 48, rng=rng),
        BatchNorm(7 * 7 * 48, "relu"),
        Reshape((7, 7, 48)),
        Upsample2D(),
        Conv2D(48, 32, rng=rng),
        BatchNorm(32, "relu"),
        Upsample2D(),
        Conv2D(32, 1, 5, activation="tanh", rng=rng),
    ]
    return Sequential(layers)


def conv_discriminator(dropout: float = 0.4) -> Sequential:
    """That of preset ``best``."""
    rng = generator_for(0, "conv discriminator")
    layers: list[Layer] = [
        Conv2D(1, 24, 5, 2, activation="leaky_relu", rng=rng),
        Conv2D(24, 48, 3, 2, activation="leaky_relu", rng=rng),
        Flatten(),
        *_dropout(dropout),
        Dense(7 * 7 * 48, 256, "leaky_relu", rng=rng),
        *_dropout(dropout),
        Dense(256, 1, "sigmoid", rng=rng),
    ]
    return Sequential(layers, input_shape=(28, 28, 1))


def arrays(model: Sequential) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Copies of a model's parameters and of its running statistics."""
    return [np.array(array) for array in model.parameters], [np.array(array) for array in model.buffers]


def _dropout(rate: float) -> list[Layer]:
    return [Dropout(rate)] if rate else []
