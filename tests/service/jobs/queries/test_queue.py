"""How many slots are wanted, and why jobs wait, as counts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update

from service.access import owners
from service.jobs import leases, worker_registry
from service.jobs.queries import queue
from service.jobs.queries.queue import Demand
from service.storage.database import Database
from service.storage.owner_tables import OwnerQueue
from service.storage.tables import Worker
from tests.service.jobs.conftest import Submit


def demand(database: Database) -> Demand:
    with database.read() as session:
        workers = worker_registry.live_workers(session)
        counts = {"without_data": queue.count_without_data(session), "unknown": queue.count_unknown(session)}
        found = queue.demand(session, workers, **counts)
        assert sum(found.reasons.values()) == sum(queue.waiting_by_owner(session).values())
    return found


def reasons(database: Database) -> dict[str, int]:
    return {reason: count for reason, count in demand(database).reasons.items() if count}


def register(database: Database, slots: int, **values: Any) -> None:
    columns = {"host": "h", "pid": 1, "running": 0, "draining": False} | values
    worker_registry.record_heartbeat(database, Worker(id="w-1-x", slots=slots, **columns))


def test_without_workers_all_jobs_want_a_slot(database: Database, submit: Submit) -> None:
    for owner in ("ann", "bob", None):
        submit(owner=owner)
    assert reasons(database) == {"no_worker": 3}
    assert (demand(database).wanted, demand(database).slots) == (3, 0)
    register(database, 2, blocked={"reason": "store", "message": "m"})
    assert reasons(database) == {"storage": 3}
    register(database, 2, draining=True)
    assert reasons(database) == {"no_worker": 3}


def test_jobs_wait_for_a_share_a_cap_a_quota_or_are_starting(database: Database, submit: Submit) -> None:
    register(database, 3)
    for owner in ("ann", "ann", "ann", "bob", "bob", "carl"):
        submit(owner=owner)
    assert reasons(database) == {"starting": 3, "share": 3}
    owners.set_default_cap(database, 2)
    with database.write() as session:
        session.execute(update(OwnerQueue).where(OwnerQueue.owner == "carl").values(blocked="quota"))
    assert reasons(database) == {"cap": 1, "quota": 1, "starting": 3, "share": 1}
    for _ in range(3):
        leases.claim(database, "w-1-x", 15)
    found = demand(database)
    assert (found.wanted, found.slots, found.reasons["starting"], found.reasons["quota"]) == (4, 3, 0, 1)
    assert found.reasons["cap"] == 1


def test_jobs_on_a_drained_worker_take_no_slot_of_the_others(database: Database, submit: Submit) -> None:
    columns = {"host": "h", "pid": 2, "running": 2, "draining": True, "slots": 2}
    worker_registry.record_heartbeat(database, Worker(id="drained-2-y", **columns))
    register(database, 2)
    for _ in range(4):
        submit(owner="ann")
    for _ in range(2):
        leases.claim(database, "drained-2-y", 15)
    assert reasons(database) == {"starting": 2}
    with database.read() as session:
        assert queue.read(session, owner="ann").reason == "starting"
    leases.claim(database, "w-1-x", 15)
    assert reasons(database) == {"starting": 1}
    assert (demand(database).wanted, demand(database).slots) == (4, 2)


def test_jobs_whose_dataset_no_worker_has_want_no_slot(database: Database, submit: Submit) -> None:
    submit(owner="ann")
    submit(owner="ann")
    register(database, 1, datasets=["another"])
    assert reasons(database) == {"dataset": 2}
    assert demand(database).wanted == 0


def test_a_worker_is_missing_until_one_of_its_name_is_alive(database: Database) -> None:
    def missing() -> int:
        with database.read() as session:
            return worker_registry.count_missing(session)

    register(database, 1)
    assert missing() == 0
    with database.write() as session:
        session.execute(update(Worker).values(seen_ms=Worker.seen_ms - worker_registry.WORKER_GONE_MS - 1))
    assert missing() == 1
    columns = {"host": "h", "pid": 2, "running": 0, "draining": False}
    worker_registry.record_heartbeat(database, Worker(id="w-2-y", slots=1, **columns))
    assert missing() == 0
    worker_registry.deregister(database, "w-2-y")
    with database.write() as session:
        session.execute(update(Worker).values(seen_ms=Worker.seen_ms - worker_registry.MISSING_MS))
    assert missing() == 0
