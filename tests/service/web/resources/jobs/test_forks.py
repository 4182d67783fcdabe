"""Forks and reproductions, and the settings that a fork may change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.jobs import actions, commits, leases
from service.jobs.queries import lookup
from service.storage.tables import Job
from service.web.services import EXTENSION
from tests.service.web.conftest import pointers

Submit = Callable[..., str]


def trained(client: FlaskClient, worker: Any, submit: Submit, *, epochs: int = 3, **spec: Any) -> str:
    """A job that has succeeded, with a checkpoint for each epoch."""
    job_id = submit(client, epochs=epochs, **spec)
    worker.claim()
    for epoch in range(1, epochs + 1):
        worker.epoch(epoch, best=epoch == 2)
    worker.succeed()
    return job_id


def content(client: FlaskClient, path: str) -> bytes:
    with client.get(path) as answer:
        assert answer.status_code == 200
        return answer.data


def test_overrides_may_name_an_object_by_its_text(client: FlaskClient, worker: Any, submit: Submit) -> None:
    parent = trained(client, worker, submit)
    made = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 5, "optimizer": "adam"}})
    assert made.status_code == 201, made.text
    assert made.json["resolved"]["optimizer"]["name"] == "adam"
    wrong = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 5, "dataset": "nothing"}})
    assert pointers(wrong) == ["#/overrides/dataset"]


def test_a_fork_continues_from_its_own_copy_of_the_checkpoint(either_app: Flask, play: Any, submit: Submit) -> None:
    client, worker = either_app.test_client(), play(either_app)
    parent = trained(client, worker, submit, name="first", tags=["a"])
    body = {"checkpoint": 2, "overrides": {"epochs": 5, "optimizer": {"learning_rate": 0.01}}}
    made = client.post(f"/jobs/{parent}/fork", json=body)
    assert made.status_code == 201, made.text
    job = made.json
    assert made.headers["Location"] == f"/jobs/{job['id']}"
    assert (job["parent_id"], job["start_epoch"], job["status"]) == (parent, 2, "queued")
    assert (job["name"], job["tags"], job["allowed_actions"]) == ("first-2", ["a"], ["cancel", "fork"])
    assert job["resolved"]["optimizer"]["learning_rate"] == 0.01
    assert job["resolved"]["optimizer"]["momentum"] == 0.9
    assert job["progress"] == job["progress"] | {"epoch": 2, "epochs": 5, "step": 86, "steps": 215, "fraction": 0.4}
    before = content(client, f"/jobs/{parent}/checkpoints/2")

    # The parent may go: nothing of the fork hangs on it.
    assert client.delete(f"/jobs/{parent}").status_code == 204
    assert content(client, f"/jobs/{job['id']}/checkpoints/latest") == before
    worker.claim()
    for epoch in (3, 4, 5):
        worker.epoch(epoch, keep_last=1, best=False)
    worker.succeed()
    kept = client.get(f"/jobs/{job['id']}/checkpoints").json["data"]
    assert [item["epoch"] for item in kept] == [2, 5], "what a fork began with must stay"
    assert client.get(f"/jobs/{job['id']}/metrics").json["epochs"] == [3, 4, 5]


def forked(client: FlaskClient, job_id: str, **overrides: Any) -> Any:
    made = client.post(f"/jobs/{job_id}/fork", json={"overrides": {"epochs": 99} | overrides})
    assert made.status_code == 201, made.text
    return made.json


def reproduced(client: FlaskClient, job_id: str) -> Any:
    made = client.post(f"/jobs/{job_id}/reproduce")
    assert made.status_code == 201, made.text
    return made.json


def test_forks_and_reproductions_have_distinct_names(either_app: Flask, play: Any, submit: Submit) -> None:
    client, worker = either_app.test_client(), play(either_app)
    first = trained(client, worker, submit, name="first")
    names = [made["name"] for made in (forked(client, first), forked(client, first), reproduced(client, first))]
    assert names == ["first-2", "first-3", "first (reproduced)"]
    assert reproduced(client, first)["name"] == "first (reproduced 2)"
    listed = client.get("/jobs", query_string={"name": "first"}).json["data"]
    assert [job["id"] for job in listed] == [first], "only whole names"


def test_a_number_that_a_person_chose_is_part_of_the_name(client: FlaskClient, worker: Any, submit: Submit) -> None:
    assert forked(client, trained(client, worker, submit, name="mnist-10"))["name"] == "mnist-10-2"


def test_the_fork_of_a_fork_counts_on(client: FlaskClient, worker: Any, submit: Submit) -> None:
    first = trained(client, worker, submit, name="first")
    second = forked(client, first, epochs=4)
    worker.claim()
    worker.epoch(4)
    worker.succeed()
    assert forked(client, second["id"])["name"] == "first-3"
    assert reproduced(client, second["id"])["name"] == "first-2 (reproduced)"


def test_the_reproduction_of_a_reproduction_counts_on(client: FlaskClient, worker: Any, submit: Submit) -> None:
    again = reproduced(client, trained(client, worker, submit, name="first"))
    repeat(worker)
    worker.succeed()
    assert reproduced(client, again["id"])["name"] == "first (reproduced 2)"
    assert forked(client, again["id"])["name"] == "first-2"


def test_a_given_name_is_kept_and_unnamed_parents_stay_unnamed(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    named, unnamed = trained(client, worker, submit, name="a" * 200), trained(client, worker, submit)
    assert forked(client, named, name="mine")["name"] == "mine"
    assert forked(client, named, name=None)["name"] is None
    assert forked(client, named)["name"] == "a" * 198 + "-2"
    assert reproduced(client, named)["name"] == "a" * 187 + " (reproduced)"
    assert (forked(client, unnamed)["name"], reproduced(client, unnamed)["name"]) == (None, None)


def test_the_name_is_not_part_of_the_hash(client: FlaskClient, worker: Any, submit: Submit) -> None:
    first = trained(client, worker, submit, name="first")
    assert reproduced(client, first)["spec_hash"] == client.get(f"/jobs/{first}").json["spec_hash"]


def test_a_job_that_kept_only_its_best_and_latest_is_forked_and_reproduced(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    parent = submit(client, epochs=4)
    worker.claim()
    for epoch in range(1, 5):
        worker.epoch(epoch, best=epoch <= 2)
    worker.succeed(keep_last=1)
    assert [item["epoch"] for item in client.get(f"/jobs/{parent}/checkpoints").json["data"]] == [2, 4]
    for which, epoch in (("best", 2), ("latest", 4)):
        made = client.post(f"/jobs/{parent}/fork", json={"checkpoint": which, "overrides": {"epochs": 6}})
        assert (made.status_code, made.json["start_epoch"]) == (201, epoch)
        assert made.json["size_bytes"] == 10_000, "the copy of its checkpoint is its own"
    fork = made.json["id"]
    assert client.post(f"/jobs/{parent}/reproduce").status_code == 201
    while worker.claim().job_id != fork:
        worker.fail()
    for epoch in (5, 6):
        worker.epoch(epoch, best=False)
    worker.succeed(keep_last=1)
    # A fork is reproduced from what it began with.
    assert [item["epoch"] for item in client.get(f"/jobs/{fork}/checkpoints").json["data"]] == [4, 6]
    again = client.post(f"/jobs/{fork}/reproduce")
    assert (again.status_code, again.json["start_epoch"]) == (201, 4)


def test_best_and_latest_name_their_checkpoints(client: FlaskClient, worker: Any, submit: Submit) -> None:
    parent = trained(client, worker, submit)
    for which, epoch in (("best", 2), (1, 1)):
        made = client.post(f"/jobs/{parent}/fork", json={"checkpoint": which})
        assert (made.status_code, made.json["start_epoch"]) == (201, epoch)
    made = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 4}})
    assert made.json["start_epoch"] == 3
    assert client.post(f"/jobs/{parent}/fork", json={"checkpoint": 9}).json["code"] == "artifact_not_found"


@pytest.mark.parametrize(
    ("overrides", "faults"),
    [
        ({"epochs": 3}, ["#/overrides/epochs"]),
        ({"layers": [{"units": 10, "activation": "softmax"}]}, ["#/overrides/layers/0/units"]),
        ({"dtype": "float64"}, ["#/overrides/dtype"]),
        ({"kind": "gan"}, ["#/overrides/kind"]),
        ({"preset": "seed"}, ["#/overrides/preset"]),
        ({"optimizer": {"rate": 1}, "batch_size": 0}, ["#/overrides/optimizer/rate", "#/overrides/batch_size"]),
        ({"dataset": {"name": "nowhere"}}, ["#/overrides/dataset/name"]),
    ],
)  # fmt: skip
def test_faults_of_a_fork_have_pointers(
    client: FlaskClient, worker: Any, submit: Submit, overrides: dict[str, Any], faults: list[str]
) -> None:
    parent = trained(client, worker, submit)
    found = pointers(client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 9} | overrides}))
    assert set(faults) <= set(found)
    assert len(client.get("/jobs").json["data"]) == 1


def test_activations_and_dropout_rates_may_change_since_they_have_no_weights(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    layers = [
        {"units": 20, "activation": "relu"},
        {"type": "dropout", "rate": 0.1},
        {"units": 10, "activation": "softmax"},
    ]
    parent = trained(client, worker, submit, layers=layers)
    layers[0]["activation"], layers[1]["rate"] = "tanh", 0.5
    made = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 4, "layers": layers}})
    assert made.status_code == 201
    made = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 4, "layers": [layers[0], layers[2]]}})
    assert "#/overrides/layers/1/type" in pointers(made)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({"checkpoint": "first"}, "#/checkpoint"), ({"overrides": []}, "#/overrides"), ({"from": 1}, "#/from"), ([], "#")],
)
def test_a_fork_request_is_checked(client: FlaskClient, worker: Any, submit: Submit, body: Any, pointer: str) -> None:
    parent = trained(client, worker, submit)
    assert pointers(client.post(f"/jobs/{parent}/fork", json=body)) == [pointer]


def test_a_job_without_an_epoch_cannot_be_forked(client: FlaskClient, submit: Submit) -> None:
    answer = client.post(f"/jobs/{submit(client)}/fork", json={})
    assert (answer.status_code, answer.json["allowed_actions"]) == (409, ["cancel"])


def test_a_damaged_checkpoint_makes_no_fork(client: FlaskClient, worker: Any, submit: Submit) -> None:
    parent = trained(client, worker, submit)
    path = next((worker.artifacts.root / parent / "checkpoint").glob("000003-*"))
    path.write_bytes(path.read_bytes()[:-1])
    answer = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 9}})
    assert (answer.status_code, answer.json["code"]) == (500, "artifact_damaged")
    assert len(client.get("/jobs").json["data"]) == 1


@pytest.mark.parametrize(("verb", "body"), [("fork", {"overrides": {"epochs": 5}}), ("reproduce", None)])
def test_a_repeated_request_makes_one_job(
    either_app: Flask, play: Any, submit: Submit, verb: str, body: dict[str, Any] | None
) -> None:
    client, worker = either_app.test_client(), play(either_app)
    parent = trained(client, worker, submit)
    key = {"Idempotency-Key": f"again-{verb}"}
    first, second = (client.post(f"/jobs/{parent}/{verb}", json=body, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code, second.json) == (201, 201, first.json)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert len(client.get("/jobs").json["data"]) == 2
    assert {path.name for path in worker.artifacts.root.iterdir()} <= {parent, first.json["id"]}


def repeat(worker: Any, *, last: dict[str, float] | None = None) -> None:
    worker.claim()
    for epoch in (1, 2):
        worker.epoch(epoch)
    worker.epoch(3, metrics=last)


def test_a_reproduction_with_the_same_bits_matches(either_app: Flask, play: Any, submit: Submit) -> None:
    client, worker = either_app.test_client(), play(either_app)
    original = trained(client, worker, submit)
    made = client.post(f"/jobs/{original}/reproduce")
    assert made.status_code == 201, made.text
    job = made.json
    assert job["reproduction"] == {"of": original, "match": None, "first_difference": None, "provenance_differs": []}
    assert (job["parent_id"], job["spec"]) == (original, client.get(f"/jobs/{original}").json["spec"])
    assert client.delete(f"/jobs/{original}").status_code == 204, "what is compared has been copied"
    repeat(worker)
    worker.succeed()
    assert client.get(f"/jobs/{job['id']}").json["reproduction"]["match"] is True
    log = client.get(f"/jobs/{job['id']}/events").json["data"]
    assert [event["code"] for event in log if event["type"] == "log"] == ["reproduced"]


def test_a_checkpoint_deleted_before_it_is_copied_is_not_reproduced(
    either_app: Flask, play: Any, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, worker = either_app.test_client(), play(either_app)
    original = trained(client, worker, submit)
    services = either_app.extensions[EXTENSION]
    monkeypatch.setattr(services.quotas, "new_jobs", lambda *_: actions.remove(services.database, original))
    made = client.post(f"/jobs/{original}/reproduce")
    assert (made.status_code, made.json["code"]) == (404, "job_not_found")
    assert client.get("/jobs").json["data"] == []


def test_a_reproduction_names_the_first_epoch_that_differs(either_app: Flask, play: Any, submit: Submit) -> None:
    client, worker = either_app.test_client(), play(either_app)
    original = trained(client, worker, submit)
    job = client.post(f"/jobs/{original}/reproduce").json
    repeat(worker, last={"train_loss": 0.123, "validation_accuracy": 0.9})
    worker.succeed()
    found = client.get(f"/jobs/{job['id']}").json["reproduction"]
    assert (found["match"], found["provenance_differs"]) == (False, [])
    assert found["first_difference"] == {"epoch": 3, "differs": ["train_loss"]}
    log = client.get(f"/jobs/{job['id']}/events").json["data"]
    assert [event["code"] for event in log if event["type"] == "log"] == ["not_reproduced"]


def test_a_reproduction_under_other_code_names_it(client: FlaskClient, worker: Any, submit: Submit) -> None:
    original = trained(client, worker, submit)
    job = client.post(f"/jobs/{original}/reproduce").json
    held = leases.claim(worker.database, "another", 600.0)
    assert held is not None
    before = client.get(f"/jobs/{original}").json["provenance"]
    with worker.database.write() as session:
        row = session.get_one(Job, job["id"])
        row.reproduction = {**(row.reproduction or {}), "provenance": before | {"code": "sha256:before"}}
    for _ in range(2):
        leases.begin(worker.database, held, before | {"code": "sha256:now"})
    assert client.get(f"/jobs/{job['id']}").json["reproduction"]["provenance_differs"] == ["code"]
    said = [event for event in client.get(f"/jobs/{job['id']}/events").json["data"] if event["type"] == "log"]
    assert [event["code"] for event in said] == ["other_provenance"]
    assert f"provenance differs from {original} in code" in said[0]["message"]


def test_other_weights_alone_are_a_difference_too(client: FlaskClient, worker: Any, submit: Submit) -> None:
    original = trained(client, worker, submit)
    job = client.post(f"/jobs/{original}/reproduce").json
    repeat(worker)
    commits.succeed(worker.database, worker.held, "sha256:other")
    found = client.get(f"/jobs/{job['id']}").json["reproduction"]
    assert (found["match"], found["first_difference"]) == (False, {"epoch": 3, "differs": ["weights"]})


def test_the_reproduction_of_a_fork_begins_with_the_same_checkpoint(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    parent = trained(client, worker, submit)
    forked = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 4}}).json["id"]
    worker.claim()
    worker.epoch(4)
    worker.succeed()
    again = client.post(f"/jobs/{forked}/reproduce").json
    assert (again["parent_id"], again["start_epoch"]) == (forked, 3)
    mine, theirs = (content(client, f"/jobs/{job}/checkpoints/3") for job in (again["id"], parent))
    assert mine == theirs


def test_only_a_job_that_succeeded_can_be_reproduced(client: FlaskClient, worker: Any, submit: Submit) -> None:
    job_id = submit(client)
    worker.claim()
    worker.fail()
    answer = client.post(f"/jobs/{job_id}/reproduce")
    assert (answer.status_code, answer.json["allowed_actions"]) == (409, ["retry", "delete"])


def test_a_fork_of_another_owners_job_is_not_found(make_app: Any, sqlite_url: str, submit: Submit) -> None:
    app = make_app(sqlite_url, auth="keys", api_keys=("a" * 20, "b" * 20))
    mine, theirs = ({"Authorization": f"Bearer {letter * 20}"} for letter in "ab")
    client = app.test_client()
    job_id = client.post("/jobs", json={"kind": "classifier"}, headers=mine).json["id"]
    for call in (
        client.post(f"/jobs/{job_id}/fork", json={}, headers=theirs),
        client.post(f"/jobs/{job_id}/reproduce", headers=theirs),
        client.patch(f"/jobs/{job_id}", json={"name": "mine"}, headers=theirs),
        client.patch(f"/jobs/{job_id}", json={"starred": True, "note": "mine"}, headers=theirs),
    ):
        assert call.json["code"] == "job_not_found"
    with app.extensions[EXTENSION].database.read() as session:
        assert lookup.get(session, job_id).name is None
