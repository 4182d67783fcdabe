"""Whose turn it is: the owner of the most urgent job, or else the one with the least ``due``, by counts of triggers.

Start-time fair queueing over owners. ``vtime`` is the slot-seconds that an owner has used, divided by its weight;
``due`` adds what its running jobs are expected to take; among equals, the least ``load`` decides. So the values of all
that wait stay together, and slot-seconds are shared by the weights: however long the jobs are, and also if there are
fewer slots than owners. See P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, cast

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    String,
    TextClause,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.orm import Session

from service.jobs import transitions, worker_registry
from service.states import Request, Status
from service.storage.database import Database, locking, now_ms
from service.storage.fairness import room
from service.storage.owner_tables import OwnerQueue
from service.storage.tables import Epoch, Job

FIRST_URGENT: Final = 6
"""Jobs of this priority or more start before those of all owners; lower ones order an owner's own jobs."""
_MIN_WAIT_MS: Final = 500
"""How long an urgent job waits for a worker with a free slot before another job must make room."""


def next_owner(session: Session, *, without: Collection[str] = ()) -> str | None:
    """Lock and return the owner whose job is claimed next; ``''``: everybody without a key, ``None``: there is none.

    An owner whose row is locked gets or ends a job at this moment, and the next one is served.

    Args:
        without: owners who are passed over.
    """
    query = _NEXT_FREE_OWNER
    if without:
        query = locking(_NEXT_OWNER.where(OwnerQueue.owner.not_in(without)), skip_locked=True)
    return session.connection().scalar(query)


def first_owner(session: Session) -> str | None:
    """The owner whose job is claimed next, although another transaction may have locked its row."""
    return session.connection().scalar(_NEXT_OWNER)


def lock_owner(session: Session, owner: str) -> bool:
    """Lock an owner, waiting for other transactions; returns whether one of its jobs may be claimed.

    Call it in a transaction that has locked no other one: two that lock two owners, in either order, would wait for
    each other. So would two statements that wait for the next owner who is ready: each keeps those who no longer are.
    """
    return session.connection().scalar(_WAIT_FOR_OWNER, {"waiting": owner}) is not None


def preempt(database: Database) -> str | None:
    """Ask a running job to make room for an urgent one that finds no free slot; returns the id of the former.

    Its worker releases it after the current batch, and it keeps its place in the queue. It is one that is less urgent:
    of the lowest priority, then of the owner with the highest load, then with the least work since its last epoch.
    """
    with database.read() as session:
        victims = _find_victims(session)
    if victims is None:
        return None
    with database.write() as session:
        job = session.scalar(locking(victims, of=Job, skip_locked=True))
        if job is None:
            return None
        job.requested = Request.PREEMPT
        transitions.record_status(session, job, reason="preempt requested")
        return job.id


def _find_victims(session: Session) -> Select[Job] | None:
    """The query for the job that makes room, on the workers whose slots are too few for the urgent jobs that only they
    can run; ``None``: no slot is wanted, or none can be had."""
    if not session.scalar(select(func.max(OwnerQueue.urgent)).where(is_ready())):
        return None
    slots_of = dict(worker_registry.responsive_workers(session))
    workers = list(slots_of)
    is_urgent = and_(is_queued(), Job.priority >= FIRST_URGENT)
    if (version := worker_registry.oldest_spec(workers)) is not None:  # the slot of another worker may be of no use
        is_urgent = and_(is_urgent, worker_registry.is_known(version))
    able: dict[str, frozenset[str]] = {}  # the workers that have a dataset
    if any(worker.datasets is not None for worker in workers):
        for name in session.scalars(select(_dataset_name()).where(is_urgent, Job.upload_id.is_(None)).distinct()):
            able[name] = frozenset(w.id for w in workers if w.datasets is None or name in w.datasets)
    everyone = frozenset(worker.id for worker in workers)
    hopeless = {name for name, ids in able.items() if not ids}
    for ids in sorted({*able.values(), everyone} - {frozenset()}, key=len):
        names = {name for name, has_it in able.items() if has_it <= ids} - hopeless
        runs_here = and_(Job.upload_id.is_(None), _dataset_name().in_(names))
        if ids == everyone:
            runs_here = has_data(names if able else None)
        slots = {worker.id: count for worker, count in slots_of.items() if worker.id in ids}
        jobs, highest = _count_startable(session, and_(is_urgent, runs_here))
        if jobs > _count_free(session, slots):
            victims = _less_urgent(slots, highest)
            if session.scalar(victims) is not None:
                return victims
            hopeless |= names
    return None


