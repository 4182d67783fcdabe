"""What workers run on, in what they differ, and how they are drained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update

from service.access import audit, keys
from service.access.keys import Scope
from service.jobs import leases, worker_registry
from service.runtime.settings import Auth
from service.states import Drain
from service.storage.database import Database, now_ms
from service.storage.tables import Worker
from service.web.core.core import EXTENSION
from tests.service.web.admin.test_administration import BROWSER

HASWELL = {
    "numpy": "2.4.1",
    "blas": ["openblas 0.3.30 Haswell"],
    "simd": ["X86_V2", "X86_V3"],
    "machine": "x86_64",
    "libc": "glibc 2.36",
    "code": "sha256:1",
}
SKYLAKE = HASWELL | {"blas": ["openblas 0.3.30 SkylakeX"], "simd": ["X86_V2", "X86_V3", "X86_V4"]}
OTHER_NUMPY = HASWELL | {"numpy": "2.3.0"}


def worker(name: str, provenance: dict[str, Any] | None = None, **values: Any) -> Worker:
    row: dict[str, Any] = {"host": "box", "pid": 7, "slots": 2, "running": 0, "draining": False, "version": "1.0"}
    return Worker(id=f"{name}-7-0123abcd", provenance=provenance, **row | values)


@pytest.fixture
def keyed(make_app: Callable[..., Flask], migrated_url: str) -> Flask:
    return make_app(migrated_url, auth=Auth.KEYS)


@pytest.fixture
def database(either_app: Flask) -> Database:
    core_database: Database = either_app.extensions[EXTENSION].database
    return core_database


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([HASWELL, HASWELL, SKYLAKE], [[], [], ["cpu"]]),
        ([HASWELL, HASWELL, OTHER_NUMPY], [[], [], ["numpy"]]),
        ([HASWELL, HASWELL, HASWELL | {"code": "sha256:2"}], [[], [], ["version"]]),
        ([HASWELL, SKYLAKE], [["cpu"], ["cpu"]]),
        ([HASWELL, None, HASWELL], [[], [], []]),
        ([HASWELL], [[]]),
    ],
)
def test_a_worker_that_differs_from_most_others_is_marked(
    either_app: Flask, database: Database, others: list[dict[str, Any] | None], expected: list[list[str]]
) -> None:
    for number, provenance in enumerate(others):
        worker_registry.record_heartbeat(database, worker(f"w{number}", provenance, cpu="A CPU"))
    client = either_app.test_client()
    listed = sorted(client.get("/workers").json["data"], key=lambda item: item["id"])
    assert [item["differs"] for item in listed] == expected
    assert {item["cpu"] for item in listed} == {"A CPU"}
    assert listed[0]["numpy"] == HASWELL["numpy"]
    page = client.get("/ui/workers", headers=BROWSER).text
    for item in listed:
        assert (item["differs_text"] is not None) is bool(item["differs"])
        assert item["differs_text"] is None or item["differs_text"] in page
        assert ("TAPELINE_PORTABLE_BITS=1" in (item["differs_text"] or "")) is ("cpu" in item["differs"])
    assert page.count(">differs<") == sum(map(bool, expected))


def test_a_drained_worker_claims_nothing_until_it_is_undrained(
    either_app: Flask, database: Database, submit: Any
) -> None:
    client, row = either_app.test_client(), worker("gpu")
    submit(client)
    assert worker_registry.record_heartbeat(database, row) is None
    drained = client.post(f"/workers/{row.id}/drain", json={})
    assert (drained.status_code, drained.json["drain"], drained.json["draining"]) == (202, "release", True)
    assert leases.claim(database, row.id, 15) is None
    assert client.get("/queue").json["reason"] == "no_worker"
    assert worker_registry.record_heartbeat(database, worker("gpu")) is Drain.RELEASE
    assert client.get("/workers").json["data"][0]["draining"] is True, "a heartbeat undoes nothing"
    finishing = client.post(f"/workers/{row.id}/drain", json={"running": "finish"})
    assert finishing.json["drain"] == "finish"
    undrained = client.delete(f"/workers/{row.id}/drain")
    assert (undrained.status_code, undrained.json["drain"], undrained.json["draining"]) == (202, None, False)
    assert worker_registry.record_heartbeat(database, worker("gpu")) is None
    assert leases.claim(database, row.id, 15) is not None


def test_a_worker_whose_process_stops_still_drains_after_it_was_undrained(
    either_app: Flask, database: Database
) -> None:
    row = worker("gpu", draining=True)
    worker_registry.record_heartbeat(database, row)
    answer = either_app.test_client().delete(f"/workers/{row.id}/drain")
    assert (answer.status_code, answer.json["draining"], answer.json["drain"]) == (202, True, None)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_worker_that_is_gone_cannot_be_drained(either_app: Flask, database: Database, method: str) -> None:
    client, row = either_app.test_client(), worker("gpu")
    body = {"json": {}} if method == "POST" else {}
    unknown = client.open(f"/workers/{row.id}/drain", method=method, **body)
    assert (unknown.status_code, unknown.json["code"]) == (404, "worker_not_found")
    assert unknown.json["detail"].startswith(f"there is no worker '{row.id}'")
    worker_registry.record_heartbeat(database, row)
    with database.write() as session:
        session.execute(update(Worker).values(seen_ms=now_ms() - 90_000))
    gone = client.open(f"/workers/{row.id}/drain", method=method, **body)
    assert (gone.status_code, gone.json["code"]) == (404, "worker_not_found")
    assert "is gone: its last heartbeat was 9" in gone.json["detail"]


def test_only_admins_drain_workers_and_that_is_audited(keyed: Flask) -> None:
    database, client, row = keyed.extensions[EXTENSION].database, keyed.test_client(), worker("gpu")
    worker_registry.record_heartbeat(database, row)
    ann, operator = (
        {"Authorization": f"Bearer {keys.create(database, name='k', owner=owner, scope=scope)[1]}"}
        for owner, scope in (("ann", Scope.SUBMIT), ("op", Scope.ADMIN))
    )
    address = f"/workers/{row.id}/drain"
    assert client.post(address, json={}, headers=ann).json["code"] == "scope_missing"
    assert 'data-drain="' not in client.get("/ui/workers", headers=ann | BROWSER).text
    assert f'data-drain="{row.id}"' in client.get("/ui/workers", headers=operator | BROWSER).text
    assert client.post(address, json={"running": "finish"}, headers=operator).status_code == 202
    assert f'data-undrain="{row.id}"' in client.get("/ui/workers", headers=operator | BROWSER).text
    assert client.delete(address, headers=operator).status_code == 202
    with database.read() as session:
        found = [(entry.action, entry.detail) for entry in audit.read(session, subject=row.id)]
    assert found == [("undrain", {}), ("drain", {"running": "finish"})]
