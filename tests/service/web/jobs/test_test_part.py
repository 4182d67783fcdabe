"""The test part is never trained on, and is scored once, with the best weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import engine
from service.datasets.formats.idx import write_idx
from service.jobs.queries import lookup
from service.runtime import failpoints
from service.spec.validation import read_resolved
from service.storage.tables import Job
from service.web.core.core import EXTENSION, Core
from tapeline import Client
from tests.service.web.conftest import MakeApp
from tests.service.web.datasets.test_dataset_versions import train
from tests.service.web.inference.test_exports import export, extract_folder, tensor_values
from tests.service.web.markup import one_line
from workers.training import build, run

SPEC: dict[str, Any] = {
    "kind": "classifier",
    "epochs": 4,
    "batch_size": 20,
    "average_decay": 0.9,
    "layers": [{"units": 12, "activation": "relu"}, {"units": 4, "activation": "softmax"}],
    "dataset": {"name": "squares"},
    "checkpoint": {"keep_last": 10},
}


def squares(count: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Noisy images; the class is the number of the brighter quadrant."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count).astype(np.uint8)
    images = rng.integers(0, 180, (count, 6, 6))
    for image, label in zip(images, labels, strict=True):
        image[3 * (label // 2) : 3 * (label // 2) + 3, 3 * (label % 2) : 3 * (label % 2) + 3] += 40
    return images.astype(np.uint8), labels


def write_folder(folder: Path, *, test_seed: int | None, test_count: int = 80) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": squares(200, 1), "t10k": squares(60, 2)}
    if test_seed is not None:
        parts["test"] = squares(test_count, test_seed)
    for name, (images, labels) in parts.items():
        write_idx(folder / f"{name}-images-idx3-ubyte", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte", labels)


@pytest.fixture
def app(make_app: MakeApp, migrated_url: str, tmp_path: Path) -> Flask:
    write_folder(tmp_path / "data" / "squares", test_seed=3)
    return make_app(migrated_url)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(autouse=True)
def _disarm_failpoints() -> Iterator[None]:
    yield
    failpoints.arm(None)


def submit(client: FlaskClient, **changes: Any) -> str:
    answer = client.post("/jobs", json=SPEC | changes)
    assert answer.status_code == 201, answer.text
    return str(answer.json["id"])


def scores_by_the_engine(app: Flask, job: Job, epoch: int) -> dict[str, float]:
    """Score a checkpoint on the test part with the engine alone."""
    core: Core = app.extensions[EXTENSION]
    client = app.test_client()
    with client.get(f"/jobs/{job.id}/checkpoints/{epoch}") as response:
        state = engine.checkpoint.loads(response.data)
    dataset = core.repository.load(core.repository.of_job(job))
    resolved = read_resolved(job.resolved)
    trainer = build.trainer(resolved, dataset)
    assert isinstance(trainer, engine.ClassifierTrainer)
    trainer.load_state_dict(state)
    images, labels = squares(80, 3)
    return trainer.test(engine.ImageData(images, labels, scale=(0, 1)))


def test_the_best_weights_are_scored_once_and_the_score_is_shown_everywhere(app: Flask, client: FlaskClient) -> None:
    assert client.get("/datasets/squares").json["test_count"] == 80
    job_id = submit(client)
    queued = client.get(f"/jobs/{job_id}").json
    assert queued["test_accuracy"] is queued["test_loss"] is queued["test_epoch"] is None
    job = train(app, job_id)
    assert job.status == "succeeded", job.error
    results = client.get(f"/jobs/{job_id}/results").json
    assert results["test_epoch"] == job.best_epoch
    expected = scores_by_the_engine(app, job, job.best_epoch)
    assert results["test_accuracy"] == expected["test_accuracy"]
    assert results["test_loss"] == expected["test_loss"]
    assert client.get(f"/jobs/{job_id}").json["test_accuracy"] == results["test_accuracy"]
    # It is computed once, so it is not among any epoch's metrics.
    metrics = client.get(f"/jobs/{job_id}/metrics").json
    assert "test_accuracy" not in str(metrics)
    page = one_line(client.get(f"/ui/jobs/{job_id}").text)
    assert 'data-metric="test_accuracy"' in page
    assert f"{results['test_accuracy']:.2%}" in page
    assert f"epoch {job.best_epoch}, scored once" in page
    interval = results["intervals"]["test_accuracy"]
    assert (interval["n"], interval["text"][:6]) == (80, "of 80,")
    assert f'<div class="interval small muted">{interval["text"].replace("CI", "interval")}</div>' in page
    (tested,) = [event for event in client.get(f"/jobs/{job_id}/events").json["data"] if event.get("code") == "tested"]
    assert tested["test_accuracy"] == results["test_accuracy"]
    assert f"{results['test_accuracy']:.2%} {interval['text']}, test loss" in tested["message"]
    listed = client.get("/jobs?columns=test_accuracy&sort=-test_accuracy").json["data"]
    assert listed[0]["columns"] == {"test_accuracy": results["test_accuracy"]}


def test_exports_and_the_client_include_the_test_score(
    app: Flask, client: FlaskClient, serve: Callable[[Flask], str], tmp_path: Path
) -> None:
    job = train(app, submit(client))
    scores = {name: value for name, value in job.test_scores.items() if name in ("test_loss", "test_accuracy")}
    other_epoch = 1 if job.best_epoch != 1 else 2
    folder = extract_folder(export(client, job.id, "tensorboard").data, tmp_path / "tensorboard")
    events = EventAccumulator(str(folder), {"tensors": 0}).Reload()
    for name, value in scores.items():
        assert tensor_values(events, f"float64/{name}") == {job.best_epoch: value}
        assert [event.step for event in events.Scalars(name)] == [job.best_epoch]
    card = extract_folder(export(client, job.id, "huggingface").data, tmp_path / "best") / "README.md"
    tested, validated = yaml.safe_load(card.read_text().split("---\n")[1])["model-index"][0]["results"]
    assert (tested["dataset"]["split"], validated["dataset"]["split"]) == ("test", "validation")
    card_scores = {metric["type"]: metric["value"] for metric in tested["metrics"]}
    assert card_scores == {"accuracy": scores["test_accuracy"], "loss": scores["test_loss"]}
    assert f"| test accuracy (`test_accuracy`) | {scores['test_accuracy']:.2%} |" in card.read_text()
    unscored = (
        extract_folder(export(client, job.id, "huggingface", checkpoint=other_epoch).data, tmp_path / "other")
        / "README.md"
    )
    assert "test_accuracy" not in unscored.read_text(), "other weights were scored"
    with Client(serve(app)) as api:
        read_job = api.job(job.id)
        assert {"test_accuracy": read_job.test_accuracy, "test_loss": read_job.test_loss} == scores
        assert read_job.test_epoch == job.best_epoch
        assert next(api.jobs()).test_accuracy == scores["test_accuracy"]


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
def test_the_mlflow_run_has_the_test_score(
    app: Flask, client: FlaskClient, serve: Callable[[Flask], str], tmp_path: Path
) -> None:
    mlflow = pytest.importorskip("mlflow")
    job = train(app, submit(client))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    store = mlflow.MlflowClient(tracking_uri=uri)
    store.create_experiment("tapeline", artifact_location=str(tmp_path / "artifacts"))
    with Client(serve(app)) as api:
        run_id = api.export_to_mlflow(job.id, uri)
    for name in ("test_accuracy", "test_loss"):
        [logged] = store.get_metric_history(run_id, name)
        assert (logged.step, logged.value) == (job.best_epoch, job.test_scores[name])


def test_training_does_not_see_the_test_part(app: Flask, client: FlaskClient, tmp_path: Path) -> None:
    """A different test part changes only the scores; without one, there are none. Each case has its own digest."""
    core: Core = app.extensions[EXTENSION]
    digests, scores, metrics = set(), [], []
    for seed in (3, 4, None):
        folder = tmp_path / "data" / "squares"
        for path in folder.iterdir():
            path.unlink()
        write_folder(folder, test_seed=seed)
        job = train(app, submit(client))
        digests.add(job.result_digest)
        scores.append(job.test_scores)
        with core.database.read() as session:
            metrics.append([row.metrics for row in lookup.epochs(session, job.id)])
    assert metrics[0] == metrics[1] == metrics[2]
    assert scores[0] != scores[1]
    assert scores[2] is None
    assert len(digests) == 3


@pytest.mark.parametrize("failpoint", ["files_stored.4", "tested", "succeeding", "batch_done.3"])
def test_an_interrupted_job_gets_the_scores_of_an_uninterrupted_one(
    app: Flask, client: FlaskClient, tmp_path: Path, failpoint: str
) -> None:
    uninterrupted = train(app, submit(client))
    folder = tmp_path / "armed"
    folder.mkdir()
    (folder / failpoint).write_text("error" if failpoint == "succeeding" else "memory")
    failpoints.arm(folder)
    job_id = submit(client)
    interrupted = train(app, job_id)
    assert interrupted.test_scores is None
    failpoints.arm(None)
    assert client.post(f"/jobs/{job_id}/retry").status_code == 202
    retried = train(app, job_id)
    assert (retried.test_scores, retried.result_digest) == (uninterrupted.test_scores, uninterrupted.result_digest)


def test_a_reproduction_compares_the_test_scores_too(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = train(app, submit(client))
    reproduced = train(app, client.post(f"/jobs/{job.id}/reproduce").json["id"])
    assert reproduced.reproduction is not None
    assert reproduced.reproduction["match"] is True
    assert reproduced.test_scores == job.test_scores
    score = run.test_scores

    def score_another_way(*arguments: Any, **named: Any) -> dict[str, float]:
        """As after a change of how the loss is computed; the training is the same."""
        scores = score(*arguments, **named)
        assert scores is not None
        return scores | {"test_loss": np.nextafter(scores["test_loss"], np.inf)}

    monkeypatch.setattr(run, "test_scores", score_another_way)
    rescored = train(app, client.post(f"/jobs/{job.id}/reproduce").json["id"])
    assert rescored.reproduction is not None
    assert (rescored.metrics, rescored.reproduction["match"]) == (job.metrics, False)
    assert rescored.reproduction["first_difference"] == {"epoch": job.epoch, "differs": ["test scores"]}


def test_the_test_score_is_that_of_the_best_epoch_even_if_it_is_not_the_last(app: Flask, client: FlaskClient) -> None:
    rates = itertools.chain([0.05, 1.0, 3.0], itertools.repeat(5.0))
    job = None
    for rate in rates:  # until the best epoch is not the last
        job = train(app, submit(client, optimizer={"name": "sgd", "learning_rate": rate}, average_decay=None, epochs=3))
        if job.best_epoch is not None and job.best_epoch < 3:
            break
    assert job is not None
    assert job.best_epoch < 3
    assert job.test_scores["test_epoch"] == job.best_epoch
    assert scores_by_the_engine(app, job, job.best_epoch) == {
        name: value for name, value in job.test_scores.items() if name in ("test_loss", "test_accuracy")
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test-labels-idx1-ubyte", None, "needs test-labels-idx1-ubyte in the same folder"),
        ("test-images-idx3-ubyte", squares(80, 3)[0][:, :5], "holds images of (5, 6)"),
        ("test-labels-idx1-ubyte", squares(79, 3)[1], "79 labels for the 80 images"),
    ],
)
def test_an_inconsistent_test_part_makes_the_dataset_unavailable_and_is_reported(
    client: FlaskClient, tmp_path: Path, name: str, content: Any, message: str
) -> None:
    path = tmp_path / "data" / "squares" / name
    path.unlink()
    if content is not None:
        write_idx(path, content)
    answer = client.get("/datasets/squares").json
    assert answer["state"] == "unavailable"
    assert message in answer["problem"]
