"""Exports over HTTP: the files agree with what the service itself answers, are made once, and belong to their owner."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from flask.testing import FlaskClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util import tensor_util

from service.datasets import Dataset
from tests.service.web.conftest import PlayedWorker
from tests.service.web.inference.networks import CLASSIFIERS, GANS, ask, png

TOLERANCE = 1e-5


def export(client: FlaskClient, job_id: str, target: str, status: int = 200, **query: Any) -> Any:
    response = client.get(f"/jobs/{job_id}/export/{target}", query_string=query)
    data = response.get_data()
    response.close()  # the file
    assert response.status_code == status, data[:500]
    return response


def session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options)


def probabilities(client: FlaskClient, job_id: str, images: Any) -> Any:
    """What ``/predict`` answers for images of any number."""
    parts = [
        ask(client, job_id, "predict", images=[png(image) for image in images[start : start + 250]])["probabilities"]
        for start in range(0, len(images), 250)
    ]
    return np.concatenate([np.asarray(part) for part in parts])


def test_an_onnx_classifier_takes_levels_and_gives_the_probabilities_of_predict(
    client: FlaskClient, classifier: str, digits: Dataset
) -> None:
    model = session(export(client, classifier, "onnx").data)
    (source,), (result,) = model.get_inputs(), model.get_outputs()
    assert (source.name, source.type, source.shape) == ("images", "tensor(uint8)", ["N", 28, 28])
    assert (result.name, result.shape) == ("probabilities", ["N", 10])
    images = digits.validation.inputs
    (found,) = model.run(None, {"images": images})
    assert np.abs(found - probabilities(client, classifier, images)).max() < TOLERANCE
    told = model.get_modelmeta().custom_metadata_map
    assert told["job_id"] == classifier
    assert told["spec_hash"] == client.get(f"/jobs/{classifier}").json["spec_hash"]
    assert json.loads(told["class_names"]) == [str(number) for number in range(10)]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_kind_of_classifier_becomes_onnx(
    client: FlaskClient, job: Any, train: Any, digits: Dataset, name: str
) -> None:
    job_id = job(train("classifier", **CLASSIFIERS[name]))
    images = np.ascontiguousarray(digits.validation.inputs[:100])
    (found,) = session(export(client, job_id, "onnx").data).run(None, {"images": images})
    assert np.abs(found - probabilities(client, job_id, images)).max() < TOLERANCE


@pytest.mark.parametrize("name", GANS)
def test_every_kind_of_generator_becomes_onnx(client: FlaskClient, job: Any, train: Any, name: str) -> None:
    job_id = job(train("gan", **GANS[name]))
    made = ask(client, job_id, "generate", count=64, format="array", with_latent=True)
    model = session(export(client, job_id, "onnx").data)
    (levels,) = model.run(None, {"latent": np.asarray(made["latent"], np.float32)})
    assert levels.shape == (64, 28, 28)
    assert levels.min() >= 0
    assert levels.max() <= 255
    assert np.abs(levels / 255 - np.asarray(made["images"])).max() < TOLERANCE


def test_an_export_is_made_once_and_is_one_of_the_files(client: FlaskClient, classifier: str) -> None:
    before = client.get(f"/jobs/{classifier}").json["size_bytes"]
    first = export(client, classifier, "onnx")
    assert first.headers["Content-Disposition"] == f'attachment; filename="{classifier}-epoch-0001.onnx"'
    (item,) = [item for item in client.get(f"/jobs/{classifier}/artifacts").json["data"] if item["kind"] == "onnx"]
    assert first.headers["ETag"] == f'"{item["sha256"]}"'
    assert client.get(f"/jobs/{classifier}").json["size_bytes"] == before + len(first.data)
    again = client.get(f"/jobs/{classifier}/export/onnx", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    with client.get(item["url"]) as file:
        assert file.data == first.data


def test_another_name_of_the_job_replaces_the_export(client: FlaskClient, classifier: str) -> None:
    first = export(client, classifier, "onnx")
    client.patch(f"/jobs/{classifier}", json={"name": "digits"})
    second = export(client, classifier, "onnx")
    assert session(second.data).get_modelmeta().custom_metadata_map["job_name"] == "digits"
    assert first.headers["ETag"] != second.headers["ETag"]
    kept = [item for item in client.get(f"/jobs/{classifier}/artifacts").json["data"] if item["kind"] == "onnx"]
    assert len(kept) == 1


def test_a_torch_export_is_a_module_and_its_weights(client: FlaskClient, classifier: str) -> None:
    with zipfile.ZipFile(io.BytesIO(export(client, classifier, "torch").data)) as archive:
        assert sorted(archive.namelist()) == [
            f"{classifier}-torch/model.py",
            f"{classifier}-torch/weights.safetensors",
        ]
        compile(archive.read(f"{classifier}-torch/model.py"), "model.py", "exec")


def test_tensorboards_reader_gives_exactly_the_metrics(
    client: FlaskClient, worker: PlayedWorker, submit: Callable[..., str], tmp_path: Path
) -> None:
    job_id = submit(client, tags=["digits"], optimizer={"learning_rate": 0.1})
    worker.claim()
    for epoch in (1, 2, 3):
        metrics = {"train_loss": 1 / 3 / epoch, "val_accuracy": 0.1 * epoch, "grad_norm/layers.0": float("nan")}
        worker.epoch(epoch, metrics=metrics | ({"sparse": 2.0} if epoch == 2 else {}))
    with zipfile.ZipFile(io.BytesIO(export(client, job_id, "tensorboard").data)) as archive:
        archive.extractall(tmp_path)
    read = EventAccumulator(str(tmp_path / f"{job_id}-tensorboard"), {"tensors": 0, "images": 0}).Reload()
    table = client.get(f"/jobs/{job_id}/metrics").json
    for name, series in table["series"].items():
        events = {event.step: tensor_util.make_ndarray(event.tensor_proto).item() for event in read.Tensors(name)}
        found = [events.get(epoch) for epoch in table["epochs"]]
        assert [None if value is None or math.isnan(value) else value for value in found] == series
    seconds = [tensor_util.make_ndarray(event.tensor_proto).item() for event in read.Tensors("resources/seconds")]
    assert seconds == table["seconds"]
    assert [image.step for image in read.Images("samples")] == [1, 2, 3]
    with client.get(f"/jobs/{job_id}/samples/3.png") as shown:
        assert read.Images("samples")[-1].encoded_image_string == shown.data
    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = HParamsPluginData.FromString(content).session_start_info.hparams
    assert started["optimizer.learning_rate"].number_value == 0.1
    assert started["layers.0.activation"].string_value == "relu"


def test_what_cannot_be_exported_says_why(client: FlaskClient, classifier: str, submit: Callable[..., str]) -> None:
    assert "available: onnx, torch" in export(client, classifier, "pickle", 404).json["detail"]
    assert export(client, "job_none", "onnx", 404).json["code"] == "job_not_found"
    assert "available epochs: 1" in export(client, classifier, "onnx", 404, checkpoint=7).json["detail"]
    assert export(client, submit(client), "onnx", 404).json["code"] == "not_yet"
