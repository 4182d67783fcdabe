"""Builds engine networks from the layers of a spec, for training and for inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import engine
from engine.nn.initializers import Initializer
from engine.nn.layer import Layer
from service.spec import schema
from service.spec.schema import BaseSpec, Size

Activated = (
    schema.Dense | schema.Conv2D | schema.Conv2DTranspose | schema.BatchNorm | schema.LayerNorm | schema.Residual
)
"""A layer with an activation."""


def build_network(
    layers: Sequence[schema.Layer],
    input_size: Size,
    spec: BaseSpec,
    initializer: Initializer,
    *,
    purpose: str,
    spectral_norm: bool = False,
) -> engine.Sequential:
    """A network of a spec.

    Args:
        input_size: of one example.
        purpose: of its random numbers.
    """
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
