from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.service.web.datasets.test_dataset_versions import SMALL, archive, send
from tests.service.web.datasets.test_datasets import upload_dataset

Train = Callable[..., str]


@pytest.fixture
def train(client: FlaskClient, worker: Any, submit: Callable[..., str]) -> Train:
    """Train a job with these losses, one for each epoch, and return its id."""

    def train(*losses: float, **spec: Any) -> str:
        job_id = submit(client, epochs=len(losses), **spec)
        worker.claim()
        for epoch, loss in enumerate(losses, 1):
            worker.commit_epoch(epoch, metrics={"train_loss": loss})
        worker.succeed()
        return job_id

    return train


def get_differences(client: FlaskClient, a: str, b: str) -> Any:
    return client.get("/differences", query_string={"a": a, "b": b})


def test_differing_settings_and_the_first_differing_epoch_are_reported(client: FlaskClient, train: Train) -> None:
    a = train(0.3, 0.2, 0.1, name="a", seed=1)
    b = train(0.3, 0.25, 0.15, name="b", seed=2, tags=["x"])
    differences = get_differences(client, a, b).json
    assert (differences["a"], differences["b"], differences["compared_epochs"]) == (a, b, 3)
    seeds = {"name": "/seed", "label": "seed", "a": 1, "b": 2, "text_a": "1", "text_b": "2"}
    assert (differences["spec"], differences["same"], differences["data_differ"]) == ([seeds], False, False)
    assert (differences["provenance"], differences["dataset"], differences["checkpoint"]) == ([], None, None)
    assert differences["epoch"] == {"epoch": 2, "differs": ["train_loss"]}
    assert differences["sentence"] == "Epoch 2 is the first that differs, in train loss. The jobs differ in seed."


def test_the_most_informative_metrics_are_named_first(
    client: FlaskClient, submit: Callable[..., str], worker: Any
) -> None:
    names = ["dead_units", "dead_units/layers.8", "grad_norm", "train_loss", "val_accuracy", "val_loss"]
    jobs = []
    for value in (0.25, 0.5):
        jobs.append(submit(client, epochs=1))
        worker.claim()
        worker.commit_epoch(1, metrics=dict.fromkeys(names, value))
        worker.succeed()
    differences = get_differences(client, *jobs).json
    assert differences["epoch"]["differs"] == sorted(names)
    start = "Epoch 1 is the first that differs, in val accuracy, val loss, train loss and 3 more metrics"
    assert differences["sentence"].startswith(f"{start}.") or differences["sentence"].startswith(f"{start},")


def test_a_difference_in_provenance_is_reported(client: FlaskClient, train: Train, worker: Any) -> None:
    from service.storage.tables import Job

    a, b = train(0.3, 0.2), train(0.3, 0.1)
    with worker.database.write() as session:
        session.get_one(Job, b).provenance = {"numpy": "2.5", "threads": 1}
    differences = get_differences(client, a, b).json
    [numpy] = differences["provenance"]
    assert (numpy["name"], numpy["a"], numpy["b"]) == ("numpy", "2.4", "2.5")
    assert differences["sentence"].endswith("The jobs differ in numpy in the provenance.")


def test_a_difference_in_the_data_is_reported(client: FlaskClient, train: Train) -> None:
    jobs, digests = [], []
    for loss, seed in ((0.2, 0), (0.1, 1)):
        digests.append(send(client, archive(seed=seed))["sha256"])
        jobs.append(train(0.3, loss, layers=SMALL["layers"], dataset="mine"))
    differences = get_differences(client, *jobs).json
    assert (differences["spec"], differences["provenance"]) == ([], [])
    assert [differences["dataset"][name] for name in ("name", "a", "b")] == ["dataset", *digests]
    assert digests[0] != digests[1]
    assert differences["data_differ"] is True
    versions = " and ".join(f"mine@{digest[7:15]}" for digest in digests)
    assert differences["sentence"] == f"The data differ: {versions}. Scores on different data are not comparable."
    digits = train(0.3, 0.1, batch_size=20)
    sentence = get_differences(client, jobs[0], digits).json["sentence"]
    assert sentence.startswith("The data differ: mine and mnist-10k. Scores on different data are not comparable. ")
    assert re.search(r"The jobs also differ in \d+ settings[.]$", sentence)


def test_layers_are_described_in_words(client: FlaskClient, train: Train) -> None:
    hidden, output = {"units": 128, "activation": "relu"}, {"units": 10, "activation": "softmax"}
    dropout, norm = {"type": "dropout", "rate": 0.2}, {"type": "layer_norm"}
    a, b, c = (train(0.3, layers=[hidden, *more, output]) for more in ((), (dropout,), (norm,)))
    [layers] = get_differences(client, a, b).json["spec"]
    assert (layers["label"], layers["text_a"]) == ("layers", "dense 128 relu, dense 10 softmax")
    assert layers["text_b"] == "dense 128 relu, dropout 0.2, dense 10 softmax"
    [layer] = get_differences(client, b, c).json["spec"]
    assert (layer["label"], layer["text_a"], layer["text_b"]) == ("layers.1", "dropout 0.2", "layer_norm")


