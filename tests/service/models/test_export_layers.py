"""Networks of any layers as ONNX, as NumPy and as PyTorch: they compute what the engine computes."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import engine
from service.models import networks
from service.models.exports.facts import JobFacts, Pictures
from service.models.exports.huggingface_folder import WEIGHTS, to_huggingface
from service.models.exports.numpy_code import numpy_code
from service.models.exports.onnx.graph import to_onnx
from service.models.exports.torch_module import to_torch
from service.models.exports.trained import TrainedModel
from service.spec.schema import Activation, ClassifierSpec
from service.spec.validation import resolve

CLASSES = 3
TOLERANCE = 1e-5
HIDDEN = [activation.value for activation in Activation if activation is not Activation.SOFTMAX]
FACTS = JobFacts(
    id="job_1", name="n", title="n", kind="classifier", tags=[], spec={"dataset": {"name": "x"}}, spec_hash="h",
    checkpoint_epoch=1, best_epoch=1, provenance={}, result_digest=None, created_ms=0, dataset_title="x",
    dataset_source="x", dataset_sha256=None, license=None, epochs=[],
)  # fmt: skip


@st.composite
def image_layers(draw: Any) -> list[dict[str, Any]]:
    """Layers for images, with every setting that changes what they compute."""

    def activation() -> str:
        found: str = draw(st.sampled_from(HIDDEN))
        return found

    def convolution(kind: str, **more: Any) -> dict[str, Any]:
        settings = {"filters": draw(st.integers(1, 3)), "kernel": draw(st.integers(1, 3))}
        return {"type": kind, **settings, "activation": activation(), **more}

    def shapeless() -> dict[str, Any]:
        return {"type": draw(st.sampled_from(["batch_norm", "layer_norm"])), "activation": activation()}

    found: list[dict[str, Any]] = [convolution("conv2d", padding="same", kernel=3)]
    for _ in range(draw(st.integers(1, 3))):
        match draw(st.sampled_from(["conv", "transpose", "norm", "residual", "average"])):
            case "conv":
                found.append(convolution("conv2d", stride=draw(st.integers(1, 2)), padding="same"))
            case "transpose":
                sides = {"stride": draw(st.integers(1, 3)), "padding": draw(st.sampled_from(["same", "valid"]))}
                found.append(convolution("conv2d_transpose", **sides))
            case "norm":
                found.append(shapeless())
            case "average":
                pool = {"type": draw(st.sampled_from(["avg_pool2d", "max_pool2d"]))}
                found += [{"type": "upsample2d"}, convolution("conv2d", padding="same", kernel=3), pool]
            case _:
                filters = next(layer["filters"] for layer in reversed(found) if "filters" in layer)
                inner = [convolution("conv2d", padding="same", filters=filters, stride=1), shapeless()]
                found.append({"type": "residual", "layers": inner, "activation": activation()})
    found.append({"type": draw(st.sampled_from(["flatten", "global_avg_pool2d"]))})
    return [*found, {"units": CLASSES, "activation": "softmax"}]


def made(layers: list[dict[str, Any]], shape: tuple[int, ...], dtype: str = "float32") -> tuple[TrainedModel, Any, Any]:
    """A network with weights of any kind, images, and what the engine computes of them."""
    spec = resolve({"kind": "classifier", "preset": "fast", "layers": layers, "dtype": dtype})
    assert isinstance(spec, ClassifierSpec)
    rng = np.random.default_rng(0)
    network = networks.classifier(spec, shape, lambda size, rng, dtype: np.zeros(size, dtype))
    for name, tensor in network.named_parameters().items():
        fan = max(math.prod(tensor.shape[:-1]), 1) if name.endswith("weight") else 4
        np.asarray(tensor)[...] = rng.normal(0, fan**-0.5, tensor.shape)
    for name, buffer in network.named_buffers().items():
        buffer[...] = rng.uniform(0.5, 2, buffer.shape) if "variance" in name else rng.normal(0, 0.5, buffer.shape)
    images = rng.integers(0, 256, (5, *shape)).astype(np.uint8)
    low, high = spec.dataset.scale
    inputs = images.reshape(5, -1).astype(network.dtype) * ((high - low) / 255) + low
    names = tuple("abc")
    return TrainedModel.of(spec, network, shape, names), images, np.asarray(network(inputs))


def rounding(layers: list[dict[str, Any]], shape: tuple[int, ...]) -> float:
    """How far the engine's results in float32 are from those in float64: layer normalization of an image that is nearly
    constant multiplies rounding errors by up to 316, the inverse root of its epsilon."""
    _, _, single = made(layers, shape, "float32")
    _, _, double = made(layers, shape, "float64")
    return float(np.abs(single - double).max())


def by_onnx(model: TrainedModel, images: Any, folder: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(to_onnx(model, FACTS), options)
    return session.run(None, {"images": images})[0]


def by_numpy(model: TrainedModel, images: Any, folder: Path) -> Any:
    """By the program of a model card, with the weights beside it."""
    files = to_huggingface(model, FACTS, Pictures(samples=[], curves=lambda: b""))
    (folder / WEIGHTS).write_bytes(files[WEIGHTS])
    space: dict[str, Any] = {}
    with chdir(folder):
        exec(compile(numpy_code(model, WEIGHTS), "card", "exec"), space)
    return space["predict"](images)


def by_torch(model: TrainedModel, images: Any, folder: Path) -> Any:
    torch = pytest.importorskip("torch")
    for name, data in to_torch(model, FACTS).items():
        (folder / name).write_bytes(data)
    return runpy.run_path(str(folder / "model.py"))["load"]().predict(torch.from_numpy(images)).numpy()


EXPORTS = [by_onnx, by_numpy, pytest.param(by_torch, marks=pytest.mark.reference)]


@pytest.mark.parametrize("export", EXPORTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=image_layers(),
    shape=st.tuples(st.integers(6, 9), st.integers(6, 9)),
    colour=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_any_network_for_images_computes_the_same_elsewhere(
    export: Callable[..., Any], layers: Any, shape: tuple[int, int], colour: bool, dtype: str, tmp_path: Path
) -> None:
    size = (*shape, 3) if colour else shape
    try:
        model, images, expected = made(layers, size, dtype)
    except engine.ShapeError:  # a kernel that is larger than its image
        assume(False)
    assert np.abs(export(model, images, tmp_path) - expected).max() < TOLERANCE + rounding(layers, size)


@pytest.mark.parametrize("export", EXPORTS)
def test_rounding_that_layer_normalization_multiplies_is_no_difference(
    export: Callable[..., Any], tmp_path: Path
) -> None:
    """ONNX Runtime and NumPy are close to the exact result here, and the engine's sum of equal pixels is rounded."""
    convolution = {"type": "conv2d", "filters": 1, "kernel": 3, "padding": "same"}
    inner = [{**convolution, "activation": "linear"}, {"type": "batch_norm"}]
    layers = [
        {**convolution, "activation": "relu"},
        {"type": "residual", "layers": inner, "activation": "sigmoid"},
        {"type": "batch_norm"},
        {"type": "layer_norm"},
        {"type": "flatten"},
        {"units": CLASSES, "activation": "softmax"},
    ]
    model, images, expected = made(layers, (6, 6, 3))
    _, _, exact = made(layers, (6, 6, 3), "float64")
    found = export(model, images, tmp_path)
    assert np.abs(found - exact).max() < TOLERANCE
    assert np.abs(found - expected).max() < TOLERANCE + rounding(layers, (6, 6, 3))


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("activation", HIDDEN)
def test_every_activation_computes_the_same_elsewhere(
    export: Callable[..., Any], activation: str, tmp_path: Path
) -> None:
    inner = [{"units": 9, "activation": activation}, {"type": "layer_norm", "activation": activation}]
    layers = [
        {"units": 9, "activation": activation},
        {"type": "residual", "layers": inner, "activation": activation},
        {"units": CLASSES, "activation": "softmax"},
    ]
    model, images, expected = made(layers, (4, 5))
    assert np.abs(export(model, images, tmp_path) - expected).max() < TOLERANCE


def test_weights_have_the_names_of_the_checkpoint(tmp_path: Path) -> None:
    inner = [{"units": 20, "activation": "relu"}, {"type": "batch_norm"}]
    layers = [{"type": "residual", "layers": inner}, {"units": CLASSES, "activation": "softmax"}]
    model, _, _ = made(layers, (4, 5))
    files = to_huggingface(model, FACTS, Pictures(samples=[], curves=lambda: b""))
    spec = model.spec
    assert isinstance(spec, ClassifierSpec)
    network = networks.classifier(spec, (4, 5), lambda size, rng, dtype: np.zeros(size, dtype))
    assert set(safetensors.numpy.load(files[WEIGHTS])) == {*network.named_parameters(), *network.named_buffers()}
    assert model.parameters == sum(array.size for array in network.named_parameters().values())
    assert f"{model.parameters:,} parameters" in files["README.md"].decode()
