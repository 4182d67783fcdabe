"""Builds engine networks from the layers of a spec, for training and for inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import engine
from engine.nn.initializers import Initializer
from engine.nn.layer import Layer
from service.kinds.gan.networks import discriminator_input_size, generator_input
from service.schema.layer_shapes import picture_size
from service.spec import schema
from service.spec.schema import BaseSpec, GanSpec, Size, SupervisedSpec

Activated = (
    schema.Dense | schema.Conv2D | schema.Conv2DTranspose | schema.BatchNorm | schema.LayerNorm | schema.Residual
)
"""A layer with an activation."""


def supervised(spec: SupervisedSpec, input_shape: Sequence[int], initializer: Initializer) -> engine.Sequential:
    """The network of a classifier or regressor, with weights drawn by the initializer.

    Args:
        input_shape: (rows, columns), or (rows, columns, 3); of a table, (1, inputs).
    """
    return _build_network(spec.layers, picture_size(spec.layers, input_shape), spec, initializer, purpose="init")


def generator(spec: GanSpec, initializer: Initializer, classes: int) -> engine.Sequential:
    """The generator of a GAN: latent vectors (with the one-hot class, if conditional) to flat images."""
    size = generator_input(spec, classes)
    return _build_network(spec.generator.layers, size, spec, initializer, purpose="generator")


def discriminator(
    spec: GanSpec, image_shape: Sequence[int], initializer: Initializer, classes: int
) -> engine.Sequential:
    """The discriminator of a GAN for images of (rows, columns) or (rows, columns, 3)."""
    settings = spec.discriminator
    size = discriminator_input_size(spec, image_shape, classes)
    spectral = settings.spectral_norm
    return _build_network(settings.layers, size, spec, initializer, purpose="discriminator", spectral_norm=spectral)


def latent(spec: GanSpec) -> engine.Latent:
    """The latent distribution of a GAN."""
    return engine.Latent(spec.latent.dim, spec.latent.distribution.value)


def _build_network(
    layers: Sequence[schema.Layer],
    input_size: Size,
    spec: BaseSpec,
    initializer: Initializer,
    *,
    purpose: str,
    spectral_norm: bool = False,
) -> engine.Sequential:
    rng = engine.generator_for(spec.seed, purpose, 0)
    dtype = np.dtype(spec.dtype.value)
    weight_arguments = {"initializer": initializer, "rng": rng, "dtype": dtype, "spectral_norm": spectral_norm}
    return engine.Sequential(_build_layers(layers, input_size, weight_arguments), input_size)


def _build_layers(layers: Sequence[schema.Layer], size: Size, weight_arguments: dict[str, Any]) -> list[Layer]:
    """Build consecutive layers, the first for inputs of this size.

    Args:
        weight_arguments: of layers with weights.
    """
    network_layers: list[Layer] = []
    for layer in layers:
        network_layer = _build_layer(layer, size, weight_arguments)
        size = network_layer.output_shape(size)
        network_layers.append(network_layer)
    return network_layers


def _build_layer(layer: schema.Layer, size: Size, weight_arguments: dict[str, Any]) -> Layer:
    channels, dtype = size[-1], weight_arguments["dtype"]
    match layer:
        case schema.Dense():
            return engine.Dense(channels, layer.units, **_activation(layer), **weight_arguments)
        case schema.Conv2D() | schema.Conv2DTranspose():
            kind = engine.Conv2D if isinstance(layer, schema.Conv2D) else engine.Conv2DTranspose
            settings = {
                "stride": layer.stride,
                "padding": layer.padding.value,
                **_activation(layer),
                **weight_arguments,
            }
            return kind(channels, layer.filters, layer.kernel, **settings)
        case schema.BatchNorm():
            settings = {"momentum": layer.momentum, "epsilon": layer.epsilon, "dtype": dtype, **_activation(layer)}
            return engine.BatchNorm(channels, **settings)
        case schema.LayerNorm():
            return engine.LayerNorm(channels, **_activation(layer), epsilon=layer.epsilon, dtype=dtype)
        case schema.Residual():
            return engine.Residual(_build_layers(layer.layers, size, weight_arguments), **_activation(layer))
        case _:  # without weights: the engine has the same names
            built: Layer = getattr(engine, type(layer).__name__)(**layer.model_dump(exclude={"type"}))
            return built


def _activation(layer: Activated) -> dict[str, Any]:
    """The arguments for the activation of a layer. The spec and the engine use the same names."""
    is_linear = layer.activation is schema.Activation.LINEAR
    activation = None if is_linear else engine.Activation(layer.activation.value)
    return {"activation": activation, "negative_slope": layer.negative_slope}
