"""Exports of networks for colour images agree with the service's own predictions and images."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.web.core.core import EXTENSION, Core
from tests import coloured_shapes
from tests.service.onnx_sessions import session
from tests.service.web.inference.networks import RESIDUAL, post
from tests.service.web.inference.test_colour import SIDE, trained
from tests.service.web.inference.test_exports import TOLERANCE, export, extract_folder, probabilities, run_card

__all__ = ["trained"]

CLASSIFIERS: dict[str, dict[str, Any]] = {
    "conv": {"preset": "conv"},
    "fast": {"preset": "fast"},
    "residual": {"layers": [*RESIDUAL[:-1], {"units": len(coloured_shapes.CLASSES), "activation": "softmax"}]},
}
GANS: dict[str, dict[str, Any]] = {
    "stable": {"preset": "stable"},
    "best": {"preset": "best"},
    "conditional": {"preset": "stable", "conditional": True},
}


@pytest.fixture
def images(app: Flask, trained: Any) -> Any:
    core: Core = app.extensions[EXTENSION]
    return np.array(core.repository.load(core.repository.describe("shapes", None)).validation.inputs)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_colour_classifier_in_onnx_and_numpy_matches_predict(
    client: FlaskClient, trained: Any, images: Any, tmp_path: Path, name: str
) -> None:
    job_id, _ = trained(kind="classifier", **CLASSIFIERS[name])
    expected = probabilities(client, job_id, images)
    model = session(export(client, job_id, "onnx").data)
    assert model.get_inputs()[0].shape == ["N", SIDE, SIDE, 3]
    assert np.abs(model.run(None, {"images": images})[0] - expected).max() < TOLERANCE
    assert json.loads(model.get_modelmeta().custom_metadata_map["class_names"]) == sorted(coloured_shapes.CLASSES)
    card = run_card(extract_folder(export(client, job_id, "huggingface").data, tmp_path))
    assert np.abs(card["predict"](images) - expected).max() < TOLERANCE


@pytest.mark.nightly
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_colour_classifier_in_torch_matches_predict(
    client: FlaskClient, trained: Any, images: Any, tmp_path: Path, name: str
) -> None:
    torch = pytest.importorskip("torch")
    job_id, _ = trained(kind="classifier", **CLASSIFIERS[name])
    module = runpy.run_path(str(extract_folder(export(client, job_id, "torch").data, tmp_path) / "model.py"))
    computed = module["load"]().predict(torch.from_numpy(images)).numpy()
    assert np.abs(computed - probabilities(client, job_id, images)).max() < TOLERANCE


def generated(client: FlaskClient, job_id: str, classes: int) -> tuple[Any, list[Any], Any]:
    """Latent points, the classes for a conditional generator, and the images that the service generates."""
    answer = post(client, job_id, "generate", count=64, format="array", with_latent=True)
    return np.asarray(answer["latent"]), [np.arange(64) % classes] if classes else [], np.asarray(answer["images"])


@pytest.mark.nightly
@pytest.mark.parametrize("name", GANS)
def test_a_colour_generator_in_onnx_and_numpy_matches_generate(
    client: FlaskClient, trained: Any, tmp_path: Path, name: str
) -> None:
    job_id, _ = trained(kind="gan", **GANS[name])
    latent, classes, expected = generated(client, job_id, len(coloured_shapes.CLASSES) if name == "conditional" else 0)
    model = session(export(client, job_id, "onnx").data)
    inputs = {"latent": latent.astype(np.float32)} | ({"class": classes[0]} if classes else {})
    (levels,) = model.run(None, inputs)
    assert levels.shape == (64, SIDE, SIDE, 3)
    assert np.abs(levels / 255 - expected).max() < TOLERANCE
    card = run_card(extract_folder(export(client, job_id, "huggingface").data, tmp_path))
    assert np.abs(card["generate"](latent, *classes) / 255 - expected).max() < TOLERANCE


@pytest.mark.nightly
@pytest.mark.parametrize("name", GANS)
def test_a_colour_generator_in_torch_matches_generate(
    client: FlaskClient, trained: Any, tmp_path: Path, name: str
) -> None:
    torch = pytest.importorskip("torch")
    job_id, _ = trained(kind="gan", **GANS[name])
    latent, classes, expected = generated(client, job_id, len(coloured_shapes.CLASSES) if name == "conditional" else 0)
    module = runpy.run_path(str(extract_folder(export(client, job_id, "torch").data, tmp_path) / "model.py"))
    inputs = (torch.from_numpy(array) for array in (latent, *classes))
    assert np.abs(module["load"]().generate(*inputs).numpy() / 255 - expected).max() < TOLERANCE
