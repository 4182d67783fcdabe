"""The worker processes and their last heartbeats."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import BindParameter, ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

from service.access.audit import Actor, AuditAction, record
from service.errors import WorkerNotFound
from service.runtime.settings import Settings
from service.spec.versions import RELEASES
from service.states import Drain, JobKind, MachineFaultReason
from service.storage.database import Database, now_ms
from service.storage.tables import JOBS, Job, Worker

HEARTBEAT_INTERVAL_S: Final = 5.0
"""How often a worker records a heartbeat, at least, and then looks for jobs."""
_SILENT_MS: Final = int(2 * HEARTBEAT_INTERVAL_S * 1000)
"""A worker has missed its heartbeats: it claims no job now."""
WORKER_GONE_MS: Final = 60_000
"""A worker that is silent for so long is no longer shown."""
MISSING_MS: Final = 60 * 60 * 1000
"""How long a worker that fell silent without deregistering is missed."""
COMMIT_BOUNDS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the histogram of commit latencies in the totals of a worker; one more count is above the last."""
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
    "No worker is running: jobs wait in the queue. Start one with: tapeline up, or on another machine: tapeline worker",
)
_ALL_DRAINING: Final = Impediment(
    "no_worker",
    "All workers are shutting down or drained: jobs wait in the queue. To undrain one: tapeline workers undrain WORKER",
)
_DISK_FULL: Final = Impediment(
    "storage",
    "The disk is full: jobs wait, and continue from their last checkpoint once there is space. "
    "To see what can be deleted: tapeline gc",
)
_FAULTS: Final = {
    MachineFaultReason.STORE: Impediment(
        "storage",
        "No worker can store files: jobs wait; those that have begun fail after TAPELINE_STORE_TIMEOUT_S. For details: "
        "tapeline doctor",
    ),
    MachineFaultReason.DATASET: Impediment(
        "dataset", "No worker can store the dataset: jobs wait until one can. For details: tapeline doctor"
    ),
    MachineFaultReason.MEMORY: Impediment(
        "memory", "No worker has the memory that the first job needs: jobs wait until other programs release some."
    ),
}
KINDS: Final = [kind.value for kind in JobKind]


_REPORTED: Final = tuple(
    column.key for column in Worker.__table__.columns if column.key not in ("id", "started_ms", "seen_ms", "drain")
)
"""The columns of a worker's row that a heartbeat overwrites."""
_HEARTBEATS: Final[dict[bool, ReturningInsert[str | None]]] = {}
"""The statement of a heartbeat, which is made once: for SQLite, and for PostgreSQL."""


def new_id(settings: Settings) -> str:
    """An id for this worker process: its name, which survives restarts, and two parts that do not."""
    name = settings.worker_name or socket.gethostname()[:_MAX_HOST_LENGTH]
    return f"{name}-{os.getpid()}-{uuid4().hex[:8]}"


def name_of(worker_id: str) -> str:
    """The name of a worker: that of its settings, or of its host. Several workers may have the same."""
    return worker_id.rsplit("-", 2)[0]


