"""What an operator wants to know of all jobs at once. Each query is cheap beside 100,000 jobs; see its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.jobs import worker_registry
from service.jobs.events import EventType
from service.states import Status
from service.storage.database import now_ms
from service.storage.tables import Artifact, Event, Job, Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """How things stand."""

    jobs: Sequence[tuple[str, str, int]]
    """Status, kind, how many."""
    longest_wait_s: float
    """How long the job that waits longest has waited; 0 where none waits."""
    expired_lease_s: float
    """How long ago the first lease of a running job expired; 0 where none did. The scheduler requeues such jobs."""
    workers: Sequence[Worker]
    clock_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """An event of a job's log, with what of the job an operator counts by."""

    type: str
    data: dict[str, Any]
    kind: str
    at_ms: int
    created_ms: int
    started_ms: int | None
    peak_memory_bytes: int | None = None


def now(session: Session) -> Now:
    """Count the jobs (by an index that has all that is asked for) and look at those who work."""
    counts = select(Job.status, Job.kind, func.count()).group_by(Job.status, Job.kind)
    oldest = select(func.min(Job.queued_ms)).where(Job.status == Status.QUEUED)
    first_expiry = select(func.min(Job.lease_expires_ms)).where(Job.status == Status.RUNNING)
    clock_ms = session.scalar(select(now_ms())) or 0
    since_ms = session.scalar(oldest)
    return Now(
        jobs=[(status, kind, count) for status, kind, count in session.execute(counts)],
        longest_wait_s=max(0, clock_ms - since_ms) / 1000 if since_ms is not None else 0.0,
        expired_lease_s=max(0, clock_ms - (session.scalar(first_expiry) or clock_ms)) / 1000,
        workers=worker_registry.live_workers(session),
        clock_ms=clock_ms,
    )


def happened(session: Session, after_ms: int, until_ms: int) -> Sequence[Happened]:
    """What happened in a short time, out of the log's index by time."""
    query = (
        select(
            Event.type, Event.data, Event.created_ms, Job.kind, Job.created_ms, Job.started_ms, Job.peak_memory_bytes
        )
        .join(Job, Job.id == Event.job_id)
        .where(Event.created_ms > after_ms, Event.created_ms <= until_ms)
        .where(Event.type.in_([EventType.STATUS, EventType.METRICS, EventType.END]))
        .order_by(Event.created_ms)
    )
    return [
        Happened(
            type=type_,
            data=data,
            kind=kind,
            at_ms=at_ms,
            created_ms=created_ms,
            started_ms=started_ms,
            peak_memory_bytes=peak,
        )
        for type_, data, at_ms, kind, created_ms, started_ms, peak in session.execute(query)
    ]


def artifact_bytes(session: Session) -> Sequence[tuple[str, int]]:
    """How many bytes the files of each kind have. This one reads all their rows: ask seldom."""
    query = select(Artifact.kind, func.sum(Artifact.size_bytes)).group_by(Artifact.kind)
    return [(kind, int(size)) for kind, size in session.execute(query)]
