"""Networks of arbitrary layers exported to ONNX, NumPy and PyTorch compute what the engine computes."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import engine
from service.kinds.supervised.model import network as supervised
from service.models.exports.creation import JobFacts, Pictures
from service.models.exports.huggingface_folder import WEIGHTS, to_huggingface
from service.models.exports.numpy_code import numpy_code
from service.models.exports.onnx_graph import to_onnx
from service.models.exports.torch_module import to_torch
from service.models.exports.trained_network import TrainedModel
from service.spec.schema import Activation, ClassifierSpec
from service.spec.validation import resolve
from service.storage.tables import Job
from tests.service.onnx_sessions import session

CLASSES = 3
TOLERANCE = 1e-5
HIDDEN = [activation.value for activation in Activation if activation is not Activation.SOFTMAX]
JOB = Job(id="job_1", name="n", kind="classifier", tags=[], resolved={"dataset": {"name": "x"}}, spec_hash="h")
FACTS = JobFacts(
    job=JOB, title="n", checkpoint_epoch=1, dataset_title="x", dataset_source="x", license=None, epochs=[],
)  # fmt: skip


@st.composite
def image_layers(draw: Any) -> list[dict[str, Any]]:
    """Random layers for images, with every setting that changes their results."""

    def activation() -> str:
        name: str = draw(st.sampled_from(HIDDEN))
        return name

    def convolution(kind: str, **overrides: Any) -> dict[str, Any]:
        settings = {"filters": draw(st.integers(1, 3)), "kernel": draw(st.integers(1, 3))}
        return {"type": kind, **settings, "activation": activation(), **overrides}

    def normalization() -> dict[str, Any]:
        return {"type": draw(st.sampled_from(["batch_norm", "layer_norm"])), "activation": activation()}

    layers: list[dict[str, Any]] = [convolution("conv2d", padding="same", kernel=3)]
    for _ in range(draw(st.integers(1, 3))):
        match draw(st.sampled_from(["conv", "transpose", "norm", "residual", "average"])):
            case "conv":
                layers.append(convolution("conv2d", stride=draw(st.integers(1, 2)), padding="same"))
            case "transpose":
                geometry = {"stride": draw(st.integers(1, 3)), "padding": draw(st.sampled_from(["same", "valid"]))}
                layers.append(convolution("conv2d_transpose", **geometry))
            case "norm":
                layers.append(normalization())
            case "average":
                pool = {"type": draw(st.sampled_from(["avg_pool2d", "max_pool2d"]))}
                layers += [{"type": "upsample2d"}, convolution("conv2d", padding="same", kernel=3), pool]
            case _:
                filters = next(layer["filters"] for layer in reversed(layers) if "filters" in layer)
                inner = [convolution("conv2d", padding="same", filters=filters, stride=1), normalization()]
                layers.append({"type": "residual", "layers": inner, "activation": activation()})
    layers.append({"type": draw(st.sampled_from(["flatten", "global_avg_pool2d"]))})
    return [*layers, {"units": CLASSES, "activation": "softmax"}]


def random_network(
    layers: list[dict[str, Any]], shape: tuple[int, ...], dtype: str = "float32"
) -> tuple[TrainedModel, Any, Any]:
    """A network with random weights, random images, and the engine's results for them."""
    spec = resolve({"kind": "classifier", "preset": "fast", "layers": layers, "dtype": dtype})
    assert isinstance(spec, ClassifierSpec)
    rng = np.random.default_rng(0)
    network = supervised(spec, shape, lambda size, rng, dtype: np.zeros(size, dtype))
    for name, tensor in network.named_parameters().items():
        fan = max(math.prod(tensor.shape[:-1]), 1) if name.endswith("weight") else 4
        np.asarray(tensor)[...] = rng.normal(0, fan**-0.5, tensor.shape)
    for name, buffer in network.named_buffers().items():
        buffer[...] = rng.uniform(0.5, 2, buffer.shape) if "variance" in name else rng.normal(0, 0.5, buffer.shape)
    images = rng.integers(0, 256, (5, *shape)).astype(np.uint8)
    low, high = spec.dataset.scale
    inputs = images.reshape(5, -1).astype(network.dtype) * ((high - low) / 255) + low
    names = tuple("abc")
    return TrainedModel(spec, network, shape, names), images, np.asarray(network(inputs))


