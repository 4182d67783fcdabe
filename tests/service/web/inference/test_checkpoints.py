"""Which checkpoint inference uses, and access control."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from engine import checkpoint
from service.datasets.cache import Dataset
from service.spec.presets.definitions import DEFAULT_PRESET
from service.storage.artifact_rows import use_current
from service.web.core.core import EXTENSION, Core
from service.web.inference import loading
from service.web.inference.model_runner import _lru_cached
from tests.service.web.conftest import SimulatedWorker
from tests.service.web.inference.networks import CLASSIFIERS, png, post


def test_the_wrong_verb_names_the_right_one(client: FlaskClient, submit: Callable[..., str]) -> None:
    classifier, gan = submit(client), submit(client, kind="gan")
    problem = post(client, classifier, "generate", 409)
    assert problem["code"] == "wrong_kind"
    assert f"/jobs/{classifier}/predict" in problem["detail"]
    answer = client.get(f"/jobs/{classifier}/residuals")
    assert (answer.status_code, answer.json["code"]) == (409, "wrong_kind")
    assert f"GET /jobs/{classifier}/mistakes" in answer.json["detail"]
    assert f"/jobs/{gan}/generate" in post(client, gan, "predict", 409, images=["x"])["detail"]
    for page in ("confusion", "mistakes"):
        answer = client.get(f"/jobs/{gan}/{page}")
        assert (answer.status_code, answer.json["code"]) == (409, "wrong_kind")
        assert f"/jobs/{gan}/generate" in answer.json["detail"]


def test_a_job_without_a_checkpoint_is_reported_as_not_yet_ready(
    client: FlaskClient, submit: Callable[..., str]
) -> None:
    job_id = submit(client)
    problem = post(client, job_id, "predict", 404, images=[png(np.zeros((28, 28), np.uint8))])
    assert problem["code"] == "not_yet"
    assert "the first one follows its first epoch" in problem["detail"]
    assert client.get(f"/jobs/{job_id}/confusion").json["code"] == "not_yet"
    assert client.get(f"/jobs/{job_id}/mistakes").json["code"] == "not_yet"


def test_a_request_for_a_missing_checkpoint_names_the_available_ones(client: FlaskClient, classifier: str) -> None:
    image = png(np.zeros((28, 28), np.uint8))
    problem = post(client, classifier, "predict", 404, images=[image], checkpoint=7)
    assert problem["code"] == "artifact_not_found"
    assert "available epochs: 1" in problem["detail"]
    assert "keep_last" not in problem["detail"], "the job has not reached this epoch"
    for which in ("best", "latest", 1):
        assert post(client, classifier, "predict", images=[image], checkpoint=which)["checkpoint"] == 1


def test_a_request_for_a_pruned_checkpoint_names_the_available_ones(
    client: FlaskClient, worker: SimulatedWorker, submit: Callable[..., str], train: Any
) -> None:
    trained = train("classifier", **CLASSIFIERS["dense"])
    job_id = submit(client, **trained.spec)
    image = png(np.zeros((28, 28), np.uint8))
    worker.claim()
    worker.commit_epoch(1, checkpoint=trained.checkpoint)
    assert post(client, job_id, "predict", images=[image], checkpoint=1)["checkpoint"] == 1
    worker.commit_epoch(2, checkpoint=trained.checkpoint, keep_last=1)
    problem = post(client, job_id, "predict", 404, images=[image], checkpoint=1)
    assert problem["code"] == "artifact_not_found"
    assert "no checkpoint of epoch 1; available epochs: 2." in problem["detail"]
    assert "To keep all checkpoints" in problem["detail"]


def test_the_best_checkpoint_is_that_of_the_moment_in_which_it_is_read(
    client: FlaskClient,
    worker: SimulatedWorker,
    submit: Callable[..., str],
    train: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A page asks for the best checkpoint while another epoch becomes the best, and that one is removed."""
    trained = train("classifier", **CLASSIFIERS["dense"])
    job_id = submit(client, **trained.spec)
    worker.claim()
    worker.commit_epoch(1, checkpoint=trained.checkpoint)

    def after_a_commit(*args: Any) -> Any:
        worker.commit_epoch(2, checkpoint=trained.checkpoint, keep_last=1)
        return use_current(*args)

    monkeypatch.setattr(loading, "use_current", after_a_commit)
    answer = client.get(f"/jobs/{job_id}/calibration?checkpoint=best")
    assert (answer.status_code, answer.json.get("checkpoint")) == (200, 2), answer.json


