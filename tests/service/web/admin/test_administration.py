"""Workers, queue, keys and usage: responses and access control."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from service.access import audit, keys
from service.access.keys import Scope
from service.jobs import worker_registry
from service.runtime.settings import Auth, Quotas
from service.storage.database import Database
from service.storage.tables import Worker
from service.web.core import keyring
from service.web.core.core import EXTENSION, Core
from service.web.core.keyring import LastUse
from tapeline import ApiError, Client
from tests.service.web.markup import one_line
from tests.waiting import wait_until

Submit = Callable[..., str]
Bearer = Callable[..., dict[str, str]]

BROWSER = {"Accept": "text/html,*/*;q=0.8"}


@pytest.fixture
def keyed(make_app: Callable[..., Flask], migrated_url: str) -> Flask:
    return make_app(migrated_url, auth=Auth.KEYS, api_keys=("chosen-by-the-operator",), quotas=Quotas(requests=50))


@pytest.fixture
def bearer(keyed: Flask) -> Bearer:
    core: Core = keyed.extensions[EXTENSION]

    def make(owner: str = "ann", scope: Scope = Scope.SUBMIT) -> dict[str, str]:
        return {"Authorization": f"Bearer {keys.create(core.database, name='k', owner=owner, scope=scope)[1]}"}

    return make


def record_heartbeat(app: Flask, worker_id: str, **values: Any) -> None:
    core: Core = app.extensions[EXTENSION]
    row = {"host": "box", "pid": 7, "slots": 2, "running": 0, "draining": False} | values
    worker_registry.record_heartbeat(core.database, Worker(id=worker_id, **row))


def test_the_queue_lists_jobs_in_the_order_in_which_they_are_claimed(
    either_app: Flask, submit: Submit, make_worker: Any
) -> None:
    client = either_app.test_client()
    for name, priority in (("third", 5), ("first", 9), ("fourth", 5), ("second", 8)):
        submit(client, name=name, priority=priority)
    queue = client.get("/queue").json
    assert [(job["position"], job["name"]) for job in queue["data"]] == [
        (1, "first"),
        (2, "second"),
        (3, "third"),
        (4, "fourth"),
    ]
    assert (queue["total"], queue["own"], queue["owners"]) == (4, 4, {"": 4})
    assert all(job["waited_seconds"] >= 0 for job in queue["data"])
    assert [job["position"] for job in client.get("/queue?limit=2").json["data"]] == [1, 2]
    assert make_worker(either_app).claim().job_id == queue["data"][0]["id"]
    assert [job["name"] for job in client.get("/queue").json["data"]] == ["second", "third", "fourth"]


def test_queue_positions_count_other_owners_jobs_but_reveal_nothing_about_them(keyed: Flask, bearer: Bearer) -> None:
    client, ann, bob = keyed.test_client(), bearer("ann"), bearer("bob")
    operator = bearer("operator", Scope.ADMIN)
    for headers, name in ((bob, "of bob"), (ann, "of ann"), (bob, "of bob too")):
        client.post("/jobs", json={"kind": "classifier", "name": name}, headers=headers)
    queue = client.get("/queue", headers=ann).json
    assert [(job["name"], job["position"]) for job in queue["data"]] == [("of ann", 1)], (
        "owners without running jobs are served by name"
    )
    assert (queue["total"], queue["own"], queue["owners"]) == (3, 1, None)
    assert client.get("/queue", headers=operator).json["owners"] == {"bob": 2, "ann": 1}
    page = one_line(client.get("/ui/queue", headers=ann | BROWSER).text)
    assert "of ann" in page
    assert "bob" not in page
    assert "1 job of 3" in page


def test_a_worker_lists_only_the_jobs_that_the_caller_may_see(keyed: Flask, bearer: Bearer, make_worker: Any) -> None:
    client, ann, bob = keyed.test_client(), bearer("ann"), bearer("bob")
    job = client.post("/jobs", json={"kind": "classifier", "name": "of ann"}, headers=ann).json
    make_worker(keyed).claim()
    record_heartbeat(keyed, "simulated", running=1)
    record_heartbeat(keyed, "leaving", draining=True)
    anns_view = {worker["id"]: worker for worker in client.get("/workers", headers=ann).json["data"]}
    assert [item["id"] for item in anns_view["simulated"]["jobs"]] == [job["id"]]
    assert anns_view["leaving"]["draining"] is True
    bobs_view = {worker["id"]: worker for worker in client.get("/workers", headers=bob).json["data"]}
    assert (bobs_view["simulated"]["running"], bobs_view["simulated"]["jobs"]) == (1, [])
    page = client.get("/ui/workers", headers=ann | BROWSER).text
    assert f'href="/ui/jobs/{job["id"]}"' in page
    assert "draining" in page
    assert "of ann" not in client.get("/ui/workers", headers=bob | BROWSER).text


def test_a_worker_has_the_name_of_its_settings_or_its_host(keyed: Flask, bearer: Bearer) -> None:
    named = worker_registry.new_id(replace(keyed.extensions[EXTENSION].settings, worker_name="gpu-room-2"))
    unnamed = worker_registry.new_id(keyed.extensions[EXTENSION].settings)
    for worker_id in (named, unnamed):
        record_heartbeat(keyed, worker_id)
    client, ann = keyed.test_client(), bearer("ann")
    listed = {item["id"]: item["name"] for item in client.get("/workers", headers=ann).json["data"]}
    assert listed == {named: "gpu-room-2", unnamed: socket.gethostname()[:40]}
    assert "<strong>gpu-room-2</strong>" in client.get("/ui/workers", headers=ann | BROWSER).text


def test_a_key_is_created_shown_once_listed_and_revoked(keyed: Flask, bearer: Bearer) -> None:
    core: Core = keyed.extensions[EXTENSION]
    client, admin = keyed.test_client(), bearer("operator", Scope.ADMIN)
    body = {"name": "laptop", "owner": "carol", "scope": "read", "lifetime_days": 30}
    created = client.post("/keys", json=body, headers=admin)
    assert created.status_code == 201
    key = created.json["key"]
    assert (created.json["owner"], created.json["scope"], created.json["state"]) == ("carol", "read", "valid")
    assert created.json["expires_at"] > created.json["created_at"]
    shown = client.get(created.headers["Location"], headers=admin)  # before its first use, which a thread records
    assert shown.json == {name: value for name, value in created.json.items() if name != "key"}
    carol = {"Authorization": f"Bearer {key}"}
    assert client.get("/session", headers=carol).json["owner"] == "carol"
    for path in ("/keys", "/ui/keys", "/audit"):
        assert key not in client.get(path, headers=admin).text
    revoked = client.post(f"/keys/{created.json['id']}/revoke", headers=admin)
    assert (revoked.status_code, revoked.json["state"]) == (202, "revoked")
    repeated = client.post(f"/keys/{created.json['id']}/revoke", headers=admin)
    assert repeated.json == revoked.json | {"last_used_at": repeated.json["last_used_at"]}
    with core.database.read() as session:
        assert keys.identify(session, key) is None
        entries = [(row.action, row.subject, row.owner) for row in audit.read(session, subject=created.json["id"])]
    assert entries == [("revoke_key", created.json["id"], "operator"), ("create_key", created.json["id"], "operator")]
    listed = client.get("/keys", headers=admin).json
    assert (listed["of_settings"], listed["required"]) == (1, True)
    last_actions = {item["owner"]: item["last_recorded_at"] for item in listed["data"]}
    assert last_actions["operator"] is not None
    assert last_actions["carol"] is None


def test_a_rotated_key_expires_after_the_overlap_and_its_successor_stays_valid(keyed: Flask, bearer: Bearer) -> None:
    core: Core = keyed.extensions[EXTENSION]
    client, admin = keyed.test_client(), bearer("operator", Scope.ADMIN)
    body = {"name": "laptop", "owner": "carol", "scope": "read", "lifetime_days": 30}
    old = client.post("/keys", json=body, headers=admin).json
    answer = client.post(f"/keys/{old['id']}/rotate", json={"overlap_s": 3600}, headers=admin)
    assert answer.status_code == 201
    new = answer.json
    assert answer.headers["Location"] == f"/keys/{new['id']}"
    assert [new[name] for name in ("name", "owner", "scope", "state")] == ["laptop", "carol", "read", "valid"]
    assert pytest.approx(seconds(new["created_at"], new["expires_at"]), abs=1) == 30 * 86400
    assert new["replaces"] | {"last_used_at": None} == client.get(f"/keys/{old['id']}", headers=admin).json
    assert (new["replaces"]["id"], new["replaces"]["replaced_by"]) == (old["id"], new["id"])
    assert seconds(new["created_at"], new["replaces"]["expires_at"]) == pytest.approx(3600, abs=1)
    for key in (old["key"], new["key"]):
        assert client.get("/session", headers={"Authorization": f"Bearer {key}"}).json["owner"] == "carol"
    repeated = client.post(f"/keys/{old['id']}/rotate", json={}, headers=admin)
    assert (repeated.status_code, repeated.json["code"]) == (409, "key_not_rotatable")
    assert (repeated.json["replaced_by"], repeated.json["allowed_actions"]) == (new["id"], ["revoke"])
    for path in ("/keys", "/ui/keys", "/audit"):
        assert new["key"] not in client.get(path, headers=admin).text
    # Without an overlap, the old key becomes invalid at once.
    newest = client.post(f"/keys/{new['id']}/rotate", json={"overlap_s": 0}, headers=admin).json
    assert newest["replaces"]["state"] == "expired"
    with core.database.read() as session:
        assert keys.identify(session, new["key"]) is None
        assert keys.identify(session, newest["key"]) is not None
        [entry] = audit.read(session, subject=old["id"], action="rotate_key")
    assert (entry.owner, entry.detail) == (
        "operator",
        {"name": "laptop", "key_owner": "carol", "new_key": new["id"], "overlap_s": 3600},
    )


def seconds(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def test_the_client_can_rotate_keys(keyed: Flask, serve: Callable[[Flask], str]) -> None:
    core: Core = keyed.extensions[EXTENSION]
    old, _ = keys.create(core.database, name="laptop", owner="ann", scope=Scope.READ)
    with Client(serve(keyed), key="chosen-by-the-operator") as client:
        new = client.rotate_key(old.id, overlap_s=60)
        assert (new["replaces"]["id"], new["key"][:4]) == (old.id, "tpl_")
        assert {item["id"]: item["replaced_by"] for item in client.api_keys()} == {old.id: new["id"], new["id"]: None}
        with pytest.raises(ApiError, match="already rotated"):
            client.rotate_key(old.id)


def test_an_overlap_never_extends_a_key_and_an_expired_or_revoked_key_is_not_rotated(
    keyed: Flask, bearer: Bearer
) -> None:
    core: Core = keyed.extensions[EXTENSION]
    client, admin = keyed.test_client(), bearer("operator", Scope.ADMIN)
    rows = [keys.create(core.database, name="k", owner="ann", scope=Scope.READ, lifetime_s=s)[0] for s in (60, 0, 60)]
    ending, expired, revoked = (row.id for row in rows)
    new = client.post(f"/keys/{ending}/rotate", json={}, headers=admin).json
    assert seconds(new["created_at"], new["replaces"]["expires_at"]) == pytest.approx(60, abs=5)
    keys.revoke_id(core.database, revoked)
    for key_id, state, allowed in ((expired, "expired", ["revoke"]), (revoked, "revoked", [])):
        answer = client.post(f"/keys/{key_id}/rotate", json={}, headers=admin)
        assert (answer.status_code, answer.json["state"], answer.json["allowed_actions"]) == (409, state, allowed)
    for overlap_s in (-1, 30 * 86400 + 1, "1"):
        answer = client.post(f"/keys/{new['id']}/rotate", json={"overlap_s": overlap_s}, headers=admin)
        assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, "#/overlap_s")
    with core.database.read() as session:
        assert len(keys.all_keys(session)) == 5  # the rejected requests created no keys


def test_every_use_of_a_key_is_recorded_even_a_read(
    keyed: Flask, bearer: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "WRITE_INTERVAL_S", 0.01)
    client, admin = keyed.test_client(), bearer("operator", Scope.ADMIN)
    key = client.post("/keys", json={"name": "reader", "owner": "carol", "scope": "read"}, headers=admin).json
    assert key["last_used_at"] is None
    client.get("/jobs", headers={"Authorization": f"Bearer {key['key']}"})
    wait_until(lambda: client.get(f"/keys/{key['id']}", headers=admin).json["last_used_at"], "the record")
    shown = client.get(f"/keys/{key['id']}", headers=admin).json
    assert shown["last_recorded_at"] is None
    assert 0 <= seconds(shown["created_at"], shown["last_used_at"]) < 15


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"owner": "ann"}, "#/name"),
        ({"name": "x", "owner": "no spaces"}, "#/owner"),
        ({"name": "x", "owner": "ann", "scope": "root"}, "#/scope"),
        ({"name": "x", "owner": "ann", "lifetime_days": 0}, "#/lifetime_days"),
        ({"name": "x", "owner": "ann", "digest": "y"}, "#/digest"),
    ],
)
def test_a_fault_in_the_request_for_a_key_has_a_pointer(
    keyed: Flask, bearer: Bearer, body: dict[str, Any], pointer: str
) -> None:
    answer = keyed.test_client().post("/keys", json=body, headers=bearer(scope=Scope.ADMIN))
    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, pointer)


def test_unknown_keys_are_not_found(keyed: Flask, bearer: Bearer) -> None:
    client, admin = keyed.test_client(), bearer(scope=Scope.ADMIN)
    for method, path in (
        ("GET", "/keys/key_000000000000"),
        ("POST", "/keys/key_000000000000/revoke"),
        ("POST", "/keys/key_000000000000/rotate"),
    ):
        answer = client.open(path, method=method, headers=admin, json=None if method == "GET" else {})
        assert (answer.status_code, answer.json["code"]) == (404, "key_not_found")


def test_keys_cannot_be_managed_if_none_are_required(client: FlaskClient) -> None:
    for path, body in (
        ("/keys", {"name": "x", "owner": "ann"}),
        ("/keys/key_000000000000/revoke", {}),
        ("/keys/key_000000000000/rotate", {}),
    ):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json["code"]) == (409, "keys_not_required")
    page = client.get("/ui/keys", headers=BROWSER).text
    assert "Keys are not required" in page
    assert "TAPELINE_AUTH=keys" in page
    assert client.get("/keys").json == {"data": [], "of_settings": 0, "required": False}


def test_usage_reports_jobs_files_and_remaining_quotas(keyed: Flask, bearer: Bearer, make_worker: Any) -> None:
    client, ann, bob = keyed.test_client(), bearer("ann"), bearer("bob")
    client.post("/jobs", json={"kind": "classifier"}, headers=ann)
    worker = make_worker(keyed)
    worker.claim()
    worker.commit_epoch(1)
    worker.succeed()
    client.post("/jobs", json={"kind": "classifier"}, headers=ann)
    client.post("/jobs", json={"kind": "classifier"}, headers=bob)
    [own] = client.get("/usage", headers=ann).json["data"]
    assert (own["owner"], own["jobs"], own["keys"]) == ("ann", {"succeeded": 1, "queued": 1}, 1)
    succeeded = client.get("/jobs?status=succeeded", headers=ann).json["data"]
    files = client.get(f"{succeeded[0]['urls']['artifacts']}", headers=ann).json["data"]
    assert own["artifact_bytes"] == sum(file["size_bytes"] for file in files) > 10_000
    assert 0 < own["requests_left"] < 50
    everyone = client.get("/usage", headers=bearer("operator", Scope.ADMIN)).json["data"]
    assert {item["owner"] for item in everyone} == {"ann", "bob", "operator"}
    assert everyone[0]["owner"] == "ann"
    page = client.get("/ui/usage", headers=bob | BROWSER).text
    assert "ann" not in re.sub(r"<[^>]*>", "", page)


def test_usage_without_keys_covers_all_jobs(client: FlaskClient, submit: Submit) -> None:
    submit(client)
    [item] = client.get("/usage").json["data"]
    assert (item["owner"], item["jobs"], item["requests_left"]) == (None, {"queued": 1}, None)
    assert item["artifact_bytes_left"] is None
    assert item["expected_bytes"] > 0


def test_only_admins_see_the_link_to_the_keys_page(keyed: Flask, bearer: Bearer) -> None:
    client = keyed.test_client()
    for scope in Scope:
        page = client.get("/", headers=bearer(scope=scope) | BROWSER).text
        assert ('href="/ui/keys"' in page) is (scope is Scope.ADMIN)
        assert 'href="/ui/workers"' in page


def test_a_datasets_page_lists_the_callers_jobs_that_use_it(keyed: Flask, bearer: Bearer) -> None:
    client, ann, bob = keyed.test_client(), bearer("ann"), bearer("bob")
    for headers, name in ((ann, "older"), (ann, "newer"), (bob, "of bob")):
        client.post("/jobs", json={"kind": "classifier", "name": name}, headers=headers)
    page = client.get("/ui/datasets/mnist-10k", headers=ann | BROWSER).text
    assert page.index("newer") < page.index("older")
    assert "of bob" not in page
    assert "No job uses this dataset" in client.get("/ui/datasets/mnist", headers=ann | BROWSER).text


def test_key_uses_are_recorded_again_after_the_database_rejected_one(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "WRITE_INTERVAL_S", 0.01)
    with closing(Database(sqlite_url)) as database, database.engine.connect() as connection:
        row, _ = keys.create(database, name="k", owner="ann", scope=Scope.READ)
        recorder = LastUse(database)

        def last_used_ms() -> int | None:
            with database.read() as session:
                return keys.find(session, row.id).last_used_ms

        connection.exec_driver_sql("ALTER TABLE api_keys RENAME TO gone")
        connection.commit()
        rejected = threading.Event()
        event.listen(database.engine, "handle_error", lambda _: rejected.set())
        recorder.note(row.id)
        assert rejected.wait(30)
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO api_keys")
        connection.commit()
        wait_until(lambda: recorder.note(row.id) or last_used_ms(), "the record")
        recorder.close()