def round_off(layers: list[dict[str, Any]], shape: tuple[int, ...]) -> float:
    """The difference between the engine's results in float32 and float64.

    Layer normalization of a nearly constant image multiplies round-off by up to 316, the inverse square root of
    its epsilon.
    """
    _, _, single = random_network(layers, shape, "float32")
    _, _, double = random_network(layers, shape, "float64")
    return float(np.abs(single - double).max())


def run_onnx(model: TrainedModel, images: Any, folder: Path) -> Any:
    return session(to_onnx(model, FACTS)).run(None, {"images": images})[0]


def run_numpy(model: TrainedModel, images: Any, folder: Path) -> Any:
    """Run the program of the model card, with the weights in the current folder."""
    files = to_huggingface(model, FACTS, Pictures(samples=[], curves=lambda: b""))
    (folder / WEIGHTS).write_bytes(files[WEIGHTS])
    namespace: dict[str, Any] = {}
    with chdir(folder):
        exec(compile(numpy_code(model, WEIGHTS), "card", "exec"), namespace)
    return namespace["predict"](images)


def run_torch(model: TrainedModel, images: Any, folder: Path) -> Any:
    torch = pytest.importorskip("torch")
    for name, data in to_torch(model, FACTS).items():
        (folder / name).write_bytes(data)
    return runpy.run_path(str(folder / "model.py"))["load"]().predict(torch.from_numpy(images)).numpy()


EXPORTS = [run_onnx, run_numpy, pytest.param(run_torch, marks=pytest.mark.nightly)]


@pytest.mark.parametrize("export", EXPORTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layers=image_layers(),
    shape=st.tuples(st.integers(6, 9), st.integers(6, 9)),
    colour=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_exports_of_any_image_network_match_the_engine(
    export: Callable[..., Any], layers: Any, shape: tuple[int, int], colour: bool, dtype: str, tmp_path: Path
) -> None:
    size = (*shape, 3) if colour else shape
    try:
        model, images, expected = random_network(layers, size, dtype)
    except engine.ShapeError:  # a kernel larger than its image
        assume(False)
    assert np.abs(export(model, images, tmp_path) - expected).max() < TOLERANCE + round_off(layers, size)


@pytest.mark.parametrize("export", EXPORTS)
def test_round_off_amplified_by_layer_normalization_is_tolerated(export: Callable[..., Any], tmp_path: Path) -> None:
    """ONNX Runtime and NumPy are nearly exact here; the engine's sum of equal pixels has round-off."""
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
    model, images, expected = random_network(layers, (6, 6, 3))
    _, _, exact = random_network(layers, (6, 6, 3), "float64")
    result = export(model, images, tmp_path)
    assert np.abs(result - exact).max() < TOLERANCE
    assert np.abs(result - expected).max() < TOLERANCE + round_off(layers, (6, 6, 3))


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize("activation", HIDDEN)
def test_exports_of_every_activation_match_the_engine(
    export: Callable[..., Any], activation: str, tmp_path: Path
) -> None:
    inner = [{"units": 9, "activation": activation}, {"type": "layer_norm", "activation": activation}]
    layers = [
        {"units": 9, "activation": activation},
        {"type": "residual", "layers": inner, "activation": activation},
        {"units": CLASSES, "activation": "softmax"},
    ]
    model, images, expected = random_network(layers, (4, 5))
    assert np.abs(export(model, images, tmp_path) - expected).max() < TOLERANCE


def test_exported_weights_have_the_names_of_the_checkpoint(tmp_path: Path) -> None:
    inner = [{"units": 20, "activation": "relu"}, {"type": "batch_norm"}]
    layers = [{"type": "residual", "layers": inner}, {"units": CLASSES, "activation": "softmax"}]
    model, _, _ = random_network(layers, (4, 5))
    files = to_huggingface(model, FACTS, Pictures(samples=[], curves=lambda: b""))
    spec = model.spec
    assert isinstance(spec, ClassifierSpec)
    network = supervised(spec, (4, 5), lambda size, rng, dtype: np.zeros(size, dtype))
    assert set(safetensors.numpy.load(files[WEIGHTS])) == {*network.named_parameters(), *network.named_buffers()}
    assert model.parameters == sum(array.size for array in network.named_parameters().values())
    assert f"{model.parameters:,} parameters" in files["README.md"].decode()
