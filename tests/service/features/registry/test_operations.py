"""The model registry over HTTP: versions, aliases, gates, history and rollback."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from service.access import keys
from service.access.keys import Scope
from service.features.webhooks.tables import WebhookDelivery
from service.maintenance import retention
from service.maintenance.retention import Policy
from service.storage.tables import ApiKey
from service.web.core.core import EXTENSION, Core
from tests.service.web.conftest import MakeApp, SimulatedWorker
from tests.service.web.core.quota_clients import client_of, keyed

Submit = Callable[..., str]


def train(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit, *, accuracy: float = 0.9, epochs: int = 1, **spec: Any
) -> str:
    """A succeeded job; its last epoch is its best."""
    job_id = submit(client, epochs=epochs, **spec)
    worker.claim()
    for epoch in range(1, epochs + 1):
        checkpoint = f"{job_id} {epoch}".encode()
        worker.commit_epoch(epoch, metrics={"val_accuracy": accuracy, "val_loss": 0.3}, checkpoint=checkpoint)
    worker.succeed()
    return job_id


def register(client: FlaskClient, job: str, name: str = "digits", **changes: Any) -> Any:
    answer = client.post(f"/models/{name}/versions", json={"job": job, **changes})
    assert answer.status_code in (200, 201), answer.text
    return answer.json


def move(client: FlaskClient, version: int, alias: str = "champion", **options: Any) -> Any:
    body = {name: options.pop(name) for name in ("force", "reason") if name in options}
    return client.put(f"/models/digits/aliases/{alias}", json={"version": version, **body}, **options)


def set_gates(client: FlaskClient, *gates: Any, alias: str = "champion") -> None:
    answer = client.put(f"/models/digits/aliases/{alias}/gates", json=list(gates))
    assert answer.status_code == 200, answer.text


@pytest.fixture
def three(client: FlaskClient, worker: SimulatedWorker, submit: Submit) -> list[str]:
    """The jobs of three versions of the model ``digits``."""
    jobs = [train(client, worker, submit, seed=seed, accuracy=0.9 + seed / 100) for seed in range(3)]
    for number, job in enumerate(jobs, start=1):
        assert register(client, job)["version"] == number
    return jobs


def test_a_version_is_a_checkpoint_and_the_same_bytes_are_the_same_version(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit
) -> None:
    job = train(client, worker, submit, epochs=3)
    answer = client.post("/models/digits/versions", json={"job": job, "note": "first"})
    assert (answer.status_code, answer.headers["Location"]) == (201, "/models/digits/versions/1")
    version = answer.json
    assert (version["reference"], version["checkpoint"], version["note"]) == ("digits:1", 3, "first")
    assert version["metrics"] == {"val_accuracy": 0.9, "val_loss": 0.3}
    again = client.post("/models/digits/versions", json={"job": job, "checkpoint": "latest"})
    assert (again.status_code, again.json) == (200, version)
    assert register(client, job, checkpoint=2)["version"] == 2
    listed = client.get("/models/digits/versions").json
    assert [item["version"] for item in listed["data"]] == [2, 1]
    first_page = client.get("/models/digits/versions?limit=1").json
    assert first_page["has_more"]
    rest = client.get(f"/models/digits/versions?limit=1&cursor={first_page['next_cursor']}").json
    assert [item["version"] for item in rest["data"]] == [1]
    assert not rest["has_more"]
    [model] = client.get("/models").json["data"]
    assert (model["name"], model["versions"], model["latest"], model["aliases"]) == ("digits", 2, 2, {})


@pytest.mark.parametrize("name", ["Digits", "-digits", "di gits", "x" * 65, "digits@1", "a:b", "job_1"])
def test_a_name_that_could_be_misread_is_refused(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit, name: str
) -> None:
    job = train(client, worker, submit)
    answer = client.post(f"/models/{name}/versions", json={"job": job})
    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, "#/name")
    assert client.get("/models").json["data"] == []


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/models/faces", "available: digits"),
        ("/models/digits/versions/9", "version 9 of the model 'digits' does not exist; the newest is 3"),
        ("/models/digits/aliases/stable", "available: champion, latest"),
        ("/models/digits@stable", "no alias 'stable'"),
        ("/models/digits:x", "write NAME@ALIAS"),
    ],
)
def test_what_does_not_exist_is_named_with_what_does(
    client: FlaskClient, three: list[str], path: str, part: str
) -> None:
    move(client, 1)
    answer = client.post(f"{path}/predict", json={"images": [[0]]}) if path == "/models/digits:x" else client.get(path)
    assert (answer.status_code, answer.json["code"]) == (404, "model_not_found")
    assert part in answer.json["detail"]


def test_a_reference_leads_to_the_version_that_it_means_now(client: FlaskClient, three: list[str]) -> None:
    assert move(client, 2).json["reference"] == "digits@champion"
    for reference, version in (("digits@champion", 2), ("digits:1", 1), ("digits@latest", 3)):
        answer = client.get(f"/models/{reference}")
        assert (answer.status_code, answer.headers["Location"]) == (303, f"/models/digits/versions/{version}")
    assert client.get("/models/digits/versions/2").json["aliases"] == ["champion"]


@pytest.mark.parametrize("alias", ["latest", "v3", "12"])
def test_an_alias_that_could_be_a_number_is_refused(client: FlaskClient, three: list[str], alias: str) -> None:
    answer = move(client, 1, alias)
    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, "#/alias")
    assert client.get("/models/digits/aliases").json["data"] == []


def test_of_two_people_who_move_an_alias_at_once_one_is_told(client: FlaskClient, three: list[str]) -> None:
    assert move(client, 1, headers={"If-None-Match": "*"}).headers["ETag"] == '"1"'
    assert move(client, 2, headers={"If-Match": '"1"'}).status_code == 200
    late = move(client, 3, headers={"If-Match": '"1"'})
    assert (late.status_code, late.json["code"], late.json["version"]) == (412, "precondition_failed", 2)
    assert "holds version 2" in late.json["detail"]
    assert move(client, 3, headers={"If-None-Match": "*"}).status_code == 412
    for tag in ('"x"', f'"{"9" * 5000}"', '""'):
        assert move(client, 3, headers={"If-Match": tag}).status_code == 412
    assert move(client, 3, "new", headers={"If-Match": "*"}).status_code == 412, "there is nothing to match"
    assert client.get("/models/digits/aliases/champion", headers={"If-None-Match": '"2"'}).status_code == 304
    assert move(client, 2).json["seq"] == 2, "no move"
    set_gates(client, {"max_bytes": 1_000_000})
    changed = client.get("/models/digits/aliases/champion", headers={"If-None-Match": '"2"'})
    assert (changed.status_code, len(changed.json["gates"])) == (200, 1), "its gates are another version of the alias"
    assert move(client, 3, headers={"If-Match": changed.headers["ETag"]}).status_code == 200


def test_gates_refuse_with_evidence_and_history_keeps_it(client: FlaskClient, three: list[str]) -> None:
    set_gates(client, {"metric": "val_accuracy", "min": 0.915}, {"max_bytes": 1_000_000})
    refused = move(client, 2)
    assert (refused.status_code, refused.json["code"]) == (409, "gate_failed")
    metric, size = refused.json["gates"]
    assert (metric["passed"], metric["evidence"], size["passed"]) == (False, {"value": 0.91, "epoch": 1}, True)
    assert "val_accuracy is 91.00%; it must be at least 91.50%" in metric["sentence"]
    assert client.get("/models/digits/aliases/champion").json["version"] is None
    tried = client.put("/models/digits/aliases/champion?dry_run=true", json={"version": 2})
    assert (tried.status_code, tried.json["passed"], tried.json["findings"]) == (200, False, refused.json["gates"])
    assert move(client, 3).status_code == 200
    [entry] = client.get("/models/digits/aliases/champion/history").json["data"]
    assert (entry["from_version"], entry["to_version"], entry["forced"]) == (None, 3, False)
    assert [gate["passed"] for gate in entry["gates"]] == [True, True]


def test_a_forced_move_needs_a_reason_and_stays_marked(client: FlaskClient, three: list[str]) -> None:
    set_gates(client, {"metric": "val_accuracy", "min": 0.99})
    refused = move(client, 1, force=True)
    assert (refused.status_code, refused.json["errors"][0]["pointer"]) == (422, "#/reason")
    assert move(client, 1, force=True, reason=" ").status_code == 422
    forced = move(client, 1, force=True, reason="the sensor was replaced")
    assert (forced.json["forced"], forced.json["reason"]) == (True, "the sensor was replaced")
    set_gates(client)
    assert move(client, 2, force=True, reason="no gate fails").json["forced"] is False
    entries = client.get("/models/digits/aliases/champion/history").json["data"]
    assert [entry["forced"] for entry in entries] == [False, True]
    assert entries[1]["gates"][0]["passed"] is False


@pytest.mark.parametrize(
    ("gates", "pointer", "part"),
    [
        ([{"metric": "val_acuracy", "min": 0.9}], "#/0/metric", "did you mean 'val_accuracy'?"),
        ([{"metric": "val_accuracy"}], "#/0", "needs `min`, `max` or both"),
        ([{"metric": "val_accuracy", "min": 0.9, "max": 0.8}], "#/0", "no value meets both"),
        ([{"max_bytes": 1}, {"reproduced": True, "max_bytes": 5}], "#/1", "must be one condition"),
        ([{}], "#/0", "must be one condition"),
        ([{"better_than": "champion", "metric": "val_accuracy"}], "#/0/better_than", ""),
        ([{"better_than": "@latest", "metric": "val_accuracy"}], "#/0/better_than", "never be anything to surpass"),
        ([{"better_than": "@v3", "metric": "val_accuracy"}], "#/0/better_than", "or `:NUMBER`"),
        ([{"better_than": "@champion"}], "#/0", "needs the `metric`"),
        ([{"better_than": "@champion", "metric": "learning_rate"}], "#/0", "choose a metric with a direction"),
        ([{"better_than": "@champion", "metric": "val_loss", "seeds": 1}], "#/0/seeds", ""),
        ([{"min_accuracy": 0.9}], "#/0/min_accuracy", "unknown field"),
        ([{"approvals": 0}], "#/0/approvals", ""),
        ({"gates": [{"max_bytes": -1}]}, "#/gates/0/max_bytes", ""),
        ([7], "#/0", "must be an object"),
        ("x", "#", "must be a JSON object"),
    ],
)
def test_a_gate_that_cannot_be_checked_is_refused(
    client: FlaskClient, three: list[str], gates: Any, pointer: str, part: str
) -> None:
    answer = client.put("/models/digits/aliases/champion/gates", json=gates)
    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, pointer)
    assert part in answer.json["errors"][0]["detail"]
    assert client.get("/models/digits/aliases").json["data"] == []


@pytest.mark.parametrize(
    ("metric", "part"),
    [
        ("frechet_distance", "its job does not report it; it reports val_accuracy, val_loss"),
        ("test_accuracy", "has no scores on a test part"),
        ("val_rmse", "its job does not report it"),
    ],
)
def test_a_metric_that_the_job_does_not_report_fails_its_gate_and_is_named(
    client: FlaskClient, three: list[str], metric: str, part: str
) -> None:
    set_gates(client, {"metric": metric, "max": 1000})
    refused = move(client, 1)
    assert (refused.status_code, refused.json["gates"][0]["evidence"]) == (409, {"value": None})
    assert part in refused.json["gates"][0]["sentence"]


def test_rollbacks_walk_back_through_the_versions_that_an_alias_held(client: FlaskClient, three: list[str]) -> None:
    def roll_back() -> Any:
        return client.post("/models/digits/aliases/champion/rollback", json={"reason": "wrong answers"})

    for version in (1, 2, 3):
        move(client, version)
    assert roll_back().json["version"] == 2
    assert roll_back().json["version"] == 1
    end = roll_back()
    assert (end.status_code, end.json["code"]) == (409, "no_earlier_version")
    move(client, 3)
    assert roll_back().json["version"] == 1
    entries = client.get("/models/digits/aliases/champion/history").json["data"][::-1]
    assert [entry["seq"] for entry in entries] == list(range(1, 8))
    kinds = [(entry["kind"], entry["to_version"], entry["restores"]) for entry in entries[3:]]
    assert kinds == [("rollback", 2, 2), ("rollback", 1, 1), ("move", 3, None), ("rollback", 1, 1)]
    assert entries[-1]["reason"] == "wrong answers"
    stale = client.post("/models/digits/aliases/champion/rollback", json={}, headers={"If-Match": '"3"'})
    assert stale.status_code == 412


def test_a_removed_alias_keeps_gates_and_history(client: FlaskClient, three: list[str]) -> None:
    set_gates(client, {"max_bytes": 1_000_000})
    move(client, 1)
    assert client.delete("/models/digits/aliases/champion", headers={"If-Match": '"0"'}).status_code == 412
    assert client.delete("/models/digits/aliases/champion").status_code == 204
    assert client.delete("/models/digits/aliases/champion").status_code == 404
    held = client.get("/models/digits/aliases/champion").json
    assert (held["version"], held["gates"]) == (None, [{"max_bytes": 1_000_000}])
    answer = client.get("/models/digits@champion")
    assert (answer.status_code, answer.json["detail"].endswith("holds no version now")) == (404, True)
    assert client.post("/models/digits/aliases/champion/rollback", json={}).json["version"] == 1


def test_a_prediction_keeps_the_version_that_an_alias_held_at_its_submission(
    client: FlaskClient, three: list[str]
) -> None:
    move(client, 2)
    spec = {"kind": "prediction", "model": "digits@champion", "dataset": "mnist-10k"}
    job = client.post("/jobs", json=spec).json
    pinned = job["resolved"]["model"]
    assert (pinned["reference"], pinned["version"], pinned["job"]) == ("digits@champion", "digits:2", three[1])
    move(client, 3)
    assert client.get(f"/jobs/{job['id']}").json["resolved"]["model"] == pinned
    assert client.post("/jobs", json=spec).json["resolved"]["model"]["version"] == "digits:3"
    for reference, part in (
        ("digits@stable", "no alias 'stable'"),
        ("digits", "is not a reference"),
        ("x:1", "no model"),
    ):
        answer = client.post("/jobs", json=spec | {"model": reference})
        [fault] = answer.json["errors"]
        assert (answer.status_code, fault["pointer"], part in fault["detail"]) == (422, "#/model", True), fault


def test_every_move_is_announced_to_webhooks(client: FlaskClient, three: list[str], app: Flask) -> None:
    hook = client.post("/webhooks", json={"url": "https://93.184.216.34/", "events": ["alias.moved"]})
    assert hook.status_code == 201, hook.text
    move(client, 1)
    move(client, 2, reason="better")
    assert move(client, 2).json["moved"] is False
    client.post("/models/digits/aliases/champion/rollback", json={})
    client.delete("/models/digits/aliases/champion")
    core: Core = app.extensions[EXTENSION]
    with core.database.read() as session:
        rows = session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.created_ms, WebhookDelivery.event_id))
        messages = sorted((json.loads(row.data) for row in rows), key=lambda message: int(message["seq"]))
    moves = [(message["status"], message["from"], message["to"]) for message in messages]
    assert moves == [("move", None, 1), ("move", 1, 2), ("rollback", 2, 1), ("remove", 1, None)]
    assert (messages[1]["id"], messages[1]["reason"]) == ("digits@champion", "better")


def test_what_is_in_use_is_not_deleted(
    client: FlaskClient, worker: SimulatedWorker, three: list[str], app: Flask
) -> None:
    move(client, 2)
    held = client.delete("/models/digits/versions/2")
    assert (held.status_code, held.json["code"], held.json["aliases"]) == (409, "version_in_use", ["champion"])
    job = client.delete(f"/jobs/{three[1]}")
    assert (job.status_code, job.json["code"], job.json["versions"]) == (409, "job_registered", ["digits:2"])
    assert client.delete("/models/digits").status_code == 409
    assert client.delete("/models/digits/versions/3").status_code == 204
    gone = client.get("/models/digits/versions/3")
    assert (gone.status_code, "has been deleted" in gone.json["detail"]) == (404, True)
    assert client.delete(f"/jobs/{three[2]}").status_code == 204
    assert register(client, three[0])["version"] == 1
    client.delete("/models/digits/aliases/champion")
    assert client.delete("/models/digits").status_code == 204
    assert client.delete(f"/jobs/{three[1]}").status_code == 204
    assert client.get("/models").json["data"] == []


def test_numbers_of_deleted_versions_are_not_used_again(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit, three: list[str]
) -> None:
    client.delete("/models/digits/versions/3")
    assert register(client, three[2])["version"] == 4


def test_retention_and_training_keep_registered_checkpoints(
    client: FlaskClient, worker: SimulatedWorker, submit: Submit, app: Flask
) -> None:
    job = submit(client, epochs=5)
    worker.claim()
    worker.commit_epoch(1, keep_last=1)
    register(client, job, checkpoint=1)
    for epoch in range(2, 6):
        worker.commit_epoch(epoch, keep_last=1)
    worker.succeed(keep_last=1)
    stored = client.get(f"/jobs/{job}/checkpoints").json["data"]
    assert {item["epoch"] for item in stored} == {1, 5}
    core: Core = app.extensions[EXTENSION]
    with core.database.write() as session:
        session.connection().exec_driver_sql("UPDATE jobs SET finished_ms = 1000")
    policy = Policy(jobs_days=1, checkpoints_days=0.5)
    removed = retention.apply(core.database, core.artifacts, policy)
    assert (removed.jobs, removed.checkpoints) == ([], [])
    stored = client.get(f"/jobs/{job}/checkpoints").json["data"]
    assert {item["epoch"] for item in stored} == {1, 5}
    client.delete("/models/digits/versions/1")
    assert len(retention.apply(core.database, core.artifacts, policy).jobs) == 1


def test_a_hundred_concurrent_moves_leave_a_history_without_a_gap(
    either_app: Flask,
    make_worker: Callable[[Flask], SimulatedWorker],
    submit: Submit,
    serve: Callable[[Flask], str],
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    for seed in range(3):
        register(client, train(client, worker, submit, seed=seed))
    set_gates(client, {"metric": "val_accuracy", "min": 0.5})
    url = f"{serve(either_app)}/models/digits/aliases/champion"

    def act(number: int) -> tuple[int, int]:
        with httpx.Client(timeout=60) as http:
            if number % 5 == 4:
                answer = http.post(f"{url}/rollback", json={})
            else:
                answer = http.put(url, json={"version": 1 + number % 3})
            return answer.status_code, number

    with ThreadPoolExecutor(10) as pool:
        outcomes = Counter(status for status, _ in pool.map(act, range(100)))
    assert outcomes.keys() <= {200, 409}, outcomes
    entries: list[Any] = []
    cursor = ""
    while True:
        page = client.get(f"/models/digits/aliases/champion/history?limit=40{cursor}").json
        entries += page["data"]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    entries.reverse()
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    assert len(entries) > 20
    assert [entry["from_version"] for entry in entries] == [None, *(entry["to_version"] for entry in entries[:-1])]
    assert all(entry["from_version"] != entry["to_version"] for entry in entries)
    assert client.get("/models/digits/aliases/champion").json["version"] == entries[-1]["to_version"]


class TestWithKeys:
    """People are told apart by their keys."""

    @pytest.fixture
    def app(self, make_app: MakeApp, sqlite_url: str) -> Flask:
        return keyed(make_app, sqlite_url)

    def test_a_version_is_approved_by_another_key(self, app: Flask, worker: SimulatedWorker, submit: Submit) -> None:
        ann, colleague = (client_of(app, "ann", scope=Scope.SUBMIT) for _ in range(2))
        admin, bob = client_of(app, "root", scope=Scope.ADMIN), client_of(app, "bob")
        register(ann, train(ann, worker, submit))
        assert ann.put("/models/digits/aliases/champion/gates", json=[]).status_code == 403
        gates = admin.put("/models/digits/aliases/champion/gates?owner=ann", json=[{"approvals": 2}])
        assert gates.json["gates"] == [{"approvals": 2}]
        refused = move(ann, 1)
        [remedy] = refused.json["gates"][0]["remedies"]
        assert (refused.status_code, remedy["method"]) == (409, "POST")
        own = ann.post(remedy["path"], json={})
        assert (own.status_code, own.json["code"]) == (409, "not_approvable")
        assert bob.post(remedy["path"], json={}).status_code == 404
        approved = colleague.post(remedy["path"], json={"note": "looked at the mistakes"})
        assert (approved.status_code, approved.json["approvals"][0]["note"]) == (201, "looked at the mistakes")
        assert len(colleague.post(remedy["path"], json={}).json["approvals"]) == 1
        assert move(ann, 1).status_code == 409
        assert admin.post(f"{remedy['path']}?owner=ann", json={}).status_code == 201
        assert move(ann, 1).status_code == 200

    def test_a_rotated_key_is_the_same_person(self, app: Flask, worker: SimulatedWorker, submit: Submit) -> None:
        core: Core = app.extensions[EXTENSION]
        ann, colleague = (
            keys.create(core.database, name=name, owner="ann", scope=Scope.SUBMIT) for name in ("ann", "colleague")
        )

        def client_with(key: str) -> FlaskClient:
            client = app.test_client()
            client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
            return client

        def rotated(row: ApiKey) -> FlaskClient:
            return client_with(keys.rotate(core.database, row.id)[2])

        before, path = client_with(ann[1]), "/models/digits/versions/1/approvals"
        register(before, train(before, worker, submit))
        for own in (rotated(ann[0]), before):
            assert own.post(path, json={}).json["code"] == "not_approvable"
        assert len(client_with(colleague[1]).post(path, json={}).json["approvals"]) == 1
        assert len(rotated(colleague[0]).post(path, json={}).json["approvals"]) == 1

    def test_only_an_admin_can_force(self, app: Flask, worker: SimulatedWorker, submit: Submit) -> None:
        ann, admin = client_of(app, "ann", scope=Scope.SUBMIT), client_of(app, "root", scope=Scope.ADMIN)
        register(ann, train(ann, worker, submit))
        admin.put("/models/digits/aliases/champion/gates?owner=ann", json=[{"approvals": 2}])
        refused = move(ann, 1, force=True, reason="now")
        assert (refused.status_code, refused.json["needed"]) == (403, "admin")
        assert ann.put("/models/digits/aliases/champion?owner=bob", json={"version": 1}).status_code == 403
        answer = admin.put(
            "/models/digits/aliases/champion?owner=ann", json={"version": 1, "force": True, "reason": "now"}
        )
        assert answer.json["forced"]
        assert admin.get("/models/digits?owner=ann").json["aliases"] == {"champion": 1}
        audit = json.dumps(admin.get("/audit").json)
        assert '"move_alias"' in audit

    def test_models_of_others_do_not_exist(self, app: Flask, worker: SimulatedWorker, submit: Submit) -> None:
        ann, bob = client_of(app), client_of(app, "bob")
        job = train(ann, worker, submit)
        register(ann, job)
        move(ann, 1)
        assert bob.get("/models").json["data"] == []
        for path in ("/models/digits", "/models/digits@champion", "/models/digits/versions/1"):
            assert bob.get(path).status_code == 404
        for reference in ("digits@champion", "digits:1"):
            assert bob.post(f"/models/{reference}/predict", json={"images": [[0]]}).status_code == 404
            assert bob.get(f"/models/{reference}/export/onnx").status_code == 404
        assert bob.post("/models/digits/versions", json={"job": job}).json["code"] == "job_not_found"
        assert bob.get("/models").json["data"] == []
        assert bob.delete("/models/digits/versions/1").status_code == 404
