"""The events of a job, appended in the transaction of the change that they describe, and read by number."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Text, and_, cast, func, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from service.states import ErrorCode, Reason, Status
from service.storage.database import now_ms
from service.storage.insertions import insert_many
from service.storage.tables import EVENTS, Event, Job


class EventType(StrEnum):
    """What an event describes."""

    STATUS = "status"
    METRICS = "metrics"
    SAMPLE = "sample"
    CHECKPOINT = "checkpoint"
    HEALTH = "health"
    LOG = "log"
    END = "end"


class Level(StrEnum):
    """How severe an event is; each level includes those after it."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


MAX_SEQ: Final = 2**62
"""Above every event's number."""
MIXED_PROVENANCE: Final = "mixed_provenance"
"""Code of the log entry of a job that was continued under another provenance."""
DETERMINISM_VIOLATION: Final = "determinism_violation"
"""Code of the log entry of an epoch that was trained again and was not bit-identical."""
_WORKER_LOST: Final = (Reason.LOST.value, ErrorCode.WORKER_LOST.value)
"""The reasons of a worker loss: the job is queued again, or has failed."""
TIMED_OUT: Final = "timed out"
"""How the message of a worker loss ends if the lease expired; otherwise, the training process died."""
_OLD_WORKER_LOST: Final = "worker lost"
"""What the reason of a worker loss began with until 0.2; stored events are not rewritten."""


NewEvent = tuple[EventType, Mapping[str, Any]]
"""The type and the data of an event to append."""


def append(session: Session, job_id: str, events: Sequence[NewEvent]) -> int:
    """Append events to a job's log; returns the number of the last one.

    The numbers come from the job's row, which is locked: two writers cannot get the same number, and a rolled back
    transaction leaves no gap.
    """
    row = session.execute(
        update(Job)
        .where(Job.id == job_id)
        .values(last_seq=Job.last_seq + len(events))
        .returning(Job.last_seq, now_ms())
        .execution_options(synchronize_session=False)
    ).first()
    if row is None:
        return 0
    last, now = row
    insert_many(session.connection(), EVENTS, rows(job_id, events, last - len(events), now))
    job = session.identity_map.get(identity_key(Job, job_id))
    if job is not None:
        set_committed_value(job, "last_seq", last)
    return int(last)


def rows(job_id: str, events: Sequence[NewEvent], after: int, now: int) -> list[dict[str, Any]]:
    """The rows of events, numbered from the last one's number."""
    return [
        {"job_id": job_id, "seq": seq, "type": kind.value, "data": dict(data), "created_ms": now}
        for seq, (kind, data) in enumerate(events, after + 1)
    ]


def log(session: Session, job_id: str, level: str, code: str, message: str, **more: Any) -> None:
    """Append a line of the log."""
    append(session, job_id, [(EventType.LOG, {"level": level, "code": code, "message": message, **more})])


def read(session: Session, job_id: str, *, after: int = 0, limit: int = 500) -> Sequence[Event]:
    """Events with a number above ``after``, in order."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq).limit(limit)
    return session.scalars(query).all()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events of a log to read; ``None`` and empty mean any."""

    types: Sequence[EventType] = ()
    level: Level | None = None
    """At least this severe."""
    text: str | None = None
    """Text that the event's data contain, case-insensitive."""