def _less_urgent(workers: Collection[str], priority: int) -> Select[Job]:
    urgency = case((Job.priority >= FIRST_URGENT, Job.priority), else_=0)
    last_epoch = select(func.max(Epoch.finished_ms)).where(Epoch.job_id == Job.id).scalar_subquery()
    saved = case((last_epoch > Job.claimed_ms, last_epoch), else_=Job.claimed_ms)
    return (
        select(Job)
        .join(OwnerQueue, OwnerQueue.owner == func.coalesce(Job.owner, ""))
        .where(Job.status == Status.RUNNING, Job.lease_owner.in_(workers))
        .where(Job.requested.is_(None), urgency < priority)
        .order_by(Job.priority, OwnerQueue.load.desc(), saved.desc(), Job.id)
        .limit(1)
    )


def _dataset_name() -> ColumnElement[str]:
    return cast("ColumnElement[str]", Job.resolved[("dataset", "name")].as_string())


def _count_startable(session: Session, condition: ColumnElement[bool]) -> tuple[int, int]:
    """The queued jobs that have room under the caps of their owners, and did not start at once: their number, and the
    highest priority."""
    owner, old_enough = func.coalesce(Job.owner, "").label("owner"), Job.queued_ms <= now_ms() - _MIN_WAIT_MS
    queued = select(owner, func.count().label("jobs"), func.max(Job.priority).label("highest"))
    found = queued.where(condition, old_enough).group_by(owner).subquery()
    rows = select(found.c.jobs, found.c.highest, OwnerQueue).join(OwnerQueue, OwnerQueue.owner == found.c.owner)
    counts = [
        (room.startable(jobs, cap=row.cap, running=row.running, blocked=row.blocked), highest)
        for jobs, highest, row in session.execute(rows)
    ]
    return sum(count for count, _ in counts), max((highest for count, highest in counts if count), default=0)


def _count_free(session: Session, slots: Mapping[str, int]) -> int:
    """How many of these workers' slots are free, or are being freed."""
    freed = func.count(case((Job.requested == Request.PREEMPT, 1)))
    query = select(Job.lease_owner, func.count(), freed).where(Job.status == Status.RUNNING).group_by(Job.lease_owner)
    taken = {worker: (running, freed) for worker, running, freed in session.execute(query)}
    counts = ((count, *taken.get(worker, (0, 0))) for worker, count in slots.items())
    return sum(max(0, count - running) + freed for count, running, freed in counts)


def accrue(database: Database) -> None:
    """Charge the owners of running jobs up to now. A change of an owner's jobs does so for that owner."""
    seconds = OwnerQueue.running * (now_ms() - OwnerQueue.accrued_ms) / 1000.0
    running = locking(select(OwnerQueue.owner).where(OwnerQueue.running > 0), skip_locked=True)
    with database.write() as session:
        session.execute(
            update(OwnerQueue)
            .where(OwnerQueue.owner.in_(running))
            .values(vtime=OwnerQueue.vtime + seconds / OwnerQueue.weight, accrued_ms=now_ms()),
            execution_options={"synchronize_session": False},
        )


def is_ready() -> TextClause:
    """That an owner has a queued job and room for it."""
    return text("owner_queue.ready")  # the text of the index ``ix_owner_queue_next``


def is_queued() -> ColumnElement[bool]:
    """A literal, as in the index ``ix_jobs_lane``: SQLite ignores the values of parameters when it chooses one."""
    return literal_column("jobs.status") == literal_column("'queued'")


def has_data(datasets: Collection[str] | BindParameter[Any] | None) -> ColumnElement[bool]:
    """That a job's data are uploaded, or among the datasets of a worker; ``None``: it has all."""
    if datasets is None:
        return true()
    return or_(Job.upload_id.is_not(None), _dataset_name().in_(datasets))


_NEXT_OWNER: Final = (
    select(OwnerQueue.owner)
    .where(is_ready())
    .order_by(OwnerQueue.urgent.desc(), OwnerQueue.due, OwnerQueue.load, OwnerQueue.owner)
    .limit(1)
)
_NEXT_FREE_OWNER: Final = locking(_NEXT_OWNER, skip_locked=True)
_WAIT_FOR_OWNER: Final = locking(
    select(OwnerQueue.owner).where(OwnerQueue.owner == bindparam("waiting", type_=String), is_ready())
)


def belongs_to(owner: str | BindParameter[str]) -> ColumnElement[bool]:
    """That a job has this owner."""
    return Job.owner.is_(None) if isinstance(owner, str) and not owner else Job.owner == owner
