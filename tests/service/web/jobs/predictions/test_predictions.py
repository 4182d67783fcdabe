"""Batch predictions over the API: submission, what is pinned, what is refused, and who may read the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.datasets.tables.preprocessing import Preprocessing
from service.jobs import commits, leases
from service.kinds.prediction import submission as predictions
from service.storage.artifacts import ArtifactKind
from service.web.core.core import EXTENSION, Core
from tests.service.web.conftest import MakeApp, SimulatedWorker, pointers
from tests.service.web.core.quota_clients import client_of, keyed

CSV = b"index,part,class,prediction\n0,train,7,7\n"
Submit = Callable[..., str]


def train(app: Flask, client: FlaskClient, dataset: str, *, kind: str = "classifier", epochs: int = 2) -> str:
    """A job with the checkpoints and provenance of a training on a dataset, and its id."""
    core: Core = app.extensions[EXTENSION]
    answer = client.post("/jobs", json={"kind": kind, "dataset": dataset, "epochs": epochs})
    assert answer.status_code == 201, answer.text
    worker = SimulatedWorker(core.database, core.artifacts)
    claim = worker.claim()
    info = core.repository.describe(dataset, None)
    if info.columns:
        data = core.repository.load(info)
        fitted = Preprocessing.of(data.info, data.train.inputs, data.train.labels)
        leases.begin(core.database, claim, {"preprocessing": fitted.document()})
    for epoch in range(1, epochs + 1):
        worker.commit_epoch(epoch, best=epoch == 1)
    worker.succeed()
    return str(answer.json["id"])


def finish(app: Flask) -> None:
    """Carry out the prediction that waits."""
    core: Core = app.extensions[EXTENSION]
    worker = SimulatedWorker(core.database, core.artifacts)
    claim = worker.claim()
    file = core.artifacts.write(claim.job_id, ArtifactKind.PREDICTIONS, 1, claim.lease, CSV)
    commits.succeed_prediction(core.database, claim, file, rows=1)


def faults(answer: Any) -> list[tuple[str, str, str | None]]:
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_spec"), answer.text
    return [(error["pointer"], error["code"], error.get("suggestion")) for error in answer.json["errors"]]


def test_a_reference_is_resolved_once_and_the_job_shows_both(either_app: Flask) -> None:
    client = either_app.test_client()
    model = train(either_app, client, "mnist-10k")
    for reference, epoch in ((model, 1), (f"{model}@best", 1), (f"{model}@latest", 2), (f"{model}@2", 2)):
        answer = client.post("/jobs", json={"kind": "prediction", "model": reference, "dataset": "mnist-10k"})
        assert answer.status_code == 201, answer.text
        job = answer.json
        pinned = job["resolved"]["model"]
        assert (job["spec"]["model"], pinned["reference"]) == (reference, reference)
        assert (pinned["job"], pinned["checkpoint"], len(pinned["sha256"])) == (model, epoch, 64)
        assert job["resolved"]["dataset"] == {"name": "mnist-10k", "part": "all"}
        assert (job["progress"]["epochs"], job["progress"]["steps"]) == (1, 10_000)
        assert job["allowed_actions"] == ["cancel"]
        assert client.get(f"/jobs/{job['id']}").json == job


def test_the_hash_of_the_spec_is_that_of_the_checkpoint_not_of_its_name(app: Flask) -> None:
    client = app.test_client()
    model = train(app, client, "mnist-10k")

    def hash_of(**more: Any) -> str:
        spec = {"kind": "prediction", "model": model, "dataset": "mnist-10k"} | more
        return str(client.post("/jobs", json=spec).json["spec_hash"])

    assert hash_of() == hash_of(model=f"{model}@1", name="again", priority=1)
    assert len({hash_of(), hash_of(model=f"{model}@2"), hash_of(dataset={"name": "mnist-10k", "part": "train"})}) == 3


def test_a_dry_run_tells_the_cost_and_stores_nothing(app: Flask) -> None:
    client = app.test_client()
    model = train(app, client, "iris")
    answer = client.post("/jobs?dry_run=true", json={"kind": "prediction", "model": model, "dataset": "iris"})
    assert answer.status_code == 200, answer.text
    assert (answer.json["steps"], answer.json["checkpoint_bytes"]) == (150, 0)
    assert answer.json["parameters"] > 100
    assert 150 * 50 < answer.json["expected_bytes"] < 100_000
    assert [job["kind"] for job in client.get("/jobs").json["data"]] == ["classifier"]


def test_the_size_counts_the_names_of_the_model_and_of_the_data(app: Flask) -> None:
    core: Core = app.extensions[EXTENSION]
    data = core.repository.describe("mnist-10k", None)
    short, long = (predictions._csv_bytes(data, 10, 10, names) for names in (("a",), ("a" * 201,)))
    assert long - short == 10 * 200


def test_all_faults_are_reported_at_once(app: Flask) -> None:
    client = app.test_client()
    answer = client.post(
        "/jobs", json={"kind": "prediction", "model": "digits", "dataset": {"name": "irs", "prt": "test"}, "epochs": 3}
    )
    assert sorted(faults(answer)) == [
        ("#/dataset/name", "dataset_not_found", "iris"),
        ("#/dataset/prt", "unknown_field", "part"),
        ("#/epochs", "unknown_field", None),
        ("#/model", "model_not_found", None),
    ]
    assert pointers(client.post("/jobs", json={"kind": "prediction"})) == ["#/model", "#/dataset"]
    misspelt = client.post("/jobs", json={"kind": "predicton", "model": "x", "dataset": "iris"})
    assert faults(misspelt) == [("#/kind", "unknown_kind", "prediction")]
    too_urgent = {"kind": "prediction", "model": 3, "dataset": "iris", "priority": 10}
    assert sorted(pointers(client.post("/jobs", json=too_urgent))) == ["#/model", "#/priority"]


def test_a_dataset_that_does_not_fit_the_model_is_a_fault(app: Flask) -> None:
    client = app.test_client()
    flowers, digits = train(app, client, "iris"), train(app, client, "mnist-10k")
    table = client.post("/jobs", json={"kind": "prediction", "model": flowers, "dataset": "breast-cancer"})
    assert faults(table) == [("#/dataset", "unsuitable", None)] * 4
    assert "has no column 'sepal_length_cm', which the model uses" in table.text
    for model, dataset, text in (
        (flowers, "mnist-10k", "the model predicts rows with the columns 'sepal_length_cm'"),
        (digits, "iris", "the model predicts images of 28 x 28"),
        (digits, "stacked-mnist", "its images are 28 x 28 in colour, and the model predicts images of 28 x 28"),
    ):
        answer = client.post("/jobs", json={"kind": "prediction", "model": model, "dataset": {"name": dataset}})
        assert faults(answer) == [("#/dataset/name", "unsuitable", None)]
        assert text in answer.json["errors"][0]["detail"]
    without_test = {"name": "iris", "part": "test"}
    answer = client.post("/jobs", json={"kind": "prediction", "model": flowers, "dataset": without_test})
    assert faults(answer) == [("#/dataset/part", "unsuitable", "all")]


def test_a_gan_a_prediction_and_a_job_without_a_checkpoint_do_not_predict(app: Flask, submit: Submit) -> None:
    client = app.test_client()
    gan = train(app, client, "mnist-10k", kind="gan")
    prediction = client.post(
        "/jobs", json={"kind": "prediction", "model": train(app, client, "mnist-10k"), "dataset": "mnist-10k"}
    ).json["id"]
    waiting = submit(client)
    for model, code, text in (
        (gan, "unsuitable", f"is a GAN, which generates images: POST /jobs/{gan}/generate"),
        (prediction, "model_not_found", "is a prediction, which has no model; it used job_"),
        (waiting, "model_not_found", "the job is queued and has no checkpoint"),
        (f"{gan}@9", "model_not_found", "has no checkpoint of epoch 9; available epochs: 1, 2"),
        ("job_01J00000000000000000000000", "model_not_found", "there is no job"),
        ("digits@champion", "model_not_found", "there is no model 'digits@champion': register a version first"),
        ("digits", "model_not_found", "is not a reference to a model: give a version of a model"),
    ):
        answer = client.post("/jobs", json={"kind": "prediction", "model": model, "dataset": "mnist-10k"})
        assert faults(answer) == [("#/model", code, None)]
        assert text in answer.json["errors"][0]["detail"]


def test_another_owners_model_does_not_exist(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    ann, ben = client_of(app), client_of(app, "ben")
    model = train(app, ann, "mnist-10k")
    spec = {"kind": "prediction", "model": model, "dataset": "mnist-10k"}
    of_ben, unknown = (
        ben.post("/jobs", json=spec | changes) for changes in ({}, {"model": "job_01J00000000000000000000000"})
    )
    assert faults(of_ben) == faults(unknown) == [("#/model", "model_not_found", None)]
    assert of_ben.json["errors"][0]["detail"] == f"there is no job {model!r}"
    assert ann.post("/jobs", json=spec).status_code == 201


def test_a_prediction_is_neither_forked_reproduced_paused_nor_swept(app: Flask) -> None:
    client = app.test_client()
    spec = {"kind": "prediction", "model": train(app, client, "mnist-10k"), "dataset": "mnist-10k"}
    job = client.post("/jobs", json=spec).json["id"]
    core: Core = app.extensions[EXTENSION]
    SimulatedWorker(core.database, core.artifacts).claim()
    assert client.get(f"/jobs/{job}").json["allowed_actions"] == ["cancel"]
    for verb in ("fork", "reproduce", "pause", "retry"):
        refused = client.post(f"/jobs/{job}/{verb}", json={} if verb == "fork" else None)
        assert (refused.status_code, refused.json["allowed_actions"]) == (409, ["cancel"]), verb
    swept = client.post("/sweeps", json={"base": spec, "seeds": [1, 2]})
    assert faults(swept) == [("#/base/kind", "unsuitable", None)]


def test_the_file_is_downloaded_and_deleted_with_the_job(either_app: Flask) -> None:
    client = either_app.test_client()
    spec = {"kind": "prediction", "model": train(either_app, client, "mnist-10k"), "dataset": "mnist-10k"}
    job = client.post("/jobs", json=spec).json["id"]
    finish(either_app)
    done = client.get(f"/jobs/{job}").json
    assert (done["status"], done["allowed_actions"], done["size_bytes"]) == ("succeeded", ["delete"], len(CSV))
    (file,) = client.get(f"/jobs/{job}/artifacts").json["data"]
    assert (file["kind"], file["media_type"]) == ("predictions", "text/csv")
    assert done["result_digest"] == f"sha256:{file['sha256']}"
    with client.get(file["url"]) as answer:
        assert (answer.data, answer.mimetype) == (CSV, "text/csv")
        assert ".csv" in answer.headers["Content-Disposition"]
    results = client.get(f"/jobs/{job}/results").json
    assert (results["final"], results["plots"], results["best"]) == (True, {}, None)
    assert client.delete(f"/jobs/{job}").status_code == 204
    assert client.get(file["url"]).status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/{}/mistakes", 409),
        ("/jobs/{}/confusion", 409),
        ("/jobs/{}/export/torch", 409),
        ("/jobs/{}/plots/calibration.png", 404),
        ("/jobs/{}/plots/confusion.png", 404),
        ("/jobs/{}/bisection?metric=val_loss&below=1", 400),
        ("/differences?a={}&b={}", 400),
        ("/comparisons?a={}&b={}", 400),
        ("/ui/play/{}", 404),
    ],
)
def test_what_needs_weights_or_metrics_is_refused_with_a_reason(app: Flask, path: str, status: int) -> None:
    client = app.test_client()
    spec = {"kind": "prediction", "model": train(app, client, "mnist-10k"), "dataset": "mnist-10k"}
    job = client.post("/jobs", json=spec).json["id"]
    finish(app)
    answer = client.get(path.format(job, job))
    assert answer.status_code == status, answer.text
    assert "prediction" in answer.json["detail"]


def test_lists_show_predictions_without_the_settings_of_trainings(app: Flask) -> None:
    client = app.test_client()
    spec = {"kind": "prediction", "model": train(app, client, "iris"), "dataset": "iris", "name": "all flowers"}
    job = client.post("/jobs", json=spec).json["id"]
    listed = client.get("/jobs?kind=prediction&columns=seed,preset,dataset,optimizer.learning_rate").json["data"]
    assert [item["id"] for item in listed] == [job]
    assert listed[0]["columns"] == {"seed": None, "preset": None, "dataset": "iris", "optimizer.learning_rate": None}
    assert job in client.get("/jobs?format=csv").text
    assert "all flowers" in client.get("/", headers={"Accept": "text/html"}).text
    compared = client.get(f"/ui/compare?jobs={job}", headers={"Accept": "text/html"}).text
    assert "all flowers: a prediction has no metrics or weights to compare" in compared


def test_a_share_link_shows_the_prediction_but_neither_its_file_nor_its_model(
    make_app: MakeApp, sqlite_url: str
) -> None:
    app = keyed(make_app, sqlite_url)
    ann, stranger = client_of(app), app.test_client()
    model = train(app, ann, "mnist-10k")
    job = ann.post("/jobs", json={"kind": "prediction", "model": model, "dataset": "mnist-10k"}).json["id"]
    finish(app)
    token = ann.post("/shares", json={"path": f"/jobs/{job}"}).json["token"]
    stranger.get(f"/shared/{token}", headers={"Accept": "text/html"})
    shared = stranger.get(f"/jobs/{job}")
    assert shared.status_code == 200
    assert model not in json.dumps(shared.json)
    page = stranger.get(f"/ui/jobs/{job}", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert model not in page.text
    assert "The file is not shared" in page.text
    (file,) = ann.get(f"/jobs/{job}/artifacts").json["data"]
    assert stranger.get(file["url"]).status_code == 401
    with ann.get(file["url"]) as answer:
        assert answer.data == CSV
