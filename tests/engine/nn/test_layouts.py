"""Every layer in every memory layout that can reach it, compared with central differences.

The layout of an array is no part of its meaning: equal numbers have equal outputs, gradients and running statistics.
Most shapes have axes of one element, because the strides of such axes say nothing about the layout.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import engine
from engine import GradientTape, Tensor, gradcheck
from engine.nn.layer import Layer
from tests.engine.arrays import LAYOUTS, planes, rows

SHAPES = [
    *((1, 4, 4, 3), (2, 4, 1, 3), (2, 1, 4, 2), (1, 4, 1, 2), (1, 1, 1, 2), (1, 2, 4, 1), (2, 2, 4, 2), (2, 2, 2, 1)),
    *((1, 3), (2, 1), (3, 2), (1, 1)),
    *((1, 3, 2), (2, 1, 3), (3, 2, 1)),
]

Settings = dict[str, Any]
NORMALIZATION: Settings = {"dtype": np.float64, "activation": "tanh", "epsilon": 0.01}


def weights(**settings: Any) -> Settings:
    return {"dtype": np.float64, "activation": "tanh", "rng": np.random.default_rng(0)} | settings


LAYERS: dict[str, Callable[[int], Layer]] = {
    "AvgPool2D": lambda channels: engine.AvgPool2D(2),
    "BatchNorm": lambda channels: engine.BatchNorm(channels, **NORMALIZATION),
    "Conv2D": lambda channels: engine.Conv2D(channels, 3, 1, **weights()),
    "Conv2D, fewer filters": lambda channels: engine.Conv2D(channels, 1, 1, **weights()),
    "Conv2D, stride 2": lambda channels: engine.Conv2D(channels, 2, 2, 2, "valid", **weights()),
    "Conv2DTranspose": lambda channels: engine.Conv2DTranspose(channels, 2, 2, 2, **weights()),
    "Conv2DTranspose, stride 1": lambda channels: engine.Conv2DTranspose(channels, 1, 1, 1, "valid", **weights()),
    "Dense": lambda channels: engine.Dense(channels, 3, **weights()),
    "Dense, spectral": lambda channels: engine.Dense(channels, 3, **weights(spectral_norm=True)),
    "Dropout": lambda channels: engine.Dropout(0.4),
    "Flatten": lambda channels: engine.Flatten(),
    "GlobalAvgPool2D": lambda channels: engine.GlobalAvgPool2D(),
    "LayerNorm": lambda channels: engine.LayerNorm(channels, **NORMALIZATION),
    "MaxPool2D": lambda channels: engine.MaxPool2D(2),
    "MaxPool2D of 1": lambda channels: engine.MaxPool2D(1),
    "Reshape": lambda channels: engine.Reshape((1, channels, 1)),
    "Residual": lambda channels: engine.Residual([engine.BatchNorm(channels, **NORMALIZATION)], "tanh"),
    "Upsample2D": lambda channels: engine.Upsample2D(2),
}


def test_every_layer_is_here() -> None:
    public = {name for name, kind in vars(engine).items() if isinstance(kind, type) and issubclass(kind, Layer)}
    assert {name.split()[0].rstrip(",") for name in LAYERS} == public


def cases(name: str) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Each shape that a layer accepts, in training, and at inference if that differs."""
    for shape in SHAPES:
        try:
            LAYERS[name](shape[-1]).output_shape(shape[1:])
        except engine.ShapeError:
            continue
        if name == "Dropout" and len(shape) == 2:
            continue  # the order of its draws is that of the memory
        yield shape, True
        if name in ("BatchNorm", "Dense, spectral", "Residual"):
            yield shape, False


def values(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Values 0.1 apart in random order, so that no difference quotient crosses a kink."""
    size = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(size) - size / 2 + 0.37).reshape(shape) * 0.1


def repeated(array: np.ndarray) -> np.ndarray:
    """A view whose strides are 0 except along the last axis, like the gradient of a mean."""
    return np.broadcast_to(array[(slice(0, 1),) * (array.ndim - 1)], array.shape)


def run(layer: Layer, x: np.ndarray, g: np.ndarray, training: bool) -> dict[str, np.ndarray]:
    """The output, the gradients of input and parameters for the output's gradient ``g``, and the buffers."""
    tensor, parameters = Tensor(x, watch=True), layer.parameters
    assert tensor.strides == x.strides
    with GradientTape() as tape:
        y = layer(tensor, training=training, rng=np.random.default_rng(2))
    gradients = tape.gradient(y, [tensor, *parameters.values()], output_gradients=g, unconnected="zero")
    named = zip(["x", *parameters], gradients, strict=True)
    return {"y": y} | {f"gradient of {name}": gradient for name, gradient in named} | layer.buffers


@pytest.mark.parametrize("name", LAYERS)
def test_the_results_of_a_layer_do_not_depend_on_the_layout(name: str) -> None:
    layouts = [*LAYOUTS.values(), np.asarray]
    pairs = {(first, second): None for one in layouts for first, second in ((one, rows), (planes, one), (one, one))}
    for shape, training in cases(name):
        x = values(shape, 0)
        g = values(LAYERS[name](shape[-1])(x).shape, 1)
        for inputs, outputs in ((x, g), (repeated(x), repeated(g))):
            expected: dict[str, np.ndarray] = {}
            for first, second in pairs:
                results = run(LAYERS[name](shape[-1]), first(inputs), second(outputs), training)
                for result, value in results.items():
                    difference = np.max(np.abs(value - expected.setdefault(result, value)))
                    assert difference <= 1e-12, f"{result} of {shape}"


@pytest.mark.parametrize("name", LAYERS)
def test_the_gradients_of_a_layer_agree_with_central_differences(name: str) -> None:
    for shape, training in cases(name):
        parameters = LAYERS[name](shape[-1]).parameters
        if training and name == "Dense, spectral":  # no gradient flows through the power iteration
            parameters = {}

        def apply(x: Any, *tensors: Any, shape: Any = shape, training: Any = training, names: Any = parameters) -> Any:
            layer = LAYERS[name](shape[-1])
            for parameter, tensor in zip(names, tensors, strict=True):
                setattr(getattr(layer, "layers", [layer])[0], parameter.rpartition(".")[2], tensor)
            return layer(x, training=training, rng=np.random.default_rng(2))

        gradcheck(apply, values(shape, 0), *parameters.values())