def test_a_damaged_checkpoint_is_reported(
    client: FlaskClient, worker: SimulatedWorker, submit: Callable[..., str], train: Any
) -> None:
    job_id = submit(client)
    worker.claim()
    worker.commit_epoch(1, checkpoint=train("gan").checkpoint)  # intact, but of another network
    image = png(np.zeros((28, 28), np.uint8))
    assert post(client, job_id, "predict", 500, images=[image])["code"] == "artifact_damaged"
    worker.commit_epoch(2, checkpoint=train("classifier").checkpoint, best=False)
    (path,) = (worker.artifacts.root / job_id / "checkpoint").glob("000002-*")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert post(client, job_id, "predict", 500, images=[image], checkpoint=2)["code"] == "artifact_damaged"
    worker.commit_epoch(3, checkpoint=b"as it was written, but no safetensors file", best=False)
    assert post(client, job_id, "predict", 500, images=[image], checkpoint=3)["code"] == "artifact_damaged"


def test_a_network_that_overflows_still_returns_finite_numbers(
    client: FlaskClient, worker: SimulatedWorker, submit: Callable[..., str], train: Any
) -> None:
    trained = train("classifier", **CLASSIFIERS["dense"])
    state = checkpoint.loads(trained.checkpoint)
    state.tensors["layers.0.weight"][:] = np.finfo(np.float32).max
    job_id = submit(client, **trained.spec)
    worker.claim()
    worker.commit_epoch(1, checkpoint=checkpoint.dumps(state))
    answer = post(client, job_id, "predict", images=[png(np.full((28, 28), 255, np.uint8))], explain=True)
    assert np.isfinite(answer["probabilities"]).all()
    assert np.isfinite(answer["saliency"]).all()


def test_concurrent_requests_load_a_network_once(app: Flask, classifier: str, digits: Dataset) -> None:
    core: Core = app.extensions[EXTENSION]
    paths: list[str] = []
    read_artifact = core.artifacts.read

    def count_reads(path: str, sha256: str) -> bytes:
        paths.append(path)
        return read_artifact(path, sha256)

    core.artifacts.read = count_reads  # type: ignore[method-assign]
    images = [png(image) for image in digits.validation.inputs[:5]]
    expected = post(app.test_client(), classifier, "predict", images=images)
    paths.clear()
    app.extensions.pop(loading._EXTENSION)
    with ThreadPoolExecutor(8) as pool:
        futures = [
            pool.submit(post, app.test_client(), classifier, "predict", images=images, explain=number % 2 == 0)
            for number in range(24)
        ]
    assert {json.dumps(future.result()["probabilities"]) for future in futures} == {
        json.dumps(expected["probabilities"])
    }
    assert len(paths) == 1


def test_the_most_recently_used_models_stay_cached() -> None:
    loaded: list[int] = []

    def load(number: int) -> int:
        loaded.append(number)
        return number

    get = _lru_cached(load, key=str, max_bytes=10, size_bytes=lambda number: number)
    assert [get(number) for number in (4, 5, 4, 3, 4, 5, 11, 11)] == [4, 5, 4, 3, 4, 5, 11, 11]
    assert loaded == [4, 5, 3, 5, 11]  # 3 evicted 5 (4 was used later); 11 exceeds the cache: alone


def test_a_validation_image_of_a_dataset_is_served_as_png(client: FlaskClient, digits: Dataset) -> None:
    answer = client.get("/datasets/mnist-10k/validation/3.png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.data))), digits.validation.inputs[3])
    assert client.get("/datasets/mnist-10k/validation/1500.png").json["code"] == "not_found"
    assert client.get("/datasets/mnist/validation/0.png").status_code in (200, 404)


def test_every_preset_resolves_to_itself_and_the_spec_schema_is_served(client: FlaskClient) -> None:
    presets = client.get("/presets").json["data"]
    assert [(item["kind"], item["name"]) for item in presets if item["is_default"]] == [
        (kind, name) for kind, name in DEFAULT_PRESET.items()
    ]
    for item in presets:
        dry = client.post("/jobs?dry_run=true", json=item["spec"])
        assert dry.status_code == 200, dry.text
        assert dry.json["resolved"] == item["spec"]
    answer = client.get("/schema.json")
    assert answer.mimetype == "application/schema+json"
    schema = answer.json
    keep = schema["$defs"]["Checkpointing"]["properties"]["keep_last"]
    assert keep["description"].startswith("Number of recent checkpoints")
    assert schema["$defs"]["GanSpec"]["required"] == ["kind"]
