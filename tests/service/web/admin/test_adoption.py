"""Objects from before keys were required are hidden until ``tapeline keys adopt`` gives them to an owner."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select

from service.access import audit, keys
from service.access.keys import Scope
from service.cli import main
from service.runtime.settings import Auth
from service.storage.database import Database
from service.storage.tables import Job, Upload
from service.sweeps import decisions

TABLE = "size,kind\n" + "".join(f"{number * 7 % 11}.5,{'ab'[number % 2]}\n" for number in range(40))
SWEEP = {
    "base": {"kind": "classifier", "epochs": 2},
    "space": {"/batch_size": {"choice": [50, 100]}},
    "search": {"name": "grid"},
    "parallel": 1,
}


@pytest.fixture
def run(migrated_url: str, tmp_path: Path) -> Callable[..., Result]:
    environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": migrated_url}
    return lambda *arguments: CliRunner().invoke(main, ["keys", *arguments], env=environ)


@pytest.fixture
def keyed(make_app: Callable[..., Flask], migrated_url: str) -> FlaskClient:
    return make_app(migrated_url, auth=Auth.KEYS).test_client()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def upload(client: FlaskClient, **options: Any) -> str:
    data = {"name": "kunden", "table": (io.BytesIO(TABLE.encode()), "kunden.csv")}
    answer = client.post("/datasets", data=data, **options)
    assert answer.status_code == 201, answer.text
    return str(answer.json["name"])


def visible(client: FlaskClient, headers: dict[str, str]) -> dict[str, set[str]]:
    ids = {
        "jobs": {job["id"] for job in client.get("/jobs", headers=headers).json["data"]},
        "datasets": {item["name"] for item in client.get("/datasets", headers=headers).json["data"]},
        "sweeps": {item["id"] for item in client.get("/sweeps", headers=headers).json["data"]},
    }
    return ids | {"datasets": ids["datasets"] & {"kunden"}}


def test_adopt_gives_all_objects_without_an_owner_to_the_named_owner(
    either_app: Flask, keyed: FlaskClient, make_worker: Callable[[Flask], Any], run: Callable[..., Result]
) -> None:
    keyless, worker = either_app.test_client(), make_worker(either_app)
    upload(keyless)
    idempotency = {"Idempotency-Key": "the-first"}
    spec = {"kind": "classifier", "dataset": "kunden", "epochs": 1}
    job = keyless.post("/jobs", json=spec, headers=idempotency).json
    claim = worker.claim()
    sweep = keyless.post("/sweeps", json=SWEEP).json

    created = run("create", "ann", "--scope", "admin")
    ann = bearer(created.stdout.strip())
    assert "without an owner: 2 jobs, 1 dataset and 1 sweep. They are hidden" in created.stderr
    assert "`tapeline keys adopt ann`" in created.stderr
    bob = bearer(run("create", "bob").stdout.strip())
    assert visible(keyed, ann) == visible(keyed, bob) == {"jobs": set(), "datasets": set(), "sweeps": set()}
    assert keyed.get("/ui/datasets/kunden", headers=ann).status_code == 404
    page = keyed.get("/ui/keys", headers=ann | {"Accept": "text/html"}).text
    assert "(2 jobs, 1 dataset and 1 sweep) has no owner and is hidden" in page
    assert "tapeline keys adopt ann" in keyless.get("/ui/keys", headers={"Accept": "text/html"}).text

    rejected = run("adopt", "anna")
    assert rejected.exit_code == 1
    assert "there is no owner 'anna'; similar owners: ann" in " ".join(rejected.output.split())
    bobs_job = keyed.post("/jobs", json={"kind": "classifier", "epochs": 1}, headers=bob).json["id"]

    adopted = run("adopt", "ann")
    assert adopted.exit_code == 0, adopted.output
    assert adopted.stdout == "ann now owns 2 jobs, 1 dataset and 1 sweep that had no owner\n"
    trials = {item["id"] for item in keyless.get(f"/jobs?sweep={sweep['id']}").json["data"]}
    assert visible(keyed, ann) == {"jobs": {job["id"], *trials}, "datasets": {"kunden"}, "sweeps": {sweep["id"]}}
    assert visible(keyed, bob) == {"jobs": {bobs_job}, "datasets": set(), "sweeps": set()}
    assert keyed.get(f"/jobs/{job['id']}", headers=bob).status_code == 404
    assert keyed.post("/jobs", json=spec, headers=ann | idempotency).json["id"] == job["id"], "a repeated request"

    # The running job and the sweep continue; what they create belongs to the owner, too.
    assert claim.job_id == job["id"]
    worker.commit_epoch(1)
    worker.succeed()
    while keyed.get("/queue", headers=ann).json["data"]:
        worker.claim()
        for epoch in (1, 2):
            worker.commit_epoch(epoch, metrics={"val_accuracy": 0.9, "train_loss": 1.0})
        worker.succeed()
        decisions.advance_all(worker.database)
    assert len(keyed.get(f"/jobs?sweep={sweep['id']}", headers=ann).json["data"]) == 2
    assert keyed.get(f"/sweeps/{sweep['id']}", headers=ann).json["status"] == "succeeded"

    assert "nothing to do" in run("adopt", "ann").stdout
    nothing = {"jobs": 0, "datasets": 0, "sweeps": 0, "models": 0}
    assert json.loads(run("adopt", "bob", "--json").stdout) == {"owner": "bob", **nothing}
    assert "adopt" not in run("create", "carl").stderr
    assert "no owner" not in keyed.get("/ui/keys", headers=ann | {"Accept": "text/html"}).text
    with worker.database.read() as session:
        entries = audit.read(session, action="adopt")
    detail = {"jobs": 2, "datasets": 1, "sweeps": 1, "models": 0}
    assert [(row.subject, row.detail) for row in entries] == [("ann", detail)]


def test_an_adopted_model_whose_name_is_taken_gets_a_number(
    either_app: Flask, keyed: FlaskClient, make_worker: Callable[[Flask], Any], run: Callable[..., Result]
) -> None:
    keyless, worker = either_app.test_client(), make_worker(either_app)
    ann = bearer(run("create", "ann").stdout.strip())
    for client, headers, content in ((keyless, {}, b"ownerless"), (keyed, ann, b"of ann")):
        job = client.post("/jobs", json={"kind": "classifier", "epochs": 1}, headers=headers).json["id"]
        worker.claim()
        worker.commit_epoch(1, checkpoint=content)
        worker.succeed()
        registered = client.post("/models/digits/versions", json={"job": job}, headers=headers)
        assert registered.status_code == 201
    keyless.put("/models/digits/aliases/champion", json={"version": 1})
    assert run("adopt", "ann").stdout == "ann now owns 1 job and 1 model that had no owner\n"
    models = {item["name"]: item["aliases"] for item in keyed.get("/models", headers=ann).json["data"]}
    assert models == {"digits": {}, "digits-2": {"champion": 1}}


def test_adopted_data_that_the_owner_already_has_is_not_stored_twice(
    database: Database, either_app: Flask, keyed: FlaskClient, run: Callable[..., Result]
) -> None:
    keyless = either_app.test_client()
    ann = bearer(run("create", "ann").stdout.strip())
    upload(keyless)
    job = keyless.post("/jobs", json={"kind": "classifier", "dataset": "kunden", "epochs": 1}).json["id"]
    upload(keyed, headers=ann)
    assert "owns 1 job that had" in run("adopt", "ann").stdout, "the job is queued: its data stay where they are"
    keyless.post(f"/jobs/{job}/cancel")
    assert "owns 1 dataset that had" in run("adopt", "ann").stdout
    assert visible(keyed, ann) == {"jobs": {job}, "datasets": {"kunden"}, "sweeps": set()}
    with database.read() as session:
        (stored,) = session.scalars(select(Upload).where(Upload.deleted_ms.is_(None)))
        assert (stored.owner, session.get_one(Job, job).upload_id) == ("ann", stored.id)
    assert "nothing to do" in run("adopt", "ann").stdout


def test_adopted_data_becomes_the_newest_version_even_if_the_owner_had_deleted_it(
    either_app: Flask, keyed: FlaskClient, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    keyless = either_app.test_client()
    ann = bearer(run("create", "ann").stdout.strip())
    upload(keyed, headers=ann)
    version = keyed.get("/datasets/kunden", headers=ann).json["version"]
    job = keyed.post("/jobs", json={"kind": "classifier", "dataset": "kunden"}, headers=ann).json["id"]
    assert keyed.post(f"/jobs/{job}/cancel", headers=ann).status_code == 202  # the job keeps the deleted data
    assert keyed.delete("/datasets/kunden", headers=ann).status_code == 204
    monkeypatch.setitem(globals(), "TABLE", TABLE.replace("a", "c"))
    upload(keyed, headers=ann)
    monkeypatch.undo()
    upload(keyless)
    assert run("adopt", "ann").exit_code == 0
    assert keyed.get("/datasets/kunden", headers=ann).json["version"] == version


def test_the_owner_of_a_revoked_key_cannot_adopt(
    database: Database, either_app: Flask, run: Callable[..., Result]
) -> None:
    either_app.test_client().post("/jobs", json={"kind": "classifier", "epochs": 1})
    row, _ = keys.create(database, name="old", owner="ann", scope=Scope.SUBMIT)
    keys.revoke(database, row.id)
    rejected = run("adopt", "ann")
    assert rejected.exit_code == 1
    assert "`tapeline keys create` makes a key of one" in " ".join(rejected.output.split())


def test_the_owner_of_a_key_in_the_settings_can_adopt(
    either_app: Flask, make_app: Callable[..., Flask], migrated_url: str, run: Callable[..., Result], tmp_path: Path
) -> None:
    job = either_app.test_client().post("/jobs", json={"kind": "classifier", "epochs": 1}).json["id"]
    key = "chosen-by-the-operator"
    app = make_app(migrated_url, auth=Auth.KEYS, api_keys=(key,))
    environ = {"TAPELINE_HOME": str(tmp_path), "TAPELINE_DATABASE_URL": migrated_url, "TAPELINE_API_KEYS": key}
    owner = keys.of_settings(key).owner
    adopted = CliRunner().invoke(main, ["keys", "adopt", owner], env=environ)
    assert adopted.exit_code == 0, adopted.output
    assert app.test_client().get(f"/jobs/{job}", headers=bearer(key)).status_code == 200
