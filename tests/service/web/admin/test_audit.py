from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest
import structlog
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import DatabaseError
from structlog.testing import capture_logs

from service.access import audit, audit_seals, keys
from service.access.audit import Actor, AuditAction
from service.access.audit_chain import verify
from service.access.keys import Scope
from service.runtime.settings import Auth
from service.storage.database import Database
from service.storage.tables import AuditEntry
from service.web.core.core import EXTENSION, Core
from service.web.gate.access_checks import named_actor

OPERATOR = {"Authorization": "Bearer chosen-by-the-operator"}


def test_every_change_is_recorded_exactly_once(
    make_app: Callable[..., Flask], migrated_url: str, make_worker: Any
) -> None:
    app = make_app(migrated_url, auth=Auth.KEYS, api_keys=("chosen-by-the-operator",))
    core: Core = app.extensions[EXTENSION]
    row, key = keys.create(core.database, name="ann", owner="ann", scope=Scope.SUBMIT, by=Actor(address="terminal"))
    client, worker = app.test_client(), make_worker(app)
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    headers = {"X-Request-Id": "req-1", "Idempotency-Key": "once"}
    job_id = client.post("/jobs", json={"kind": "classifier"}, headers=headers).json["id"]
    client.post("/jobs", json={"kind": "classifier"}, headers=headers)
    client.patch(f"/jobs/{job_id}", json={"name": "digits"})
    worker.claim()
    worker.commit_epoch(1)
    client.post(f"/jobs/{job_id}/pause")
    worker.succeed()
    fork_id = client.post(f"/jobs/{job_id}/fork", json={"overrides": {"epochs": 9}}).json["id"]
    reproduction_id = client.post(f"/jobs/{job_id}/reproduce").json["id"]
    client.post(f"/jobs/{fork_id}/cancel")
    assert client.post(f"/jobs/{fork_id}/cancel").status_code == 409
    for _ in range(2):  # the second time, the export already exists
        client.get(f"/jobs/{job_id}/export/tensorboard").close()
    assert client.delete(f"/jobs/{fork_id}").status_code == 204
    assert client.post("/jobs/job_01J00000000000000000000000/cancel").status_code == 404
    browser = app.test_client()
    for _ in range(3):
        assert browser.post("/session", json={"key": "wrong"}).status_code == 401
    browser.post("/session", json={"key": key})
    browser.delete("/session")
    keys.revoke(core.database, "ann", by=Actor(address="terminal"))
    page = app.test_client().get("/audit", headers=OPERATOR).json
    assert page["next_cursor"] is None
    assert page["next_before"] is None
    entries = [(item["action"], item["subject"]) for item in reversed(page["data"])]
    sessions = [subject for action, subject in entries if action in ("sign_in", "sign_out")]
    assert entries == [
        ("create_key", row.id),
        ("submit", job_id),
        ("change", job_id),
        ("pause", job_id),
        ("fork", fork_id),
        ("reproduce", reproduction_id),
        ("cancel", fork_id),
        ("export", job_id),
        ("delete", fork_id),
        ("sign_in_refused", None),
        ("sign_in", sessions[0]),
        ("sign_out", sessions[0]),
        ("revoke_key", row.id),
    ]
    submitted = page["data"][-2]
    assert (submitted["owner"], submitted["key"]) == ("ann", row.id)
    assert (submitted["address"], submitted["request_id"]) == ("127.0.0.1", "req-1")
    assert key not in str(page)
    assert page["data"][8]["detail"] == {"parent": job_id}


def test_the_audit_log_can_be_filtered_by_action(make_app: Callable[..., Flask], sqlite_url: str) -> None:
    app = make_app(sqlite_url, auth=Auth.KEYS, api_keys=("chosen-by-the-operator",))
    core: Core = app.extensions[EXTENSION]
    client = app.test_client()
    keys.create(core.database, name="k", owner="ann", scope=Scope.SUBMIT, by=Actor())
    assert len(client.get("/audit?action=create_key", headers=OPERATOR).json["data"]) == 1
    assert client.get("/audit?action=delete", headers=OPERATOR).json["data"] == []
    assert client.get("/audit?action=nothing", headers=OPERATOR).status_code == 400


def test_no_name_of_a_detail_collides_with_a_name_of_the_line_or_of_the_code(
    make_app: Callable[..., Flask], migrated_url: str
) -> None:
    """The request that is logged has been carried out: its answer must not fail."""
    app = make_app(migrated_url, auth=Auth.KEYS, api_keys=("chosen-by-the-operator",))
    core: Core = app.extensions[EXTENSION]
    names = {*signature(audit.record).parameters, *signature(structlog.stdlib.BoundLogger.info).parameters}
    names |= {"owner", "address", "action", "event", "level", "timestamp", "request_id", "trace_id", "exc_info"}
    detail = dict.fromkeys(names, "a fact")

    def act() -> None:
        with core.database.write() as session:
            audit.record(session, named_actor(None), AuditAction.CHANGE, "job_1", **detail)

    with capture_logs() as logged, pytest.MonkeyPatch.context() as patched:
        patched.setitem(app.before_request_funcs, None, [*app.before_request_funcs[None], act])
        assert app.test_client().get("/jobs", headers=OPERATOR).status_code == 200
    with core.database.read() as session:
        assert [entry.detail for entry in audit.read(session)] == [detail]
    [line] = [line for line in logged if line["event"] == "audit"]
    assert (line["action"], line["subject"], line["detail"]) == ("change", "job_1", detail)


def test_the_log_can_be_verified_against_the_head_of_its_seals(
    make_app: Callable[..., Flask], migrated_url: str
) -> None:
    app = make_app(migrated_url, auth=Auth.KEYS, api_keys=("chosen-by-the-operator",))
    core: Core = app.extensions[EXTENSION]
    client = app.test_client()
    keys.create(core.database, name="k", owner="ann", scope=Scope.SUBMIT, by=Actor())
    assert client.get("/audit/seals", headers=OPERATOR).json == {"data": [], "next_cursor": None, "next_before": None}
    audit_seals.seal(core.database, grace_s=0)
    client.post("/jobs", json={"kind": "classifier"}, headers=OPERATOR)
    audit_seals.seal(core.database, grace_s=0)
    seals = client.get("/audit/seals", headers=OPERATOR).json["data"]
    assert [(seal["id"], seal["count"]) for seal in seals] == [(2, 1), (1, 1)]
    head = seals[0]["digest"]
    assert verify(audit_seals.items(core.database), head=head).head == head


def test_audit_entries_are_append_only(database: Database) -> None:
    with database.write() as session:
        audit.record(session, Actor(owner="ann"), AuditAction.DELETE, "job_1")
    with pytest.raises(DatabaseError, match="append-only"), database.write() as session:
        session.execute(update(AuditEntry).values(owner="bob"))


def test_a_change_that_is_rolled_back_leaves_no_audit_entry(database: Database) -> None:
    def fail(connection: Connection) -> None:
        audit.record(connection, Actor(owner="ann"), AuditAction.DELETE, "job_1")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.group_commit(fail)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(AuditEntry)) == 0


def test_without_required_keys_nothing_is_recorded(client: FlaskClient, app: Flask) -> None:
    client.post("/jobs", json={"kind": "classifier"})
    core: Core = app.extensions[EXTENSION]
    with core.database.read() as session:
        assert audit.read(session) == []