def cpu_name() -> str:
    """The name of this machine's processor, for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [
        value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == "model name"
    ]
    return (names[0] if names else platform.processor() or platform.machine())[:200]


def record_heartbeat(database: Database, worker: Worker) -> Drain | None:
    """Record a heartbeat of a worker process; returns how it is to be drained. If ``worker`` has a ``drain``, that is
    stored, too."""
    statement = _HEARTBEATS.get(database.is_sqlite)
    if statement is None:
        statement = _HEARTBEATS[database.is_sqlite] = _heartbeat_statement(database)
    values = {name: getattr(worker, name) for name in ("id", "drain", *_REPORTED)}
    drain = database.run_alone(lambda connection: connection.scalar(statement, values), writes=True)
    return Drain(drain) if drain else None


def _heartbeat_statement(database: Database) -> ReturningInsert[str | None]:
    insert = database.insert(Worker).values(started_ms=now_ms(), seen_ms=now_ms())
    new = insert.excluded
    changed: dict[str, Any] = {name: new[name] for name in _REPORTED}
    changed["seen_ms"] = now_ms()
    changed["drain"] = func.coalesce(new.drain, Worker.drain)
    changed["draining"] = or_(new.draining, Worker.drain.is_not(None))
    return insert.on_conflict_do_update(index_elements=[Worker.id], set_=changed).returning(Worker.drain)


def drain(database: Database, worker_id: str, running: Drain, *, by: Actor | None = None) -> None:
    """Order a worker to claim no more jobs, and to release or finish those that it runs. It sees that at its next
    heartbeat.

    Raises:
        WorkerNotFound: there is no such worker, or it is gone.
    """
    with database.write() as session:
        find_live(session, worker_id)
        session.execute(update(Worker).where(Worker.id == worker_id).values(drain=running, draining=True))
        record(session, by, AuditAction.DRAIN, worker_id, running=running)


def undrain(database: Database, worker_id: str, *, by: Actor | None = None) -> None:
    """Let a drained worker claim jobs again; one whose process stops is not changed.

    Raises:
        WorkerNotFound: there is no such worker, or it is gone.
    """
    with database.write() as session:
        if find_live(session, worker_id).drain is not None:
            session.execute(update(Worker).where(Worker.id == worker_id).values(drain=None, draining=False))
            record(session, by, AuditAction.UNDRAIN, worker_id)


def find_live(session: Session, worker_id: str) -> Worker:
    """A worker that is alive.

    Raises:
        WorkerNotFound: there is no such worker, or it is gone.
    """
    row = session.get(Worker, worker_id)
    silent_ms = (session.scalar(select(now_ms())) or 0) - row.seen_ms if row is not None else 0
    if row is None or silent_ms >= WORKER_GONE_MS:
        raise WorkerNotFound(worker_id, None if row is None else silent_ms // 1000)
    return row


def deregister(database: Database, worker_id: str) -> None:
    """Delete the row of a worker process that ends."""
    with database.write() as session:
        session.execute(delete(Worker).where(Worker.id == worker_id))


def live_workers(session: Session) -> Sequence[Worker]:
    """The worker processes with a heartbeat within the last minute."""
    is_live = Worker.seen_ms > now_ms() - WORKER_GONE_MS
    return session.scalars(select(Worker).where(is_live).order_by(Worker.started_ms)).all()


def count_missing(session: Session) -> int:
    """The number of names of workers that fell silent within the last hour without deregistering, and none of which has
    a live worker: a machine is lost, or its process was killed and not started again."""
    rows = session.execute(
        select(Worker.id, Worker.seen_ms > now_ms() - WORKER_GONE_MS).where(Worker.seen_ms > now_ms() - MISSING_MS)
    ).all()
    return len({name_of(name) for name, _ in rows} - {name_of(name) for name, is_live in rows if is_live})


def reason_for_none(workers: Sequence[Worker]) -> str | None:
    """Why none of these live workers claims jobs, as of ``Impediment``; ``None`` if one does."""
    claiming = [worker for worker in workers if not worker.draining]
    if any(worker.blocked is None for worker in claiming):
        return None
    return _FAULTS[MachineFaultReason((claiming[0].blocked or {})["reason"])].reason if claiming else _NO_WORKER.reason


def claiming_workers(session: Session) -> Sequence[Worker]:
    """The live workers that claim jobs."""
    return [worker for worker in live_workers(session) if is_claiming(worker)]


def responsive_workers(session: Session) -> Sequence[tuple[Worker, int]]:
    """The workers that claim jobs and have missed no heartbeats, each with the slots in which it starts jobs.

    A process that is killed leaves its row behind. The row of the one that replaces it, of its name and on its host,
    shows at once that it is dead. The new one has no slot until its next heartbeat: it may end as the other did.
    """
    now = session.scalar(select(now_ms())) or 0
    siblings: dict[tuple[str, str], list[Worker]] = {}
    for worker in live_workers(session):
        siblings.setdefault((name_of(worker.id), worker.host), []).append(worker)
    found: list[tuple[Worker, int]] = []
    for workers in siblings.values():
        silent = [worker for worker in workers if worker.seen_ms < now - _SILENT_MS or _is_replaced(worker, workers)]
        for worker in workers:
            if worker not in silent and is_claiming(worker):
                is_proven = not silent or worker.seen_ms - worker.started_ms >= HEARTBEAT_INTERVAL_S * 1000
                found.append((worker, worker.slots if is_proven else 0))
    return found


def _is_replaced(worker: Worker, siblings: Sequence[Worker]) -> bool:
    return any(other.started_ms > worker.seen_ms for other in siblings if other is not worker)


def is_claiming(worker: Worker) -> bool:
    """Whether a live worker claims jobs."""
    return not worker.draining and worker.blocked is None


def datasets(workers: Sequence[Worker]) -> set[str] | None:
    """The datasets, besides uploads, that at least one of these workers has; ``None``: all."""
    if any(worker.datasets is None for worker in workers):
        return None
    return {name for worker in workers for name in worker.datasets or ()}


def is_known(version: int | BindParameter[int]) -> ColumnElement[bool]:
    """That the spec of a job is of this version or older, and of a kind that this code knows."""
    return and_(JOBS.c.spec_version <= version, JOBS.c.kind.in_(KINDS))


def newest_spec(workers: Sequence[Worker]) -> int | None:
    """The newest version that one of these workers claims; ``None``: none is alive, or one of an earlier release, which
    does not tell, claims every job."""
    versions = [worker.spec_version for worker in workers]
    return max((version or 0 for version in versions), default=None) if None not in versions else None


def oldest_spec(workers: Sequence[Worker]) -> int | None:
    """The newest version that all of these workers claim; ``None``: all claim every job."""
    return min((worker.spec_version for worker in workers if worker.spec_version is not None), default=None)


def reason_to_wait(job: Job, version: int | None) -> str | None:
    """Why no worker claims a job, with the remedy; ``None``: one does.

    Args:
        version: as of ``newest_spec``.
    """
    if version is None or (job.spec_version <= version and job.kind in KINDS):
        return None
    release = RELEASES.get(job.spec_version) if job.kind in KINDS else None
    needed = f"of Tapeline {release} or newer" if release else "of a newer release of Tapeline than this service"
    return f"no worker knows this kind of spec: it needs one {needed}, so upgrade the workers"


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


def builds(workers: Sequence[Worker]) -> list[dict[str, Any]]:
    """For each worker, what decides the bits of its results: ``version``, ``cpu`` and ``numpy``, each ``None`` where it
    is not known yet."""
    return [_build(worker.version, worker.provenance or {}) for worker in workers]


def _build(version: str | None, provenance: Mapping[str, Any]) -> dict[str, Any]:
    if not provenance:
        return {"version": None, "cpu": None, "numpy": None}
    libraries = [
        text.split(" ") for text in provenance.get("blas", ())
    ]  # as of provenance.machine: name, version, processor
    return {
        "version": (version, provenance.get("code")),
        "cpu": (provenance.get("machine"), *provenance.get("simd", ()), *(" ".join(parts[2:]) for parts in libraries)),
        "numpy": (provenance.get("numpy"), *(" ".join(parts[:2]) for parts in libraries), provenance.get("libc")),
    }


def differences(workers: Sequence[Worker]) -> dict[str, list[str]]:
    """In what each worker differs from most of them, by its id: ``version``, ``cpu`` or ``numpy``."""
    known = dict(zip([worker.id for worker in workers], builds(workers), strict=True))
    found: dict[str, list[str]] = {worker_id: [] for worker_id in known}
    for name in ("version", "cpu", "numpy"):
        counts = Counter(build[name] for build in known.values() if build[name] is not None).most_common(2)
        # If none is more frequent than the others, every one differs from some.
        usual = counts[0][0] if len(counts) == 1 or (counts and counts[0][1] > counts[1][1]) else None
        for worker_id, build in known.items():
            if len(counts) > 1 and build[name] is not None and build[name] != usual:
                found[worker_id].append(name)
    return found


_DIFFERENCES: Final = {
    "version": "runs another version of Tapeline",
    "cpu": "has another CPU kind",
    "numpy": "has another NumPy or BLAS build",
}


def difference_text(names: Sequence[str]) -> str:
    """A sentence about the differences of a worker, with the remedy; empty if there is none."""
    if not names:
        return ""
    what = " and ".join(_DIFFERENCES[name] for name in names)
    remedies = ["install the same image everywhere"] if {"version", "numpy"} & set(names) else []
    remedies += ["set TAPELINE_PORTABLE_BITS=1 on all x86-64 workers"] if "cpu" in names else []
    return (
        f"It {what}: results may differ from those of other workers in the last bits, and a job that moves is marked "
        f"mixed_provenance; {' and '.join(remedies)}."
    )


def purge_expired(database: Database) -> None:
    """Delete the rows of workers without a heartbeat for a day."""
    with database.write() as session:
        session.execute(delete(Worker).where(Worker.seen_ms < now_ms() - _KEEP_GONE_MS))
