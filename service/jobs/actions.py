"""User operations on jobs. Each function is one transaction.

They raise ``JobNotFound`` if the job does not exist or belongs to another owner, and ``IllegalTransition`` if its state
does not allow the action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session

from service import hooks, kinds
from service.access import audit, owners
from service.access.audit import Actor, AuditAction
from service.errors import BudgetSpent, Fault, IllegalTransition, JobNotFound, SpecError
from service.jobs import leases
from service.jobs.request_bodies import DEFAULT_PRIORITY, JobPatch
from service.jobs.transitions import finish, record_status
from service.states import CANCELLED, TERMINAL, Action, Request, Status, allowed_actions
from service.storage.database import Database, locking, now_ms, visible
from service.storage.owner_tables import Owner, OwnerQueue
from service.storage.sweep_tables import Sweep
from service.storage.tables import Idempotency, Job, JobTag

_BATCH: Final = 100
"""Jobs that one transaction changes: claims and commits do not wait for thousands."""


def cancel(database: Database, job_id: str, *, owner: str | None = None, by: Actor | None = None) -> Job:
    """Cancel a queued job at once, a running one after its current batch."""
    with database.write() as session:
        job = _claim_for(session, job_id, Action.CANCEL, owner)
        audit.record(session, by, AuditAction.CANCEL, job_id)
        if job.sweep_id is not None:
            job.error = {"code": CANCELLED, "message": "the job was cancelled"}
        if job.status == Status.RUNNING:
            job.requested = Request.CANCEL
            record_status(session, job, reason="cancel requested", **audit.request_of(by))
        else:
            finish(session, job, Status.CANCELLED, reason="cancelled", **audit.request_of(by))
        return job


def pause(database: Database, job_id: str, *, owner: str | None = None, by: Actor | None = None) -> Job:
    """Pause a running job after its current batch; its last checkpoint is kept."""
    with database.write() as session:
        job = _claim_for(session, job_id, Action.PAUSE, owner)
        audit.record(session, by, AuditAction.PAUSE, job_id)
        job.requested = Request.PAUSE
        record_status(session, job, reason="pause requested", **audit.request_of(by))
        return job


def resume(database: Database, job_id: str, *, owner: str | None = None, by: Actor | None = None) -> Job:
    """Put a paused job back into the queue; it continues from its last checkpoint."""
    with database.write() as session:
        job = _claim_for(session, job_id, Action.RESUME, owner)
        _require_budget(job)
        audit.record(session, by, AuditAction.RESUME, job_id)
        _requeue(session, job, reason="resumed", by=by)
        return job


def retry(database: Database, job_id: str, *, owner: str | None = None, by: Actor | None = None) -> Job:
    """Put a failed job back into the queue; it continues from its last checkpoint."""
    with database.write() as session:
        job = _claim_for(session, job_id, Action.RETRY, owner)
        _require_budget(job)
        audit.record(session, by, AuditAction.RETRY, job_id)
        job.attempt += 1
        job.deaths = 0
        job.error = None
        job.finished_ms = None
        _requeue(session, job, reason="retried", by=by)
        return job


def _require_budget(job: Job) -> None:
    """Raise ``BudgetSpent`` if the job would take a slot only to pause again."""
    if leases.is_budget_spent(job):
        raise BudgetSpent(job.id, job.cpu_seconds or 0.0, job.budget_seconds or 0.0)


def release_hold(session: Session, job: Job, *, hold_epoch: int | None, reason: str) -> bool:
    """Set the epoch after which its sweep pauses a job next, and queue it if it is paused; returns whether it was."""
    if job.status in TERMINAL:
        return False  # a user has cancelled it
    job.hold_epoch = hold_epoch
    if job.status != Status.PAUSED or leases.is_paused_by_sweep(job):
        return False  # its reused epochs may already reach the hold
    _requeue(session, job, reason=reason)
    return True


def halt(session: Session, job: Job, request: Request, *, reason: str) -> None:
    """Pause or cancel an unfinished job of a sweep: a running one between two batches, any other at once."""
    match Status(job.status), request:
        case Status.RUNNING, _:
            if job.requested != Request.CANCEL and job.requested != request:
                job.requested = request
                record_status(session, job, reason=f"{request} requested")
        case Status.QUEUED, Request.PAUSE:
            job.status = Status.PAUSED
            record_status(session, job, reason=reason)
        case ((Status.QUEUED | Status.PAUSED), Request.CANCEL):
            finish(session, job, Status.CANCELLED, reason=reason)


def _requeue(session: Session, job: Job, *, reason: str, by: Actor | None = None) -> None:
    job.status = Status.QUEUED
    job.requested = None
    job.priority = owners.allowed_priority(session, job.owner, job.priority)
    job.queued_ms = session.scalar(select(now_ms())) or 0
    job.request_id, job.traceparent = (by.request_id, by.traceparent) if by is not None else (None, None)
    record_status(session, job, reason=reason, **audit.request_of(by))


def change(
    database: Database,
    job_id: str,
    patch: JobPatch,
    *,
    owner: str | None = None,
    by: Actor | None = None,
    check: Callable[[Job], None] = lambda job: None,
) -> Job:
    """Change a job's name, tags, priority, star or note.

    Args:
        check: called with the unchanged job; raises if the client has another version of the job.

    Raises:
        SpecError: a budget for a trial.
    """
    with database.write() as session:
        job = _lock(session, job_id, owner)
        check(job)
        if patch.budget is not None and job.sweep_id is not None:
            # The sweep would queue a paused trial again and again, since it waits for its result.
            detail = f"the job is a trial of {job.sweep_id}: a sweep has its own `budget`, for all jobs together"
            raise SpecError([Fault(pointer="#/budget", detail=detail, code="unsuitable")])
        changed_fields = patch.model_fields_set
        before = _changeable(job)
        if "name" in changed_fields:
            job.name = patch.name or None
        if "priority" in changed_fields:
            priority = DEFAULT_PRIORITY if patch.priority is None else patch.priority
            job.priority = owners.allowed_priority(session, job.owner, priority)
        if "budget" in changed_fields:
            job.budget_seconds = patch.budget.seconds if patch.budget is not None else None
        if "tags" in changed_fields:
            job.tags = patch.tags or []
            session.execute(delete(JobTag).where(JobTag.job_id == job_id))
            session.add_all(JobTag(job_id=job_id, tag=tag) for tag in set(job.tags))
        if "starred" in changed_fields:
            job.starred = bool(patch.starred)
        if "note" in changed_fields:
            job.note = patch.note or None
        if _changeable(job) != before:
            audit.record(session, by, AuditAction.CHANGE, job_id, fields=sorted(changed_fields))
            # Without the note: events are never deleted, but a deleted note must not remain anywhere.
            budget = {"seconds": job.budget_seconds} if job.budget_seconds is not None else None
            changed = {
                "name": job.name,
                "tags": job.tags,
                "priority": job.priority,
                "budget": budget,
                "starred": job.starred,
            }
            record_status(session, job, reason="changed", **changed, **audit.request_of(by))
        return job


def _changeable(job: Job) -> tuple[Any, ...]:
    return job.name, job.tags, job.priority, job.budget_seconds, job.starred, job.note


def remove(
    database: Database,
    job_id: str,
    *,
    owner: str | None = None,
    by: Actor | None = None,
    check: Callable[[Job], None] = lambda job: None,
) -> None:
    """Delete the rows of an ended job. The caller removes the files after the commit.

    Args:
        check: called with the locked job; raises if it must not be deleted.
    """
    with database.write() as session:
        # In the order of ids, as every transaction that locks several jobs: the original is older.
        original = select(Job.id).where(Job.id == select(Job.parent_id).where(Job.id == job_id).scalar_subquery())
        session.execute(locking(original))
        job = _claim_for(session, job_id, Action.DELETE, owner)
        check(job)
        _require_ended_sweep(session, job)
        hooks.before_deletion(session, [job_id])
        if refutes(job):  # what it has shown must not go with it
            session.execute(update(Job).where(Job.id == job.parent_id).values(reusable=False))
        audit.record(session, by, AuditAction.DELETE, job_id)
        session.execute(delete(Idempotency).where(Idempotency.job_id == job_id))
        session.execute(delete(Job).where(Job.id == job_id))  # and, by the foreign keys, all rows of the job


def refutes(job: Job) -> bool:
    """Whether a job shows that another one cannot be reproduced: with other bits in the same environment."""
    reproduction = job.reproduction or {}
    return reproduction.get("match") is False and not reproduction.get("provenance_differs")


def _require_ended_sweep(session: Session, job: Job) -> None:
    """Raise ``IllegalTransition`` if the job's sweep has not ended: it may have yet to decide on the job."""
    unfinished_sweep = select(Sweep.id).where(Sweep.id == job.sweep_id, Sweep.finished_ms.is_(None))
    if job.sweep_id is not None and session.scalar(unfinished_sweep) is not None:
        allowed = tuple(action for action in actions_of(job) if action is not Action.DELETE)
        raise IllegalTransition(job.id, Action.DELETE, Status(job.status), allowed)


