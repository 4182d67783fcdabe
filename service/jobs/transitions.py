"""Changes of a job's state. A transition and its event are one transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from service.jobs import events
from service.jobs.events import EventType
from service.states import TERMINAL, Status
from service.storage.database import now_ms
from service.storage.tables import Job


def record_status(session: Session, job: Job, *, reason: str, **more: Any) -> None:
    """Append the event of a state change, in the same transaction."""
    session.flush()
    events.append(session, job.id, [(EventType.STATUS, status_data(job, reason=reason) | more)])
    session.refresh(job)


def status_data(job: Job, *, reason: str) -> dict[str, Any]:
    """The data of a status event."""
    data = {"status": job.status, "requested": job.requested, "attempt": job.attempt, "lease": job.lease}
    return data | {"epoch": job.epoch, "reason": reason}


def finish(session: Session, job: Job, status: Status, *, reason: str) -> None:
    """Move a job to a terminal state and append its last events."""
    if status not in TERMINAL:
        raise ValueError(f"{status} does not end a job")
    job.status = status
    job.requested = None
    job.lease_owner = job.lease_expires_ms = None
    ended, last = status_data(job, reason=reason), end_data(job)
    job.finished_ms = now_ms()
    session.flush()
    events.append(session, job.id, [(EventType.STATUS, ended), (EventType.END, last)])
    session.flush()
    session.refresh(job)


def end_data(job: Job) -> dict[str, Any]:
    """The data of a job's last event."""
    return {"status": job.status, "error": job.error, "result_digest": job.result_digest}
