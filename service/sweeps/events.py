"""The event log of a sweep. Events are appended in the transaction of the change that they describe, under the lock
of the sweep's row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.storage.database import now_ms
from service.storage.sweep_tables import Sweep, SweepEvent


class SweepEventType(StrEnum):
    """Types of a sweep's events."""

    STATUS = "status"
    PROPOSE = "propose"
    RESULT = "result"
    PROMOTE = "promote"
    STOP = "stop"
    EXHAUSTED = "exhausted"
    WINNER = "winner"
    END = "end"


DECISIONS: Final = (
    SweepEventType.PROPOSE,
    SweepEventType.RESULT,
    SweepEventType.PROMOTE,
    SweepEventType.STOP,
    SweepEventType.EXHAUSTED,
    SweepEventType.WINNER,
)
"""Types of the events that are equal in every run of the same sweep."""


def append(session: Session, sweep: Sweep, kind: SweepEventType, data: Mapping[str, Any]) -> None:
    """Append an event. The sweep's row must be locked."""
    sweep.last_seq += 1
    session.add(
        SweepEvent(sweep_id=sweep.id, seq=sweep.last_seq, type=kind.value, data=dict(data), created_ms=now_ms())
    )


def read(
    session: Session, sweep_id: str, *, after: int = 0, limit: int = 500, types: Sequence[SweepEventType] = ()
) -> Sequence[SweepEvent]:
    """Events with a number above ``after``, in order."""
    query = select(SweepEvent).where(SweepEvent.sweep_id == sweep_id, SweepEvent.seq > after)
    if types:
        query = query.where(SweepEvent.type.in_(types))
    return session.scalars(query.order_by(SweepEvent.seq).limit(limit)).all()


def record_status(session: Session, sweep: Sweep, *, reason: str) -> None:
    """Append the event of a state change."""
    append(session, sweep, SweepEventType.STATUS, {"status": sweep.status, "reason": reason})