def _claim_for(session: Session, job_id: str, action: Action, owner: str | None) -> Job:
    """Lock a job's row and check that the action is legal."""
    job = _lock(session, job_id, owner)
    require(job, action)
    return job


def _lock(session: Session, job_id: str, owner: str | None) -> Job:
    job = session.scalar(locking(select(Job).where(Job.id == job_id, visible(Job.owner, owner))))
    if job is None:
        raise JobNotFound(job_id)
    return job


def require(job: Job, action: Action) -> None:
    """Raise ``IllegalTransition`` unless the action is legal in the job's present state."""
    allowed = actions_of(job)
    if action not in allowed:
        raise IllegalTransition(job.id, action, Status(job.status), allowed)


def actions_of(job: Job) -> tuple[Action, ...]:
    """The actions that are legal in the job's present state."""
    requested = Request(job.requested) if job.requested else None
    code = job.error.get("code") if job.error else None
    allowed = allowed_actions(Status(job.status), requested=requested, error_code=code, epoch=job.epoch)
    excluded = kinds.of(job.kind).excluded_actions
    if job.investigation is not None:
        excluded |= {Action.FORK, Action.REPRODUCE}
    elif job.sweep_id is not None:
        # A sweep schedules its own trials, and its decisions depend on results that must not change.
        excluded |= {Action.RETRY, Action.PAUSE, Action.RESUME}
    return tuple(action for action in allowed if action not in excluded)


