"""A job's log: appended in the transaction of the change it tells of, read by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.contract.database import now_ms
from service.contract.tables import Event, Job


class EventType(StrEnum):
    """What an event tells of."""

    STATUS = "status"
    METRICS = "metrics"
    SAMPLE = "sample"
    CHECKPOINT = "checkpoint"
    HEALTH = "health"
    LOG = "log"
    END = "end"


def append(session: Session, job_id: str, events: Sequence[tuple[EventType, Mapping[str, Any]]]) -> int:
    """Add events to a job's log and give the number of the last one.

    The numbers come from the job's row, which the transaction has locked or locks here: two writers cannot
    get the same one, and a rolled back transaction leaves no hole.
    """
    last = session.scalar(
        update(Job)
        .where(Job.id == job_id)
        .values(last_seq=Job.last_seq + len(events))
        .returning(Job.last_seq)
        .execution_options(synchronize_session=False)
    )
    if last is None:
        return 0
    first = last - len(events) + 1
    for seq, (kind, data) in enumerate(events, first):
        session.add(Event(job_id=job_id, seq=seq, type=kind, data=dict(data), created_ms=now_ms()))
    return last


def read(session: Session, job_id: str, *, after: int = 0, limit: int = 500) -> Sequence[Event]:
    """Events with a number above ``after``, in order."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq).limit(limit)
    return session.scalars(query).all()


def of_type(session: Session, job_id: str, kind: EventType) -> Sequence[Event]:
    """All events of one type, in order."""
    query = select(Event).where(Event.job_id == job_id, Event.type == kind).order_by(Event.seq)
    return session.scalars(query).all()
