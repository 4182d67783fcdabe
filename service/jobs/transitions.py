"""Changes of a job's state. A transition and its event are one transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, func
from sqlalchemy.orm import Session

from service import hooks
from service.hooks import Happening, HappeningKind
from service.jobs import events
from service.jobs.events import EventType
from service.states import CANCELLED, TERMINAL, ErrorCode, Status
from service.storage.database import now_ms
from service.storage.tables import Job


def record_status(session: Session, job: Job, *, reason: str, **extra: Any) -> None:
    """Append the event of a state change, in the same transaction."""
    session.flush()
    events.append(session, job.id, [(EventType.STATUS, status_data(job, reason=reason) | extra)])
    session.refresh(job)
    hooks.job_changed(session, job, reason=reason)


def status_data(job: Job | Row[Any], *, reason: str, **changed: Any) -> dict[str, Any]:
    """The data of a status event; ``changed`` has values that the row does not have yet."""
    data = {"status": job.status, "requested": job.requested, "attempt": job.attempt, "lease": job.lease}
    return data | {"epoch": job.epoch} | changed | {"reason": reason}


def holder(job: Job | Row[Any]) -> dict[str, str]:
    """The worker that holds the job's lease, for the event that ends it."""
    return {"worker": job.lease_owner} if job.lease_owner is not None else {}


def finish(session: Session, job: Job, status: Status, *, reason: str, **extra: Any) -> None:
    """Move a job to a terminal state and append its last events."""
    if status not in TERMINAL:
        raise ValueError(f"{status} does not end a job")
    job.status = status
    if status == Status.SUCCEEDED and is_cancelled_by_user(job):
        job.error = None  # it ended before the request was noticed
    job.requested = None
    ended, last = status_data(job, reason=reason) | holder(job) | extra, end_data(job)
    job.lease_owner = job.lease_expires_ms = None
    job.finished_ms = now_ms()
    session.flush()
    events.append(session, job.id, [(EventType.STATUS, ended), (EventType.END, last)])
    session.flush()
    session.refresh(job)
    hooks.job_changed(session, job, reason=reason)
    if status == Status.FAILED and (job.error or {}).get("code") == ErrorCode.STORAGE_QUOTA:
        quota = {"id": "artifact_bytes", "url": "/ui/usage", "name": "bytes of job files", "status": "exceeded"}
        hooks.happened(
            session, Happening(kind=HappeningKind.QUOTA_EXCEEDED, owner=job.owner, data=quota | {"job": job.id})
        )


def end_data(job: Job) -> dict[str, Any]:
    """The data of the last event of a job's run. Changes of name, tags, priority, star or note may follow it."""
    return {"status": job.status, "error": shown_error(job), "result_digest": job.result_digest}


def is_cancelled_by_user(job: Job | Row[Any]) -> bool:
    """Whether a user, not its sweep, cancelled the job of a trial, or has requested its cancellation."""
    return job.error is not None and job.error.get("code") == CANCELLED


def shown_error(job: Job) -> dict[str, Any] | None:
    """Why a job failed."""
    return None if is_cancelled_by_user(job) else job.error


def shown_error_code() -> ColumnElement[str | None]:
    """The code of ``shown_error`` in SQL."""
    return func.nullif(Job.error["code"].as_string(), CANCELLED)
