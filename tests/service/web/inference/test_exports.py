"""Exports over HTTP: the files agree with the service's own predictions, are created once, and belong to the owner."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import math
import re
import runpy
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util import tensor_util

from service.datasets.cache import Dataset
from service.spec.presets.definitions import PRESETS
from service.spec.schema import Kind
from service.web.core.core import EXTENSION, Core
from tests.service.onnx_sessions import session
from tests.service.web.conftest import SimulatedWorker
from tests.service.web.inference.networks import CLASSIFIERS, GANS, png, post
from tests.service.web.markup import one_line

TOLERANCE = 1e-5


def export(client: FlaskClient, job_id: str, target: str, status: int = 200, **query: Any) -> Any:
    response = client.get(f"/jobs/{job_id}/export/{target}", query_string=query)
    data = response.get_data()
    response.close()  # the file
    assert response.status_code == status, data[:500]
    return response


def extract_folder(data: bytes, to: Path) -> Path:
    """Extract a zip and return the folder in it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(to)
        (top,) = {name.partition("/")[0] for name in archive.namelist()}
    return to / top


def run_card(folder: Path) -> dict[str, Any]:
    """Run the first program of a model card in the card's folder, and return its namespace."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    namespace: dict[str, Any] = {}
    with chdir(folder):
        exec(compile(code, "README.md", "exec"), namespace)
    return namespace


def tensor_values(events: EventAccumulator, tag: str) -> dict[int, float]:
    """The values of a tag by step."""
    return {event.step: tensor_util.make_ndarray(event.tensor_proto).item() for event in events.Tensors(tag)}


def finite(value: Any) -> Any:
    return None if value is None or math.isnan(value) else float(value)


def probabilities(client: FlaskClient, job_id: str, images: Any) -> Any:
    """The probabilities from ``/predict`` for any number of images."""
    parts = [
        post(client, job_id, "predict", images=[png(image) for image in images[start : start + 250]])["probabilities"]
        for start in range(0, len(images), 250)
    ]
    return np.concatenate([np.asarray(part) for part in parts])


def test_an_onnx_classifier_accepts_uint8_levels_and_matches_predict(
    client: FlaskClient, classifier: str, digits: Dataset
) -> None:
    model = session(export(client, classifier, "onnx").data)
    (source,), (result,) = model.get_inputs(), model.get_outputs()
    assert (source.name, source.type, source.shape) == ("images", "tensor(uint8)", ["N", 28, 28])
    assert (result.name, result.shape) == ("probabilities", ["N", 10])
    images = digits.validation.inputs
    (computed,) = model.run(None, {"images": images})
    assert np.abs(computed - probabilities(client, classifier, images)).max() < TOLERANCE
    metadata = model.get_modelmeta().custom_metadata_map
    assert metadata["job_id"] == classifier
    assert metadata["spec_hash"] == client.get(f"/jobs/{classifier}").json["spec_hash"]
    assert json.loads(metadata["class_names"]) == [str(number) for number in range(10)]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_kind_of_classifier_in_onnx_matches_predict(
    client: FlaskClient, job: Any, train: Any, digits: Dataset, name: str
) -> None:
    job_id = job(train("classifier", **CLASSIFIERS[name]))
    images = np.ascontiguousarray(digits.validation.inputs[:100])
    (computed,) = session(export(client, job_id, "onnx").data).run(None, {"images": images})
    assert np.abs(computed - probabilities(client, job_id, images)).max() < TOLERANCE


@pytest.mark.parametrize("name", GANS)
def test_every_kind_of_generator_in_onnx_matches_generate(client: FlaskClient, job: Any, train: Any, name: str) -> None:
    job_id = job(train("gan", **GANS[name]))
    generated = post(client, job_id, "generate", count=64, format="array", with_latent=True)
    model = session(export(client, job_id, "onnx").data)
    inputs: dict[str, Any] = {"latent": np.asarray(generated["latent"], np.float32)}
    if name == "conditional":  # ``generate`` cycles through the classes
        inputs["class"] = np.arange(64) % 10
        assert json.loads(model.get_modelmeta().custom_metadata_map["class_names"]) == [str(n) for n in range(10)]
    (levels,) = model.run(None, inputs)
    assert levels.shape == (64, 28, 28)
    assert levels.min() >= 0
    assert levels.max() <= 255
    assert np.abs(levels / 255 - np.asarray(generated["images"])).max() < TOLERANCE


def test_an_export_is_created_once_and_listed_as_an_artifact(client: FlaskClient, classifier: str) -> None:
    size_before = client.get(f"/jobs/{classifier}").json["size_bytes"]
    first = export(client, classifier, "onnx")
    assert first.headers["Content-Disposition"] == f'attachment; filename="{classifier}-epoch-0001.onnx"'
    (item,) = [item for item in client.get(f"/jobs/{classifier}/artifacts").json["data"] if item["kind"] == "onnx"]
    assert first.headers["ETag"] == f'"{item["sha256"]}"'
    assert client.get(f"/jobs/{classifier}").json["size_bytes"] == size_before + len(first.data)
    unchanged = client.get(f"/jobs/{classifier}/export/onnx", headers={"If-None-Match": first.headers["ETag"]})
    assert unchanged.status_code == 304
    with client.get(item["url"]) as file:
        assert file.data == first.data


def test_an_export_after_renaming_the_job_replaces_the_earlier_one(client: FlaskClient, classifier: str) -> None:
    first = export(client, classifier, "onnx")
    client.patch(f"/jobs/{classifier}", json={"name": "digits"})
    second = export(client, classifier, "onnx")
    assert session(second.data).get_modelmeta().custom_metadata_map["job_name"] == "digits"
    assert first.headers["ETag"] != second.headers["ETag"]
    exports = [item for item in client.get(f"/jobs/{classifier}/artifacts").json["data"] if item["kind"] == "onnx"]
    assert len(exports) == 1


def test_a_torch_export_consists_of_a_module_and_its_weights(client: FlaskClient, classifier: str) -> None:
    with zipfile.ZipFile(io.BytesIO(export(client, classifier, "torch").data)) as archive:
        assert sorted(archive.namelist()) == [
            f"{classifier}-torch/model.py",
            f"{classifier}-torch/weights.safetensors",
        ]
        compile(archive.read(f"{classifier}-torch/model.py"), "model.py", "exec")


def test_tensorboards_reader_returns_exactly_the_metrics(
    client: FlaskClient, worker: SimulatedWorker, submit: Callable[..., str], tmp_path: Path
) -> None:
    job_id = submit(client, tags=["digits"], optimizer={"learning_rate": 0.1})
    worker.claim()
    for epoch in (1, 2, 3):
        metrics = {"train_loss": 1 / 3 / epoch, "val_accuracy": 0.1 * epoch, "grad_norm/layers.0": float("nan")}
        worker.commit_epoch(epoch, metrics=metrics | ({"sparse": 2.0} if epoch == 2 else {}))
    folder = extract_folder(export(client, job_id, "tensorboard").data, tmp_path)
    events = EventAccumulator(str(folder), {"tensors": 0, "images": 0}).Reload()
    table = client.get(f"/jobs/{job_id}/metrics").json
    for name, series in table["series"].items():
        exact, shown = (
            tensor_values(events, f"float64/{name}"),
            {event.step: event.value for event in events.Scalars(name)},
        )
        assert [finite(exact.get(epoch)) for epoch in table["epochs"]] == series
        assert {step: finite(np.float32(value)) for step, value in exact.items()} == {
            step: finite(value) for step, value in shown.items()
        }
    assert list(tensor_values(events, "float64/resources/seconds").values()) == table["seconds"]
    assert [image.step for image in events.Images("samples")] == [1, 2, 3]
    with client.get(f"/jobs/{job_id}/samples/3.png") as shown:
        assert events.Images("samples")[-1].encoded_image_string == shown.data
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = HParamsPluginData.FromString(content).session_start_info.hparams
    assert started["optimizer.learning_rate"].number_value == 0.1
    assert started["layers.0.activation"].string_value == "relu"


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_model_card_in_numpy_matches_predict(
    client: FlaskClient, job: Any, train: Any, digits: Dataset, tmp_path: Path, name: str
) -> None:
    job_id = job(train("classifier", **CLASSIFIERS[name]))
    folder = extract_folder(export(client, job_id, "huggingface").data, tmp_path)
    images = digits.validation.inputs[:250]
    computed = run_card(folder)["predict"](images)
    assert np.abs(computed - probabilities(client, job_id, images)).max() < TOLERANCE


@pytest.mark.parametrize("name", GANS)
def test_the_model_card_in_numpy_matches_generate(
    client: FlaskClient, job: Any, train: Any, tmp_path: Path, name: str
) -> None:
    job_id = job(train("gan", **GANS[name]))
    generated = post(client, job_id, "generate", count=64, format="array", with_latent=True)
    folder = extract_folder(export(client, job_id, "huggingface").data, tmp_path)
    classes = [np.arange(64) % 10] if name == "conditional" else []
    levels = run_card(folder)["generate"](np.asarray(generated["latent"]), *classes)
    assert np.abs(levels / 255 - np.asarray(generated["images"])).max() < TOLERANCE


def test_a_model_card_has_licence_metrics_and_origin(client: FlaskClient, classifier: str, tmp_path: Path) -> None:
    client.patch(f"/jobs/{classifier}", json={"name": "<b>a|b</b> ---", "tags": ["a: b", "'"]})
    folder = extract_folder(export(client, classifier, "huggingface").data, tmp_path)
    card = (folder / "README.md").read_text()
    _, header, text = card.split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert metadata["license"] == "cc-by-sa-3.0"  # of the dataset
    assert metadata["tags"][-2:] == ["a: b", "'"]
    job = client.get(f"/jobs/{classifier}").json
    (result,) = metadata["model-index"][0]["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["accuracy"] == job["metrics"]["val_accuracy"]
    assert "# \\<b\\>a\\|b\\</b\\> ---" in text
    assert job["spec_hash"] in text
    spec = json.loads((folder / "spec.json").read_text())
    assert spec.items() <= job["resolved"].items()
    assert set(job["resolved"]) - set(spec) == {"budget"}
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
    session((folder / "model.onnx").read_bytes())


def test_the_licence_of_a_model_card_can_be_chosen(client: FlaskClient, classifier: str, tmp_path: Path) -> None:
    for licence, expected in (("mit", {"license": "mit"}), ("My-1.0", {"license": "other", "license_name": "My-1.0"})):
        folder = extract_folder(export(client, classifier, "huggingface", license=licence).data, tmp_path / licence)
        metadata = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
        assert {name: value for name, value in metadata.items() if name.startswith("license")} == expected
    assert export(client, classifier, "huggingface", 400, license="a b").json["code"] == "invalid_parameter"


def test_an_impossible_export_is_refused_with_a_reason(
    client: FlaskClient, classifier: str, submit: Callable[..., str]
) -> None:
    assert "available: onnx, torch" in export(client, classifier, "pickle", 404).json["detail"]
    assert export(client, "job_none", "onnx", 404).json["code"] == "job_not_found"
    assert "available epochs: 1" in export(client, classifier, "onnx", 404, checkpoint=7).json["detail"]
    assert export(client, submit(client), "onnx", 404).json["code"] == "not_yet"


def test_an_export_is_deleted_with_its_job(client: FlaskClient, app: Flask, classifier: str) -> None:
    export(client, classifier, "onnx")
    export(client, classifier, "tensorboard")
    core: Core = app.extensions[EXTENSION]
    assert {item.path.split("/")[1] for item in core.artifacts.stored(classifier)} >= {"onnx", "tensorboard"}
    assert client.delete(f"/jobs/{classifier}").status_code == 204
    assert list(core.artifacts.stored(classifier)) == []
    assert export(client, classifier, "onnx", 404).json["code"] == "job_not_found"


@pytest.mark.parametrize(("library", "targets"), [("onnx", {"onnx", "huggingface"}), ("tensorboardX", {"tensorboard"})])
def test_a_missing_library_names_the_command_that_installs_it_before_and_after_the_button(
    client: FlaskClient, classifier: str, monkeypatch: pytest.MonkeyPatch, library: str, targets: set[str]
) -> None:
    command = f"pip install {library}"
    with monkeypatch.context() as without:
        without.setitem(sys.modules, library, None)  # as if it were not installed
        buttons = re.findall(r'<button [^>]*data-format="(\w+)"[^>]*?( disabled)?>', _page(client, classifier))
        assert {name for name, disabled in buttons if disabled} == targets
        assert f"Needs {library} where the service runs: <code>{command}</code>" in _page(client, classifier)
        for target in targets:
            problem = export(client, classifier, target, 501).json
            assert problem["code"] == "extra_missing"
            assert problem["detail"].startswith(f"{library} is not installed where the service runs; install it there")
            page = client.get(f"/jobs/{classifier}/export/{target}", headers={"Accept": "text/html"}).text
            assert command in page
            assert "restart is not needed" in page
            assert "<code>detail</code>" not in page
        assert export(client, classifier, "torch").data  # which needs no library
    assert " disabled" not in "".join(re.findall(r"<button [^>]*data-format[^>]*>", _page(client, classifier)))
    assert all(export(client, classifier, target).data for target in targets)  # installed meanwhile


def _page(client: FlaskClient, job_id: str) -> str:
    return one_line(client.get(f"/ui/jobs/{job_id}").text)


def test_concurrent_requests_create_one_file(app: Flask, client: FlaskClient, classifier: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(export, app.test_client(), classifier, "torch") for _ in range(4)]
        tags = {future.result().headers["ETag"] for future in futures}
    assert len(tags) == 1
    kinds = [item["kind"] for item in client.get(f"/jobs/{classifier}/artifacts").json["data"]]
    assert kinds.count("torch") == 1


@pytest.mark.nightly
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_torch_module_matches_predict(
    client: FlaskClient, job: Any, train: Any, digits: Dataset, tmp_path: Path, name: str
) -> None:
    torch = pytest.importorskip("torch")
    job_id = job(train("classifier", **CLASSIFIERS[name]))
    module = runpy.run_path(str(extract_folder(export(client, job_id, "torch").data, tmp_path) / "model.py"))
    images = np.array(digits.validation.inputs[:250])
    computed = module["load"]().predict(torch.from_numpy(images)).numpy()
    assert module["CLASSES"] == [str(number) for number in range(10)]
    assert np.abs(computed - probabilities(client, job_id, images)).max() < TOLERANCE


@pytest.mark.nightly
@pytest.mark.parametrize("name", GANS)
def test_the_torch_module_matches_generate(
    client: FlaskClient, job: Any, train: Any, tmp_path: Path, name: str
) -> None:
    torch = pytest.importorskip("torch")
    job_id = job(train("gan", **GANS[name]))
    generated = post(client, job_id, "generate", count=64, format="array", with_latent=True)
    module = runpy.run_path(str(extract_folder(export(client, job_id, "torch").data, tmp_path) / "model.py"))
    classes = [torch.arange(64) % 10] if name == "conditional" else []
    levels = module["load"]().generate(torch.tensor(generated["latent"]), *classes).numpy()
    assert np.abs(levels / 255 - np.asarray(generated["images"])).max() < TOLERANCE


CLASSIFIER_PRESETS = [name for name in PRESETS[Kind.CLASSIFIER] if name != "table"]


@pytest.mark.stack
@pytest.mark.parametrize("preset", CLASSIFIER_PRESETS)
def test_exports_of_each_classifier_preset_match_predict_on_all_validation_images(
    client: FlaskClient, job: Any, train: Any, digits: Dataset, tmp_path: Path, preset: str
) -> None:
    job_id = job(train("classifier", preset=preset))
    images = np.array(digits.validation.inputs)
    expected = probabilities(client, job_id, images)
    (by_onnx,) = session(export(client, job_id, "onnx").data).run(None, {"images": images})
    assert np.abs(by_onnx - expected).max() < TOLERANCE
    if importlib.util.find_spec("torch") is None:
        return
    module = runpy.run_path(str(extract_folder(export(client, job_id, "torch").data, tmp_path) / "model.py"))
    by_torch = module["load"]().predict(importlib.import_module("torch").from_numpy(images)).numpy()
    assert np.abs(by_torch - expected).max() < TOLERANCE


@pytest.mark.stack
@pytest.mark.parametrize("preset", PRESETS[Kind.GAN])
def test_exports_of_each_gan_preset_match_generate(
    client: FlaskClient, job: Any, train: Any, tmp_path: Path, preset: str
) -> None:
    job_id = job(train("gan", preset=preset))
    generated = post(client, job_id, "generate", count=64, format="array", with_latent=True)
    latent, expected = np.asarray(generated["latent"]), np.asarray(generated["images"])
    (levels,) = session(export(client, job_id, "onnx").data).run(None, {"latent": latent.astype(np.float32)})
    assert np.abs(levels / 255 - expected).max() < TOLERANCE
    if importlib.util.find_spec("torch") is None:
        return
    module = runpy.run_path(str(extract_folder(export(client, job_id, "torch").data, tmp_path) / "model.py"))
    by_torch = module["load"]().generate(importlib.import_module("torch").from_numpy(latent)).numpy()
    assert np.abs(by_torch / 255 - expected).max() < TOLERANCE
