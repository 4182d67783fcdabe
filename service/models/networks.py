"""From the layers of a spec to a network of the engine, for those who train it and for those who only use it.

Two lists of names meet here, and the type checker holds them equal: ``assert_never`` fails where the spec gains a
layer or an activation that the engine lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import numpy as np

import engine
from engine.nn.initializers import Initializer
from engine.nn.layer import Layer
from service.spec import schema
from service.spec.estimation.layer_shapes import Size, picture_size
from service.spec.schema import ClassifierSpec, GanSpec, Spec


def classifier(whole: ClassifierSpec, image_shape: Sequence[int], initializer: Initializer) -> engine.Sequential:
    """The network of a classifier, with weights as the initializer draws them.

    Args:
        image_shape: (rows, columns), or (rows, columns, 3).
    """
    return _network(whole.layers, picture_size(whole.layers, image_shape), whole, initializer, purpose="init")


def generator(whole: GanSpec, initializer: Initializer) -> engine.Sequential:
    """The generator of a GAN: latent vectors to rows of pixels."""
    return _network(whole.generator.layers, (whole.latent.dim,), whole, initializer, purpose="generator")


def discriminator(whole: GanSpec, image_shape: Sequence[int], initializer: Initializer) -> engine.Sequential:
    """The discriminator of a GAN for images of (rows, columns) or (rows, columns, 3)."""
    layers = whole.discriminator.layers
    return _network(layers, picture_size(layers, image_shape), whole, initializer, purpose="discriminator")


def latent(whole: GanSpec) -> engine.Latent:
    """The noise that the generator of a GAN starts from."""
    return engine.Latent(whole.latent.dim, whole.latent.distribution.value)


def _network(
    layers: Sequence[schema.Layer], input_size: Size, whole: Spec, initializer: Initializer, *, purpose: str
) -> engine.Sequential:
    rng = engine.generator_for(whole.seed, purpose, 0)
    dtype = np.dtype(whole.dtype.value)
    size = input_size
    built: list[Layer] = []
    for layer in layers:
        match layer:
            case schema.Dense():
                made: Layer = engine.Dense(
                    size[-1],
                    layer.units,
                    _activation(layer.activation),
                    initializer=initializer,
                    rng=rng,
                    dtype=dtype,
                    negative_slope=layer.negative_slope,
                )
            case schema.Conv2D():
                made = engine.Conv2D(
                    size[-1],
                    layer.filters,
                    layer.kernel,
                    layer.stride,
                    layer.padding.value,
                    _activation(layer.activation),
                    initializer=initializer,
                    rng=rng,
                    dtype=dtype,
                    negative_slope=layer.negative_slope,
                )
            case schema.BatchNorm():
                made = engine.BatchNorm(
                    size[-1],
                    _activation(layer.activation),
                    momentum=layer.momentum,
                    epsilon=layer.epsilon,
                    dtype=dtype,
                    negative_slope=layer.negative_slope,
                )
            case schema.MaxPool2D():
                made = engine.MaxPool2D(layer.size)
            case schema.Upsample2D():
                made = engine.Upsample2D(layer.size)
            case schema.Flatten():
                made = engine.Flatten()
            case schema.Reshape():
                made = engine.Reshape(layer.shape)
            case schema.Dropout():
                made = engine.Dropout(layer.rate)
            case _:
                assert_never(layer)
        size = made.output_shape(size)
        built.append(made)
    return engine.Sequential(built, input_size)


def _activation(name: schema.Activation) -> engine.Activation | None:
    match name:
        case schema.Activation.LINEAR:
            return None
        case schema.Activation.SIGMOID:
            return engine.Activation.SIGMOID
        case schema.Activation.TANH:
            return engine.Activation.TANH
        case schema.Activation.RELU:
            return engine.Activation.RELU
        case schema.Activation.LEAKY_RELU:
            return engine.Activation.LEAKY_RELU
        case schema.Activation.SOFTMAX:
            return engine.Activation.SOFTMAX
        case _:
            assert_never(name)
