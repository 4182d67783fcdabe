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
from service.contract import spec
from service.contract.architecture import Size, picture_size
from service.contract.spec import ClassifierSpec, GanSpec, Spec


def classifier(whole: ClassifierSpec, image_shape: Sequence[int], initializer: Initializer) -> engine.Sequential:
    """The network of a classifier for images of (rows, columns), with weights as the initializer draws them."""
    rows, columns = image_shape
    return _network(whole.layers, picture_size(whole.layers, rows, columns), whole, initializer, purpose="init")


def generator(whole: GanSpec, initializer: Initializer) -> engine.Sequential:
    """The generator of a GAN: latent vectors to rows of pixels."""
    return _network(whole.generator.layers, (whole.latent.dim,), whole, initializer, purpose="generator")


def discriminator(whole: GanSpec, image_shape: Sequence[int], initializer: Initializer) -> engine.Sequential:
    """The discriminator of a GAN for images of (rows, columns)."""
    rows, columns = image_shape
    layers = whole.discriminator.layers
    return _network(layers, picture_size(layers, rows, columns), whole, initializer, purpose="discriminator")


def latent(whole: GanSpec) -> engine.Latent:
    """The noise that the generator of a GAN starts from."""
    return engine.Latent(whole.latent.dim, whole.latent.distribution.value)


def _network(
    layers: Sequence[spec.Layer], input_size: Size, whole: Spec, initializer: Initializer, *, purpose: str
) -> engine.Sequential:
    rng = engine.generator_for(whole.seed, purpose, 0)
    dtype = np.dtype(whole.dtype.value)
    size = input_size
    built: list[Layer] = []
    for layer in layers:
        match layer:
            case spec.Dense():
                made: Layer = engine.Dense(
                    size[-1],
                    layer.units,
                    _activation(layer.activation),
                    initializer=initializer,
                    rng=rng,
                    dtype=dtype,
                    negative_slope=layer.negative_slope,
                )
            case spec.Conv2D():
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
            case spec.BatchNorm():
                made = engine.BatchNorm(
                    size[-1],
                    _activation(layer.activation),
                    momentum=layer.momentum,
                    epsilon=layer.epsilon,
                    dtype=dtype,
                    negative_slope=layer.negative_slope,
                )
            case spec.MaxPool2D():
                made = engine.MaxPool2D(layer.size)
            case spec.Upsample2D():
                made = engine.Upsample2D(layer.size)
            case spec.Flatten():
                made = engine.Flatten()
            case spec.Reshape():
                made = engine.Reshape(layer.shape)
            case spec.Dropout():
                made = engine.Dropout(layer.rate)
            case _:
                assert_never(layer)
        size = made.output_shape(size)
        built.append(made)
    return engine.Sequential(built, input_size)


def _activation(name: spec.Activation) -> engine.Activation | None:
    match name:
        case spec.Activation.LINEAR:
            return None
        case spec.Activation.SIGMOID:
            return engine.Activation.SIGMOID
        case spec.Activation.TANH:
            return engine.Activation.TANH
        case spec.Activation.RELU:
            return engine.Activation.RELU
        case spec.Activation.LEAKY_RELU:
            return engine.Activation.LEAKY_RELU
        case spec.Activation.SOFTMAX:
            return engine.Activation.SOFTMAX
        case _:
            assert_never(name)
