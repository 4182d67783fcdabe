"""Statistics of all jobs, for metrics and pages. Unless said otherwise, each query is cheap with 100,000 jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from service.jobs import worker_registry
from service.jobs.events import DETERMINISM_VIOLATION, EventType
from service.states import Status
from service.storage.database import now_ms
from service.storage.tables import Artifact, Event, Job, Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSnapshot:
    """The current state of the service."""

    jobs: Sequence[tuple[str, str, int]]
    """Status, kind and count."""
    longest_wait_s: float
    """Waiting time of the oldest queued job; 0 if none is queued."""
    expired_lease_s: float
    """Time since the oldest expired lease of a running job expired; 0 if none. The scheduler requeues such jobs."""
    workers: Sequence[Worker]
    missing_workers: int
    """As of ``worker_registry.count_missing``."""
    clock_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """An event, with the attributes of its job that metrics need."""

    type: str
    data: dict[str, Any]
    kind: str
    at_ms: int
    created_ms: int
    started_ms: int | None
    peak_memory_bytes: int | None = None


def now(session: Session) -> ServiceSnapshot:
    """Count the jobs, by a covering index, and list the workers."""
    counts = select(Job.status, Job.kind, func.count()).group_by(Job.status, Job.kind)
    oldest = select(func.min(Job.queued_ms)).where(Job.status == Status.QUEUED)
    first_expiry = select(func.min(Job.lease_expires_ms)).where(Job.status == Status.RUNNING)
    clock_ms = session.scalar(select(now_ms())) or 0
    since_ms = session.scalar(oldest)
    return ServiceSnapshot(
        jobs=[(status, kind, count) for status, kind, count in session.execute(counts)],
        longest_wait_s=max(0, clock_ms - since_ms) / 1000 if since_ms is not None else 0.0,
        expired_lease_s=max(0, clock_ms - (session.scalar(first_expiry) or clock_ms)) / 1000,
        workers=worker_registry.live_workers(session),
        missing_workers=worker_registry.count_missing(session),
        clock_ms=clock_ms,
    )


def events_between(session: Session, after_ms: int, until_ms: int) -> Sequence[EventRecord]:
    """The events of an interval, found by the index on time; keep it short."""
    query = (
        select(
            *(Event.type, Event.data, Job.kind, Event.created_ms.label("at_ms")),
            *(Job.created_ms, Job.started_ms, Job.peak_memory_bytes),
        )
        .join(Job, Job.id == Event.job_id)
        .where(Event.created_ms > after_ms, Event.created_ms <= until_ms)
        .where(
            or_(
                Event.type.in_([EventType.STATUS, EventType.END]),
                # Epochs that were reused from another job were not trained.
                and_(Event.type == EventType.METRICS, Event.data["epoch"].as_integer() > Job.reused_epochs),
                and_(Event.type == EventType.LOG, Event.data["code"].as_string() == DETERMINISM_VIOLATION),
            )
        )
        .order_by(Event.created_ms)
    )
    return [EventRecord(**row) for row in session.execute(query).mappings()]


def artifact_bytes(session: Session) -> Sequence[tuple[str, int]]:
    """The size of all files by kind. It reads all their rows, so call it rarely."""
    query = select(Artifact.kind, func.sum(Artifact.size_bytes)).group_by(Artifact.kind)
    return [(kind, int(size)) for kind, size in session.execute(query)]


def largest_owner_bytes(session: Session) -> int:
    """The size of the files of the owner who has most, by a covering index; 0 if no job has an owner."""
    sums = select(func.sum(Job.size_bytes).label("size")).where(Job.owner.is_not(None)).group_by(Job.owner).subquery()
    return int(session.scalar(select(func.max(sums.c.size))) or 0)
