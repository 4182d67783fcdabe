"""In a rolling upgrade, jobs that a worker does not know stay in the queue, and the queue says why."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from service.jobs import leases, owner_queue, worker_registry
from service.jobs.queries import queue
from service.spec.versions import SPEC_VERSION
from service.states import Status
from service.storage.database import Database
from service.storage.tables import Job, Worker
from tests.service.jobs.conftest import Submit, claim, read_job

NEWER = SPEC_VERSION + 1


def start_worker(database: Database, name: str, spec_version: int | None) -> None:
    columns = {"host": "h", "pid": 1, "slots": 1, "running": 0, "draining": False}
    worker_registry.record_heartbeat(database, Worker(id=f"{name}-1-x", spec_version=spec_version, **columns))


def change(database: Database, job_id: str, **values: object) -> None:
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(values))


def reason(database: Database, job_id: str) -> tuple[str | None, str | None]:
    with database.read() as session:
        found = queue.read_one(session, session.get_one(Job, job_id))
    return found.reason, found.reason_text


def counted(database: Database) -> int:
    with database.read() as session:
        return sum(queue.count_unknown(session).values())


def test_a_job_of_a_newer_version_waits_for_a_worker_that_knows_it(
    database: Database, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_registry, "RELEASES", {SPEC_VERSION: "0.2.0", NEWER: "9.9.0"})
    start_worker(database, "old", SPEC_VERSION)
    newer, other = submit(owner="ann", priority=5), submit(owner="ann")
    of_bob = submit(owner="bob")
    change(database, newer, spec_version=NEWER)
    taken = {claim(database, "old-1-x").job_id for _ in range(2)}
    assert taken == {other, of_bob}, "the jobs behind it are claimed, those of other owners, too"
    assert leases.claim(database, "old-1-x", 15) is None
    assert read_job(database, newer).status == Status.QUEUED
    assert reason(database, newer) == (
        "no_worker",
        "no worker knows this kind of spec: it needs one of Tapeline 9.9.0 or newer, so upgrade the workers",
    )
    assert counted(database) == 1
    start_worker(database, "new", NEWER)
    assert reason(database, newer)[0] != "no_worker"
    assert counted(database) == 0
    held = leases.claim(database, "new-1-x", 15, spec_version=NEWER)
    assert held is not None
    assert held.job_id == newer


def test_a_job_of_an_unknown_kind_waits(database: Database, submit: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    start_worker(database, "old", SPEC_VERSION)
    job_id = submit()
    change(database, job_id, kind="hologram")
    assert leases.claim(database, "old-1-x", 15, spec_version=NEWER) is None
    assert read_job(database, job_id).status == Status.QUEUED
    why, sentence = reason(database, job_id)
    assert why == "no_worker"
    assert "needs one of a newer release of Tapeline than this service" in str(sentence)
    monkeypatch.setattr(worker_registry, "KINDS", [*worker_registry.KINDS, "hologram"])
    leases._taking.cache_clear()
    try:
        assert claim(database, "new-1-x").job_id == job_id
    finally:
        leases._taking.cache_clear()


def test_no_job_makes_room_for_an_urgent_one_that_its_worker_does_not_know(database: Database, submit: Submit) -> None:
    start_worker(database, "old", SPEC_VERSION)
    low = submit()
    claim(database, "old-1-x")
    urgent = submit(owner="ann", priority=9)
    change(database, urgent, spec_version=NEWER, queued_ms=1)
    assert owner_queue.preempt(database) is None
    change(database, urgent, spec_version=SPEC_VERSION)
    assert owner_queue.preempt(database) == low


def test_a_worker_of_an_earlier_release_claims_every_job(database: Database, submit: Submit) -> None:
    start_worker(database, "old", None)
    job_id = submit()
    change(database, job_id, spec_version=NEWER)
    assert reason(database, job_id)[0] == "starting"
