"""Forks and reproductions, and the settings that a fork can change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.jobs import actions, epoch_commits, leases
from service.storage.tables import Job
from service.web.core.core import EXTENSION
from tests.service.web.conftest import pointers

Submit = Callable[..., str]


def train_job(client: FlaskClient, worker: Any, submit: Submit, *, epochs: int = 3, **spec: Any) -> str:
    """Train a job to its end, with a checkpoint for each epoch, and return its id."""
    job_id = submit(client, epochs=epochs, **spec)
    worker.claim()
    for epoch in range(1, epochs + 1):
        worker.commit_epoch(epoch, best=epoch == 2)
    worker.succeed()
    return job_id


def download(client: FlaskClient, path: str) -> bytes:
    with client.get(path) as answer:
        assert answer.status_code == 200
        return answer.data


def test_an_override_can_name_an_object_instead_of_spelling_it_out(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    parent = train_job(client, worker, submit)
    created = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 5, "optimizer": "adam"}})
    assert created.status_code == 201, created.text
    assert created.json["resolved"]["optimizer"]["name"] == "adam"
    invalid = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 5, "dataset": "nothing"}})
    assert pointers(invalid) == ["#/overrides/dataset"]


def test_a_fork_continues_from_its_own_copy_of_the_checkpoint(
    either_app: Flask, make_worker: Any, submit: Submit
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    parent = train_job(client, worker, submit, name="first", tags=["a"])
    body = {"checkpoint": 2, "overrides": {"epochs": 5, "optimizer": {"learning_rate": 0.01}}}
    created = client.post(f"/jobs/{parent}/fork", json=body)
    assert created.status_code == 201, created.text
    job = created.json
    assert created.headers["Location"] == f"/jobs/{job['id']}"
    assert (job["parent_id"], job["start_epoch"], job["status"]) == (parent, 2, "queued")
    assert (job["name"], job["tags"], job["allowed_actions"]) == ("first-2", ["a"], ["cancel", "fork"])
    assert job["resolved"]["optimizer"]["learning_rate"] == 0.01
    assert job["resolved"]["optimizer"]["momentum"] == 0.9
    assert job["progress"] == job["progress"] | {"epoch": 2, "epochs": 5, "step": 86, "steps": 215, "fraction": 0.4}
    checkpoint = download(client, f"/jobs/{parent}/checkpoints/2")

    # The parent can be deleted: the fork does not depend on it.
    assert client.delete(f"/jobs/{parent}").status_code == 204
    assert download(client, f"/jobs/{job['id']}/checkpoints/latest") == checkpoint
    worker.claim()
    for epoch in (3, 4, 5):
        worker.commit_epoch(epoch, keep_last=1, best=False)
    worker.succeed()
    checkpoints = client.get(f"/jobs/{job['id']}/checkpoints").json["data"]
    assert [item["epoch"] for item in checkpoints] == [2, 5], "what a fork began with must stay"
    assert client.get(f"/jobs/{job['id']}/metrics").json["epochs"] == [3, 4, 5]


def fork_job(client: FlaskClient, job_id: str, **overrides: Any) -> Any:
    created = client.post(f"/jobs/{job_id}/fork", json={"overrides": {"epochs": 99} | overrides})
    assert created.status_code == 201, created.text
    return created.json


def reproduce_job(client: FlaskClient, job_id: str) -> Any:
    created = client.post(f"/jobs/{job_id}/reproduce")
    assert created.status_code == 201, created.text
    return created.json


def test_forks_and_reproductions_have_distinct_names(either_app: Flask, make_worker: Any, submit: Submit) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    first = train_job(client, worker, submit, name="first")
    names = [job["name"] for job in (fork_job(client, first), fork_job(client, first), reproduce_job(client, first))]
    assert names == ["first-2", "first-3", "first (reproduced)"]
    assert reproduce_job(client, first)["name"] == "first (reproduced 2)"
    listed = client.get("/jobs", query_string={"name": "first"}).json["data"]
    assert [job["id"] for job in listed] == [first], "only whole names"


def test_a_trailing_number_chosen_by_the_user_stays_in_the_name(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    assert fork_job(client, train_job(client, worker, submit, name="mnist-10"))["name"] == "mnist-10-2"


def test_a_fork_of_a_fork_continues_the_numbering(client: FlaskClient, worker: Any, submit: Submit) -> None:
    first = train_job(client, worker, submit, name="first")
    second = fork_job(client, first, epochs=4)
    worker.claim()
    worker.commit_epoch(4)
    worker.succeed()
    assert fork_job(client, second["id"])["name"] == "first-3"
    assert reproduce_job(client, second["id"])["name"] == "first-2 (reproduced)"


def test_a_reproduction_of_a_reproduction_continues_the_numbering(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    reproduction = reproduce_job(client, train_job(client, worker, submit, name="first"))
    train_reproduction(worker)
    worker.succeed()
    assert reproduce_job(client, reproduction["id"])["name"] == "first (reproduced 2)"
    assert fork_job(client, reproduction["id"])["name"] == "first-2"


def test_an_explicit_name_is_used_and_jobs_derived_from_unnamed_ones_are_unnamed(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    named, unnamed = train_job(client, worker, submit, name="a" * 200), train_job(client, worker, submit)
    assert fork_job(client, named, name="mine")["name"] == "mine"
    assert fork_job(client, named, name=None)["name"] is None
    assert fork_job(client, named)["name"] == "a" * 198 + "-2"
    assert reproduce_job(client, named)["name"] == "a" * 187 + " (reproduced)"
    assert (fork_job(client, unnamed)["name"], reproduce_job(client, unnamed)["name"]) == (None, None)


def test_the_name_is_not_part_of_the_spec_hash(client: FlaskClient, worker: Any, submit: Submit) -> None:
    first = train_job(client, worker, submit, name="first")
    assert reproduce_job(client, first)["spec_hash"] == client.get(f"/jobs/{first}").json["spec_hash"]


def test_a_job_with_only_its_best_and_latest_checkpoints_can_be_forked_and_reproduced(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    parent = submit(client, epochs=4)
    worker.claim()
    for epoch in range(1, 5):
        worker.commit_epoch(epoch, best=epoch <= 2)
    worker.succeed(keep_last=1)
    assert [item["epoch"] for item in client.get(f"/jobs/{parent}/checkpoints").json["data"]] == [2, 4]
    for checkpoint, epoch in (("best", 2), ("latest", 4)):
        created = client.post(f"/jobs/{parent}/fork", json={"checkpoint": checkpoint, "overrides": {"epochs": 6}})
        assert (created.status_code, created.json["start_epoch"]) == (201, epoch)
        assert created.json["size_bytes"] == 10_000, "the copy of its checkpoint is its own"
    fork = created.json["id"]
    assert client.post(f"/jobs/{parent}/reproduce").status_code == 201
    while worker.claim().job_id != fork:
        worker.fail()
    for epoch in (5, 6):
        worker.commit_epoch(epoch, best=False)
    worker.succeed(keep_last=1)
    # A fork is reproduced from the checkpoint that it started from.
    assert [item["epoch"] for item in client.get(f"/jobs/{fork}/checkpoints").json["data"]] == [4, 6]
    reproduction = client.post(f"/jobs/{fork}/reproduce")
    assert (reproduction.status_code, reproduction.json["start_epoch"]) == (201, 4)


def test_a_fork_starts_from_the_named_checkpoint_or_else_from_the_latest(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    parent = train_job(client, worker, submit)
    for checkpoint, epoch in (("best", 2), (1, 1)):
        created = client.post(f"/jobs/{parent}/fork", json={"checkpoint": checkpoint})
        assert (created.status_code, created.json["start_epoch"]) == (201, epoch)
    created = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 4}})
    assert created.json["start_epoch"] == 3
    problem = client.post(f"/jobs/{parent}/fork", json={"checkpoint": 9}).json
    assert problem["code"] == "artifact_not_found"
    assert problem["detail"] == f"job {parent} has no checkpoint of epoch 9; available epochs: 1, 2, 3"


@pytest.mark.parametrize(
    ("overrides", "faults"),
    [
        ({"epochs": 3}, ["#/overrides/epochs"]),
        ({"layers": [{"units": 10, "activation": "softmax"}]}, ["#/overrides/layers/0/units"]),
        ({"dtype": "float64"}, ["#/overrides/dtype"]),
        ({"kind": "gan"}, ["#/overrides/kind"]),
        ({"preset": "classic"}, ["#/overrides/preset"]),
        ({"initializer": "glorot"}, ["#/overrides/initializer"]),
        ({"optimizer": {"rate": 1}, "batch_size": 0}, ["#/overrides/optimizer/rate", "#/overrides/batch_size"]),
        ({"dataset": {"name": "nowhere"}}, ["#/overrides/dataset/name"]),
    ],
)  # fmt: skip
def test_faults_in_overrides_have_pointers(
    client: FlaskClient, worker: Any, submit: Submit, overrides: dict[str, Any], faults: list[str]
) -> None:
    parent = train_job(client, worker, submit)
    reported = pointers(client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 9} | overrides}))
    assert set(faults) <= set(reported)
    assert len(client.get("/jobs").json["data"]) == 1


def test_activations_and_dropout_rates_have_no_weights_so_a_fork_can_change_them(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    layers = [
        {"units": 20, "activation": "relu"},
        {"type": "dropout", "rate": 0.1},
        {"units": 10, "activation": "softmax"},
    ]
    parent = train_job(client, worker, submit, layers=layers)
    layers[0]["activation"], layers[1]["rate"] = "tanh", 0.5
    response = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 4, "layers": layers}})
    assert response.status_code == 201
    response = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 4, "layers": [layers[0], layers[2]]}})
    assert "#/overrides/layers/1/type" in pointers(response)


def test_a_fork_may_name_the_initializer_that_its_weights_had(client: FlaskClient, worker: Any, submit: Submit) -> None:
    parent = train_job(client, worker, submit, initializer={"name": "uniform", "scale": 0.01})
    for same in ("uniform", {"scale": 0.01}):
        response = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 4, "initializer": same}})
        assert response.status_code == 201
    refused = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 4, "initializer": {"scale": 0.1}}})
    (fault,) = refused.json["errors"]
    assert fault["detail"].startswith("cannot be changed in a fork, whose weights come from the checkpoint")
    assert "tapeline train" in fault["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({"checkpoint": "first"}, "#/checkpoint"), ({"overrides": []}, "#/overrides"), ({"from": 1}, "#/from"), ([], "#")],
)
def test_an_invalid_fork_request_is_rejected_with_a_pointer(
    client: FlaskClient, worker: Any, submit: Submit, body: Any, pointer: str
) -> None:
    parent = train_job(client, worker, submit)
    assert pointers(client.post(f"/jobs/{parent}/fork", json=body)) == [pointer]


def test_a_job_without_an_epoch_cannot_be_forked(client: FlaskClient, submit: Submit) -> None:
    answer = client.post(f"/jobs/{submit(client)}/fork", json={})
    assert (answer.status_code, answer.json["allowed_actions"]) == (409, ["cancel"])


def test_a_job_is_not_forked_from_a_damaged_checkpoint(client: FlaskClient, worker: Any, submit: Submit) -> None:
    parent = train_job(client, worker, submit)
    path = next((worker.artifacts.root / parent / "checkpoint").glob("000003-*"))
    path.write_bytes(path.read_bytes()[:-1])
    answer = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 9}})
    assert (answer.status_code, answer.json["code"]) == (500, "artifact_damaged")
    assert len(client.get("/jobs").json["data"]) == 1


@pytest.mark.parametrize(("verb", "body"), [("fork", {"overrides": {"epochs": 5}}), ("reproduce", None)])
def test_a_request_repeated_with_an_idempotency_key_leaves_no_files(
    client: FlaskClient, worker: Any, submit: Submit, verb: str, body: dict[str, Any] | None
) -> None:
    parent = train_job(client, worker, submit)
    headers = {"Idempotency-Key": f"again-{verb}"}
    first, second = (client.post(f"/jobs/{parent}/{verb}", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code, second.json) == (201, 201, first.json)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert len(client.get("/jobs").json["data"]) == 2
    assert {path.name for path in worker.artifacts.root.iterdir()} <= {parent, first.json["id"]}


def train_reproduction(worker: Any, *, last_metrics: dict[str, float] | None = None) -> None:
    worker.claim()
    for epoch in (1, 2):
        worker.commit_epoch(epoch)
    worker.commit_epoch(3, metrics=last_metrics)


def test_a_reproduction_with_the_same_bits_matches(either_app: Flask, make_worker: Any, submit: Submit) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    original = train_job(client, worker, submit)
    created = client.post(f"/jobs/{original}/reproduce")
    assert created.status_code == 201, created.text
    job = created.json
    assert job["reproduction"] == {"of": original, "match": None, "first_difference": None, "provenance_differs": []}
    assert (job["parent_id"], job["spec"]) == (original, client.get(f"/jobs/{original}").json["spec"])
    assert client.delete(f"/jobs/{original}").status_code == 204, "what is compared has been copied"
    train_reproduction(worker)
    worker.succeed()
    assert client.get(f"/jobs/{job['id']}").json["reproduction"]["match"] is True
    log = client.get(f"/jobs/{job['id']}/events").json["data"]
    assert [event["code"] for event in log if event["type"] == "log"] == ["reproduced"]


def test_a_job_deleted_before_its_checkpoint_is_copied_is_not_reproduced(
    either_app: Flask, make_worker: Any, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    original = train_job(client, worker, submit)
    core = either_app.extensions[EXTENSION]
    monkeypatch.setattr(core.quotas, "new_jobs", lambda *_: actions.remove(core.database, original))
    response = client.post(f"/jobs/{original}/reproduce")
    assert (response.status_code, response.json["code"]) == (404, "job_not_found")
    assert client.get("/jobs").json["data"] == []


def test_a_reproduction_names_the_first_epoch_that_differs(either_app: Flask, make_worker: Any, submit: Submit) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    original = train_job(client, worker, submit)
    job = client.post(f"/jobs/{original}/reproduce").json
    train_reproduction(worker, last_metrics={"train_loss": 0.123, "val_accuracy": 0.9})
    worker.succeed()
    reproduction = client.get(f"/jobs/{job['id']}").json["reproduction"]
    assert (reproduction["match"], reproduction["provenance_differs"]) == (False, [])
    assert reproduction["first_difference"] == {"epoch": 3, "differs": ["train_loss"]}
    log = client.get(f"/jobs/{job['id']}/events").json["data"]
    assert [event["code"] for event in log if event["type"] == "log"] == ["not_reproduced"]


@pytest.mark.parametrize("recorded", [{"code": "sha256:before"}, {}], ids=["other code", "before code was recorded"])
def test_a_reproduction_with_different_code_reports_it(
    client: FlaskClient, worker: Any, submit: Submit, recorded: dict[str, str]
) -> None:
    original = train_job(client, worker, submit)
    job = client.post(f"/jobs/{original}/reproduce").json
    held = leases.claim(worker.database, "another", 600.0)
    assert held is not None
    provenance = client.get(f"/jobs/{original}").json["provenance"]
    with worker.database.write() as session:
        row = session.get_one(Job, job["id"])
        row.reproduction = {**(row.reproduction or {}), "provenance": provenance | recorded}
    for _ in range(2):
        leases.begin(worker.database, held, provenance | {"code": "sha256:now"})
    assert client.get(f"/jobs/{job['id']}").json["reproduction"]["provenance_differs"] == ["code"]
    log = [event for event in client.get(f"/jobs/{job['id']}/events").json["data"] if event["type"] == "log"]
    assert [event["code"] for event in log] == ["other_provenance"]
    assert f"provenance differs from {original} in code" in log[0]["message"]


def test_different_weights_alone_are_reported_as_a_difference(client: FlaskClient, worker: Any, submit: Submit) -> None:
    original = train_job(client, worker, submit)
    job = client.post(f"/jobs/{original}/reproduce").json
    train_reproduction(worker)
    epoch_commits.succeed(worker.database, worker.current_claim, "sha256:other")
    reproduction = client.get(f"/jobs/{job['id']}").json["reproduction"]
    assert (reproduction["match"], reproduction["first_difference"]) == (False, {"epoch": 3, "differs": ["weights"]})


def test_a_reproduction_of_a_fork_starts_from_the_same_checkpoint(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    parent = train_job(client, worker, submit)
    fork_id = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 4}}).json["id"]
    worker.claim()
    worker.commit_epoch(4)
    worker.succeed()
    reproduction = client.post(f"/jobs/{fork_id}/reproduce").json
    assert (reproduction["parent_id"], reproduction["start_epoch"]) == (fork_id, 3)
    copy, original = (download(client, f"/jobs/{job}/checkpoints/3") for job in (reproduction["id"], parent))
    assert copy == original


def test_only_a_succeeded_job_can_be_reproduced(client: FlaskClient, worker: Any, submit: Submit) -> None:
    failed, paused, cancelled, running, queued = (submit(client) for _ in range(5))
    assert worker.claim().job_id == failed
    worker.fail()
    for job_id, request in ((paused, "pause"), (cancelled, "cancel")):
        assert worker.claim().job_id == job_id
        worker.commit_epoch(1)
        assert client.post(f"/jobs/{job_id}/{request}").status_code == 202
        leases.release_lease(worker.database, worker.current_claim, None)
    assert worker.claim().job_id == running
    worker.commit_epoch(1)
    actions_by_job = {
        failed: ("failed", ["retry", "delete"]),
        paused: ("paused", ["cancel", "resume", "fork"]),
        cancelled: ("cancelled", ["fork", "delete"]),
        running: ("running", ["cancel", "pause", "fork"]),
        queued: ("queued", ["cancel"]),
    }
    for job_id, (status, allowed) in actions_by_job.items():
        assert client.get(f"/jobs/{job_id}").json["status"] == status
        answer = client.post(f"/jobs/{job_id}/reproduce")
        assert (answer.status_code, answer.json.get("code")) == (409, "illegal_transition"), status
        assert answer.json["allowed_actions"] == allowed
    assert len(client.get("/jobs").json["data"]) == 5, "no job was created"


def test_a_fork_takes_the_budget_in_force_and_a_reproduction_has_none(
    client: FlaskClient, worker: Any, submit: Submit
) -> None:
    parent = train_job(client, worker, submit, budget={"seconds": 60})
    assert client.get(f"/jobs/{parent}").json["budget"] == {"seconds": 60}
    changed = client.patch(f"/jobs/{parent}", json={"budget": {"seconds": 120.5}}).json
    assert (changed["budget"], changed["resolved"]["budget"]) == ({"seconds": 120.5}, {"seconds": 60})
    fork = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 5}}).json
    assert fork["budget"] == fork["resolved"]["budget"] == {"seconds": 120.5}
    own = client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 5, "budget": {"seconds": 7}}}).json
    assert own["budget"] == {"seconds": 7}
    copy = client.post(f"/jobs/{parent}/reproduce").json
    assert (copy["budget"], copy["resolved"]["budget"], "budget" in copy["spec"]) == (None, None, False)
    client.patch(f"/jobs/{parent}", json={"budget": None})
    assert client.post(f"/jobs/{parent}/fork", json={"overrides": {"epochs": 5}}).json["budget"] is None
