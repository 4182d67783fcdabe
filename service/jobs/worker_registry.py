"""The worker processes and their last heartbeats."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.runtime.settings import Settings
from service.states import MachineFaultReason
from service.storage.database import Database, now_ms
from service.storage.tables import Worker

WORKER_GONE_MS: Final = 60_000
_KEEP_GONE_MS: Final = 24 * 60 * 60 * 1000
_MAX_HOST_LENGTH: Final = 40
_MIN_FREE_BYTES: Final = 2**20
_NO_SPACE: Final = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT)]


@dataclass(frozen=True, slots=True)
class Impediment:
    """Why no queued job starts.

    Attributes:
        reason: ``no_worker``, ``storage``, ``dataset`` or ``memory``.
        text: a sentence for people, with the remedy and without paths.
    """

    reason: str
    text: str


_NO_WORKER: Final = Impediment(
    "no_worker",
    "No worker is running: jobs wait in the queue. Start one with: tapeline up, or on another machine: "
    "python -m workers",
)
_ALL_DRAINING: Final = Impediment("no_worker", "All workers are shutting down: jobs wait in the queue.")
_DISK_FULL: Final = Impediment(
    "storage",
    "The disk is full: jobs wait, and continue from their last checkpoint once there is space. "
    "To see what can be deleted: tapeline gc",
)
_FAULTS: Final = {
    MachineFaultReason.STORE: Impediment(
        "storage", "No worker can store files: jobs wait until one can. For details: tapeline doctor"
    ),
    MachineFaultReason.DATASET: Impediment(
        "dataset", "No worker can store the dataset: jobs wait until one can. For details: tapeline doctor"
    ),
    MachineFaultReason.MEMORY: Impediment(
        "memory", "No worker has the memory that the first job needs: jobs wait until other programs release some."
    ),
}


def new_id(settings: Settings) -> str:
    """An id for this worker process: its name, which survives restarts, and two parts that do not."""
    name = settings.worker_name or socket.gethostname()[:_MAX_HOST_LENGTH]
    return f"{name}-{os.getpid()}-{uuid4().hex[:8]}"


def name_of(worker_id: str) -> str:
    """The name of a worker: that of its settings, or of its host. Several workers may have the same."""
    return worker_id.rsplit("-", 2)[0]


def record_heartbeat(database: Database, worker: Worker) -> None:
    """Record a heartbeat of a worker process."""
    names = ("host", "pid", "slots", "running", "draining", "provenance", "blocked")
    values = {name: getattr(worker, name) for name in names} | {"seen_ms": now_ms()}
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


def claiming_workers(session: Session) -> Sequence[Worker]:
    """The live workers that claim jobs."""
    return [worker for worker in live_workers(session) if not worker.draining and worker.blocked is None]


def impediment(session: Session, settings: Settings) -> Impediment | None:
    """Why no worker claims jobs; ``None`` if one does."""
    alive = live_workers(session)
    workers = [worker for worker in alive if not worker.draining]
    if any(worker.blocked is None for worker in workers):
        return None
    # A worker cannot record its heartbeat in a SQLite database on a full disk.
    if not workers and _is_full(settings.artifacts):
        return _DISK_FULL
    if not workers:
        return _ALL_DRAINING if alive else _NO_WORKER
    fault: dict[str, str] = workers[0].blocked or {}
    if any(text in fault["message"] for text in _NO_SPACE):
        return _DISK_FULL
    return _FAULTS[MachineFaultReason(fault["reason"])]


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _MIN_FREE_BYTES
    except OSError:
        return False


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
