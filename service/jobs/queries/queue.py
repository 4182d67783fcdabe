"""The queue: waiting jobs in the order in which workers claim them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, literal_column, select
from sqlalchemy.orm import Session

from service.states import Status
from service.storage.database import now_ms, visible
from service.storage.tables import Job

CLAIM_ORDER: Final = (Job.priority.desc(), Job.queued_ms, Job.id)
"""The order in which queued jobs are claimed, as in the index ``ix_jobs_waiting``."""
_IS_WAITING: Final = literal_column("status") == literal_column("'queued'")
"""Literals as in the index ``ix_jobs_quota``: SQLite ignores parameter values when it chooses one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A queued job; ``position`` counts from 1 across all owners."""

    job: Job
    position: int
    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The head of the queue."""

    waiting: Sequence[Waiting]
    total: int
    """Queued jobs of all owners."""
    own: int
    """How many of these the reader can see."""


def read(session: Session, *, owner: str | None = None, limit: int = 100) -> Queue:
    """The first queued jobs of an owner (``None``: of all), with their positions in the whole queue."""
    # Claims skip owners at their limit of running jobs, which positions ignore.
    queued = Job.status == Status.QUEUED
    total = session.scalar(select(func.count()).select_from(Job).where(queued)) or 0
    # Select only ids first, which an index has in this order; otherwise the database would sort whole rows.
    if owner is None:
        ids = session.scalars(select(Job.id).where(queued).order_by(*CLAIM_ORDER).limit(limit)).all()
        positions = dict(zip(ids, range(1, len(ids) + 1), strict=True))
        own = total
    else:
        position = func.row_number().over(order_by=CLAIM_ORDER).label("position")
        ranked = select(Job.id, Job.owner, position).where(queued).subquery()
        query = select(ranked.c.id, ranked.c.position).where(ranked.c.owner == owner)
        positions = {row.id: row.position for row in session.execute(query.order_by(ranked.c.position).limit(limit))}
        own = session.scalar(select(func.count()).select_from(Job).where(queued, Job.owner == owner)) or 0
    rows = session.execute(select(Job, now_ms() - Job.queued_ms).where(Job.id.in_(positions))).all()
    waiting = [Waiting(job=job, position=positions[job.id], waited_s=max(0, wait_ms) / 1000) for job, wait_ms in rows]
    return Queue(waiting=sorted(waiting, key=lambda item: item.position), total=total, own=own)


def waiting_by_owner(session: Session) -> dict[str | None, int]:
    """The number of queued jobs of each owner, in descending order."""
    # From indexes alone, owner by owner: a GROUP BY would read every queued job.
    owners = select(func.min(Job.owner).label("name")).where(Job.owner.is_not(None)).cte("owners", recursive=True)
    next_owner = select(func.min(Job.owner)).where(Job.owner > owners.c.name).scalar_subquery()
    owners = owners.union_all(select(next_owner).where(owners.c.name.is_not(None)))
    waiting = select(func.count()).select_from(Job).where(Job.owner == owners.c.name, _IS_WAITING).scalar_subquery()
    rows = session.execute(select(owners.c.name, waiting).where(owners.c.name.is_not(None)))
    counts: dict[str | None, int] = {owner: int(count) for owner, count in rows if count}
    total = session.scalar(select(func.count()).select_from(Job).where(Job.status == Status.QUEUED)) or 0
    if total > sum(counts.values()):
        counts[None] = total - sum(counts.values())
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def running(session: Session, *, owner: str | None = None) -> dict[str, list[Job]]:
    """The running jobs of an owner (``None``: of all), by the id of their worker."""
    is_running = Job.status == Status.RUNNING
    query = select(Job).where(is_running, visible(Job.owner, owner)).order_by(Job.started_ms, Job.id)
    by_worker: dict[str, list[Job]] = {}
    for job in session.scalars(query):
        by_worker.setdefault(job.lease_owner or "", []).append(job)
    return by_worker


def stale_queued(session: Session, *, waited_s: float, limit: int) -> Sequence[str]:
    """Ids of the first jobs of the queue that have waited for at least ``waited_s`` seconds."""
    is_stale = Job.queued_ms < now_ms() - int(waited_s * 1000)
    query = select(Job.id).where(Job.status == Status.QUEUED, is_stale).order_by(*CLAIM_ORDER).limit(limit)
    return session.scalars(query).all()


def count_waiting(session: Session, owner: str, *, at_most: int) -> int:
    """The number of an owner's queued jobs; counting stops at ``at_most``."""
    counted = select(Job.id).where(Job.owner == owner, _IS_WAITING).limit(at_most).subquery()
    return session.scalar(select(func.count()).select_from(counted)) or 0