def lower_priorities(database: Database, owner: str, *, by: Actor | None = None) -> int:
    """Lower the priorities of an owner's unfinished jobs to the highest allowed one, each with an event.

    Args:
        owner: ``''`` for everybody without a key.

    Returns:
        The number of jobs.
    """
    count = 0
    while changed := _lower_some(database, owner, by):
        count += changed
    return count


def _lower_some(database: Database, owner: str, by: Actor | None) -> int:
    with database.write() as session:
        highest = owners.highest_priority(session, owner or None)
        above = select(Job).where(visible(Job.owner, owner), Job.status.not_in(TERMINAL), Job.priority > highest)
        jobs = session.scalars(locking(above.order_by(Job.id).limit(_BATCH))).all()
        for job in jobs:
            job.priority = highest
            record_status(session, job, reason="changed", priority=highest, **audit.request_of(by))
        return len(jobs)


def lower_urgent(database: Database) -> int:
    """The same for each owner with a queued job that is more urgent than allowed: it was submitted while the limit
    changed, or preempted. Returns the number of jobs."""
    default = case((OwnerQueue.owner == owners.EVERYBODY, owners.HIGHEST_PRIORITY), else_=owners.DEFAULT_MAX_PRIORITY)
    query = select(OwnerQueue.owner).outerjoin(Owner, Owner.id == OwnerQueue.owner)
    query = query.where(OwnerQueue.urgent > func.coalesce(Owner.max_priority, default))
    with database.read() as session:
        names = session.scalars(query).all()
    return sum(lower_priorities(database, name) for name in names)
