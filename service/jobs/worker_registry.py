"""The worker processes and their last heartbeats."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.runtime.settings import Settings
from service.storage.database import Database, now_ms
from service.storage.machine_tables import Worker

WORKER_GONE_MS: Final = 60_000
_KEEP_GONE_MS: Final = 24 * 60 * 60 * 1000
_MAX_HOST_LENGTH: Final = 40


def new_id(settings: Settings) -> str:
    """An id for this worker process: its name, which survives restarts, and two parts that do not."""
    name = settings.worker_name or socket.gethostname()[:_MAX_HOST_LENGTH]
    return f"{name}-{os.getpid()}-{uuid4().hex[:8]}"


def name_of(worker_id: str) -> str:
    """The name of a worker: that of its settings, or of its host. Several workers may have the same."""
    return worker_id.rsplit("-", 2)[0]


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