def select_from_log(
    session: Session,
    job_id: str,
    event_filter: EventFilter,
    *,
    after: int = 0,
    before: int | None = None,
    limit: int = 500,
) -> Sequence[Event]:
    """Some events of a job's log, in order: the first ``limit`` after a number, or the last ``limit`` before one."""
    query = select(Event).where(Event.job_id == job_id, Event.seq > after)
    if event_filter.types:
        query = query.where(Event.type.in_(event_filter.types))
    if event_filter.level is not None and event_filter.level is not Level.INFO:
        query = query.where(_is_at_least(event_filter.level))
    if event_filter.text:
        # In stored JSON, non-ASCII letters are escaped.
        pattern = json.dumps(event_filter.text.lower())[1:-1]
        text = func.lower(cast(Event.data, Text))
        query = query.where(or_(text.contains(pattern, autoescape=True), Event.type.contains(pattern, autoescape=True)))
    if before is None:
        return session.scalars(query.order_by(Event.seq).limit(limit)).all()
    return session.scalars(query.where(Event.seq < before).order_by(Event.seq.desc()).limit(limit)).all()[::-1]


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some events of a log, in order."""

    rows: Sequence[Event]
    has_more: bool
    """Whether there are more: earlier ones for a page before a number, otherwise later ones."""


def page(
    session: Session, job_id: str, event_filter: EventFilter, *, after: int = 0, before: int | None = None, limit: int
) -> LogPage:
    """The events that ``select_from_log`` selects, and whether there are more."""
    rows = select_from_log(session, job_id, event_filter, after=after, before=before, limit=limit + 1)
    return LogPage(rows[:limit] if before is None else rows[-limit:], len(rows) > limit)


def level_of(event: Event) -> Level:
    """How severe an event is."""
    data = event.data
    match event.type:
        case EventType.LOG:
            return Level(data["level"]) if data.get("level") in list(Level) else Level.INFO
        case EventType.HEALTH if data.get("state") == "found":
            return Level.ERROR if data.get("severity") == Level.ERROR else Level.WARNING
        case EventType.STATUS | EventType.END if data.get("status") == Status.FAILED:
            return Level.ERROR
        case EventType.STATUS if is_worker_lost(str(data.get("reason"))):
            return Level.WARNING
    return Level.INFO


def is_worker_lost(reason: str) -> bool:
    """Whether the reason of a status event is a worker loss, including the one that failed the job."""
    return reason.startswith(_OLD_WORKER_LOST) or reason in _WORKER_LOST


def is_lease_expiry(data: Mapping[str, Any]) -> bool:
    """Whether a status event is the loss of a worker that did not renew its lease."""
    return is_worker_lost(str(data.get("reason"))) and str(data.get("message", "")).endswith(TIMED_OUT)


def reason_to_wait(session: Session, job: Job) -> Reason | None:
    """Why a job is queued or paused again; ``None`` if its user queued or paused it, or if it does not wait."""
    if job.status not in (Status.QUEUED, Status.PAUSED):
        return None
    reason = Event.data["reason"].as_string()
    query = select(reason).where(Event.job_id == job.id, Event.type == EventType.STATUS, reason != "changed")
    last = session.scalar(query.order_by(Event.seq.desc()).limit(1))
    return Reason(last) if last in list(Reason) else None


def _is_at_least(level: Level) -> ColumnElement[bool]:
    """``level_of`` in SQL, for warnings and errors."""

    def member(name: str) -> ColumnElement[str]:
        value: ColumnElement[str] = Event.data[name].as_string()
        return value

    failed = and_(Event.type.in_([EventType.STATUS, EventType.END]), member("status") == Status.FAILED)
    logged = and_(Event.type == EventType.LOG, member("level") == Level.ERROR)
    new_finding = and_(Event.type == EventType.HEALTH, member("state") == "found")
    errors = or_(failed, logged, and_(new_finding, member("severity") == Level.ERROR))
    if level is Level.ERROR:
        return errors
    lost = or_(member("reason").startswith(_OLD_WORKER_LOST), member("reason").in_(_WORKER_LOST))
    warned = and_(Event.type == EventType.LOG, member("level") == Level.WARNING)
    return or_(errors, new_finding, warned, and_(Event.type == EventType.STATUS, lost))


def resumed(session: Session, job_id: str) -> list[int]:
    """The epochs after which a job resumed: on another worker, after a pause, or from another job's checkpoint."""
    epoch = Event.data["epoch"].as_integer()
    claimed = and_(Event.type == EventType.STATUS, Event.data["reason"].as_string() == "claimed")
    query = select(epoch).where(Event.job_id == job_id, claimed, epoch > 0).order_by(Event.seq)
    return list(session.scalars(query))


def of_type(session: Session, job_id: str, kind: EventType) -> Sequence[Event]:
    """All events of one type, in order."""
    query = select(Event).where(Event.job_id == job_id, Event.type == kind).order_by(Event.seq)
    return session.scalars(query).all()


@dataclass(slots=True)
class FoundPeriod:
    """A finding, and the epochs after which it was detected and resolved."""

    finding: Mapping[str, Any]
    """As in the job's ``health``."""
    since: int
    until: int | None = None
    """``None``: it still holds."""


def found(health_events: Iterable[Event]) -> list[FoundPeriod]:
    """The findings of a job by its events of type ``health``, in order of detection."""
    periods: list[FoundPeriod] = []
    for data in (event.data for event in health_events):
        finding = {name: value for name, value in data.items() if name not in ("state", "since")}
        if data["state"] == "found":
            periods.append(FoundPeriod(finding | {"epoch": data["since"]}, data["since"]))
            continue
        for period in periods:
            if (period.finding["code"], period.since) == (data["code"], data["since"]):
                period.until = data["epoch"]
    return periods


def mixed_provenance(session: Session, job_id: str) -> list[str]:
    """The messages of the log that say under which other provenance a job was continued, in order."""
    logged = of_type(session, job_id, EventType.LOG)
    return [str(event.data["message"]) for event in logged if event.data.get("code") == MIXED_PROVENANCE]


def provenance_differences(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """The names of the entries in which two provenances differ. Entries that an earlier version did not record are not
    compared, except ``code``: a version that did not record it had other code."""
    if not before:
        return []
    return sorted(name for name, value in now.items() if before.get(name, None if name == "code" else value) != value)


def compare_with_original(session: Session, job: Job, provenance: Mapping[str, Any]) -> None:
    """Log a warning if the provenance of a reproduction differs from that of the original."""
    if job.reproduction is None:
        return
    changed = provenance_differences(job.reproduction.get("provenance"), provenance)
    if changed and changed != job.reproduction.get("provenance_differs"):
        job.reproduction = {**job.reproduction, "provenance_differs": changed}
        message = f"provenance differs from {job.reproduction['of']} in {', '.join(changed)}: the bits may differ"
        session.flush()
        log(session, job.id, "warning", "other_provenance", message)
