"""The worker processes and their last heartbeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.storage.database import Database, now_ms
from service.storage.tables import Worker

WORKER_GONE_MS: Final = 60_000
_KEEP_GONE_MS: Final = 24 * 60 * 60 * 1000


def record_heartbeat(database: Database, worker: Worker) -> None:
    """Record a heartbeat of a worker process."""
    values = {
        "host": worker.host,
        "pid": worker.pid,
        "slots": worker.slots,
        "running": worker.running,
        "draining": worker.draining,
        "provenance": worker.provenance,
        "blocked": worker.blocked,
        "seen_ms": now_ms(),
    }
    insert = database.insert(Worker).values(id=worker.id, started_ms=now_ms(), **values)
    with database.write() as session:
        session.execute(insert.on_conflict_do_update(index_elements=[Worker.id], set_=values))


def deregister(database: Database, worker_id: str) -> None:
    """Delete the row of a worker process that ends."""
    with database.write() as session:
        session.execute(delete(Worker).where(Worker.id == worker_id))


def live_workers(session: Session) -> Sequence[Worker]:
    """The worker processes with a heartbeat within the last minute."""
    is_live = Worker.seen_ms > now_ms() - WORKER_GONE_MS
    return session.scalars(select(Worker).where(is_live).order_by(Worker.started_ms)).all()


def blocked_reasons(workers: Sequence[Worker]) -> list[str]:
    """The reasons for which workers claim no jobs."""
    return sorted({worker.blocked["reason"] for worker in workers if worker.blocked is not None})


def provenances(session: Session) -> list[dict[str, Any]]:
    """The distinct provenances of the live workers that are not draining."""
    distinct: list[dict[str, Any]] = []
    for worker in live_workers(session):
        if worker.provenance is not None and not worker.draining and worker.provenance not in distinct:
            distinct.append(worker.provenance)
    return distinct


def purge_expired(database: Database) -> None:
    """Delete the rows of workers without a heartbeat for a day."""
    with database.write() as session:
        session.execute(delete(Worker).where(Worker.seen_ms < now_ms() - _KEEP_GONE_MS))