def test_an_unknown_job_is_404(client: FlaskClient, train: Train) -> None:
    a = train(0.3)
    for query in ({"a": a, "b": "job_none"}, {"a": "job_none", "b": a}):
        response = client.get("/differences", query_string=query)
        assert (response.status_code, response.json["code"]) == (404, "job_not_found")
        assert client.post("/differences", json=query).status_code == 404
    assert client.get("/differences", query_string={"a": a}).status_code == 400


def test_jobs_that_differ_can_be_investigated_by_a_new_job(client: FlaskClient, train: Train) -> None:
    a, b = train(0.3, 0.2, name="first"), train(0.3, 0.1, name="second", seed=1)
    headers = {"Idempotency-Key": "once"}
    response = client.post("/differences", json={"a": a, "b": b}, headers=headers)
    assert response.status_code == 201
    job = response.json
    assert response.headers["Location"] == f"/jobs/{job['id']}"
    assert (job["name"], job["status"]) == ("why first and second differ", "queued")
    assert job["investigation"] == {"a": a, "b": b, "found": None, "sentence": None}
    assert client.post("/differences", json={"a": a, "b": b}, headers=headers).json == job
    assert client.get(f"/jobs/{a}").json["investigation"] is None
    assert client.get(f"/ui/jobs/{job['id']}").status_code == 200


def test_equal_jobs_cannot_be_investigated(client: FlaskClient, train: Train) -> None:
    a, b = train(0.3, 0.2), train(0.3, 0.2, name="again")
    for same in (a, b):
        differences = get_differences(client, a, same).json
        assert (differences["sentence"], differences["same"]) == ("These jobs are the same.", True)
    response = client.post("/differences", json={"a": a, "b": b})
    assert (response.status_code, response.json["code"]) == (409, "not_comparable")


def test_jobs_of_two_kinds_cannot_be_investigated_and_both_are_named(
    client: FlaskClient, submit: Callable[..., str], train: Train
) -> None:
    table = "area,rent\n" + "".join(f"{n % 97}.5,{n % 97 * 7}.5\n" for n in range(300))
    uploaded = upload_dataset(client, "flats", table=table.encode())
    assert uploaded.status_code == 201, uploaded.text
    regressor = submit(client, kind="regressor", dataset="flats")
    response = client.post("/differences", json={"a": train(0.3), "b": regressor})
    assert (response.status_code, response.json["code"]) == (409, "not_comparable")
    assert "a classifier and a regressor cannot be compared" in response.json["detail"]


def test_all_faults_in_the_body_are_reported_together(client: FlaskClient) -> None:
    response = client.post("/differences", json={"a": 1, "c": "x"})
    assert response.status_code == 422
    assert {fault["pointer"] for fault in response.json["errors"]} == {"#/a", "#/b", "#/c"}


def test_bisection_finds_the_first_bad_epoch_in_at_most_six_probes(
    client: FlaskClient, train: Train, worker: Any
) -> None:
    job = train(*[0.1] * 40, *[0.9] * 24)
    answer = client.get(f"/jobs/{job}/bisection?metric=train_loss&above=0.5").json
    assert (answer["epoch"], answer["value"], answer["before"]) == (41, 0.9, {"epoch": 40, "value": 0.1})
    assert len(answer["probes"]) <= 6
    assert answer["probes"][0] == {"epoch": 32, "value": 0.1}
    assert (answer["times"], answer["checkpoint"]) == (1, None)
    assert answer["sentence"] == (
        "Epoch 41 is the first bad one: train loss 0.9, after 0.1 in epoch 40. No checkpoint before it is kept."
    )
    all_bad = client.get(f"/jobs/{job}/bisection?metric=train_loss&above=0.01").json
    assert (all_bad["epoch"], all_bad["before"]) == (1, None)
    assert all_bad["sentence"].startswith("Epoch 1, the first that measured it, is already bad")


@pytest.mark.parametrize(
    ("query", "parameter", "part"),
    [
        ("metric=val_acuracy&below=0.9", "metric", "the job has no metric 'val_acuracy'; it has train_loss"),
        ("metric=trainloss&below=0.9", "metric", "the job has no metric 'trainloss'; did you mean 'train_loss'?"),
        ("metric=train_loss&above=1", "above", "not above 1, nor in any other epoch"),
        ("metric=train_loss&above=0.25", "above", "it was last in epoch 1"),
        ("metric=train_loss", "below", "exactly one of below and above"),
        ("metric=train_loss&above=1&below=0", "below", "exactly one of below and above"),
        ("metric=train_loss&above=nan", "above", "finite"),
        ("above=1", "metric", ""),
    ],
)
def test_an_impossible_bisection_is_rejected_with_a_reason(
    client: FlaskClient, train: Train, query: str, parameter: str, part: str
) -> None:
    response = client.get(f"/jobs/{train(0.3, 0.2)}/bisection?{query}")
    assert (response.status_code, response.json["code"]) == (400, "invalid_parameter")
    assert [error["parameter"] for error in response.json["errors"]] == [parameter]
    assert part in response.json["detail"]


def test_a_job_without_epochs_has_no_metric_to_bisect(client: FlaskClient, submit: Callable[..., str]) -> None:
    response = client.get(f"/jobs/{submit(client)}/bisection?metric=train_loss&above=1")
    assert response.json["detail"] == "metric: the job has no metric 'train_loss'; it has none yet"
    assert client.get("/jobs/job_none/bisection?metric=train_loss&above=1").status_code == 404
