"""User operations on sweeps. Each is one transaction, which locks the sweep's row before those of its jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, or_, select
from sqlalchemy.orm import Session

from service import hooks
from service.access import audit
from service.access.audit import Actor, AuditAction
from service.errors import IllegalSweepAction, SweepNotFound
from service.jobs import actions as job_actions
from service.jobs import submissions
from service.jobs.submissions import IdempotencyKey
from service.states import SWEEP_ACTIONS, TERMINAL, Reason, Request, Status, SweepAction, SweepStatus
from service.storage.database import Database, locking, now_ms, visible
from service.storage.ids import new_id
from service.storage.sweep_tables import Sweep
from service.storage.tables import Idempotency, Job
from service.sweeps import decisions, events


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSweep:
    """A validated sweep to be stored."""

    name: str | None
    kind: str
    spec: Mapping[str, Any]
    resolved: Mapping[str, Any]
    data: Mapping[str, Any]
    trials: int
    owner: str | None


def submit(
    database: Database,
    new: NewSweep,
    *,
    idempotency: IdempotencyKey | None,
    represent: Callable[[Sweep], dict[str, Any]],
    by: Actor | None = None,
) -> tuple[dict[str, Any], bool, list[str]]:
    """Store a sweep with its first trials, once per idempotency key.

    Returns:
        The response, whether an earlier request with the same key stored it, and the ids of the queued jobs.

    Raises:
        IdempotencyConflict: the key was used with another body.
        SpecError: the dataset was deleted in the meantime.
    """
    with database.write() as session:
        sweep = Sweep(
            id=new_id("swp"),
            owner=new.owner,
            traceparent=by.traceparent if by is not None else None,
            name=new.name,
            kind=new.kind,
            spec=dict(new.spec),
            resolved=dict(new.resolved),
            data=dict(new.data),
            status=SweepStatus.RUNNING,
            state={},
            trials=new.trials,
            finished_trials=0,
            failed_trials=0,
            epochs_started=0,
            last_seq=0,
            created_ms=session.scalar(select(now_ms())) or 0,
        )
        if idempotency is not None:
            earlier = submissions.take_key(session.connection(), idempotency, sweep, {})
            if earlier is not None:
                return earlier, True, []
        session.add(sweep)
        session.flush()
        audit.record(session, by, AuditAction.SUBMIT, sweep.id)
        events.record_status(session, sweep, reason="submitted")
        queued = decisions.advance(session, sweep)
        answer = represent(sweep)
        if idempotency is not None:
            session.get_one(Idempotency, (new.owner or "", idempotency.key)).answer = answer
        return answer, False, queued


def pause(database: Database, sweep_id: str, *, owner: str | None, by: Actor | None) -> Sweep:
    """Pause a sweep: its jobs pause, and no decisions are made."""
    with database.write() as session:
        sweep = _lock(session, sweep_id, SweepAction.PAUSE, owner)
        audit.record(session, by, AuditAction.PAUSE, sweep_id)
        sweep.status = SweepStatus.PAUSED
        query = select(Job).where(Job.sweep_id == sweep_id, Job.status.in_((Status.QUEUED, Status.RUNNING)))
        for job in session.scalars(locking(query.order_by(Job.id))):
            job_actions.halt(session, job, Request.PAUSE, reason=Reason.PAUSED_BY_SWEEP)
        events.record_status(session, sweep, reason="paused")
        return sweep


def resume(database: Database, sweep_id: str, *, owner: str | None, by: Actor | None) -> tuple[Sweep, list[str]]:
    """Resume a paused sweep; also returns the ids of the queued jobs."""
    with database.write() as session:
        sweep = _lock(session, sweep_id, SweepAction.RESUME, owner)
        audit.record(session, by, AuditAction.RESUME, sweep_id)
        sweep.status = SweepStatus.RUNNING
        events.record_status(session, sweep, reason="resumed")
        queued = _requeue(session, Job.sweep_id == sweep_id)
        return sweep, queued + decisions.advance(session, sweep)


def requeue_stragglers(database: Database) -> list[str]:
    """Queue the jobs that paused only after their sweep had been resumed; returns their ids."""
    running = select(Sweep.id).where(Sweep.status == SweepStatus.RUNNING)
    with database.read() as session:
        jobs = _paused(Job.sweep_id.in_(running)).with_only_columns(Job.sweep_id)
        sweep_ids = session.scalars(jobs.distinct().order_by(Job.sweep_id)).all()
    queued: list[str] = []
    for sweep_id in sweep_ids:
        with database.write() as session:
            if session.scalar(locking(running.where(Sweep.id == sweep_id))) is not None:  # not paused again meanwhile
                queued += _requeue(session, Job.sweep_id == sweep_id)
    return queued


def _requeue(session: Session, condition: Any) -> list[str]:
    jobs = session.scalars(locking(_paused(condition).order_by(Job.id))).all()
    for job in jobs:
        job_actions.release_hold(session, job, hold_epoch=job.hold_epoch, reason="the sweep was resumed")
    return [job.id for job in jobs]


def _paused(condition: Any) -> Any:
    """The query for the jobs that meet a condition and are paused, but not at a rung."""
    is_below_hold = or_(Job.hold_epoch.is_(None), Job.epoch < Job.hold_epoch)
    return select(Job).where(and_(condition, Job.status == Status.PAUSED, is_below_hold))


def cancel(database: Database, sweep_id: str, *, owner: str | None, by: Actor | None) -> Sweep:
    """Cancel a sweep and its unfinished jobs."""
    with database.write() as session:
        sweep = _lock(session, sweep_id, SweepAction.CANCEL, owner)
        audit.record(session, by, AuditAction.CANCEL, sweep_id)
        decisions.finish(session, sweep, SweepStatus.CANCELLED, reason="cancelled")
        return sweep


def remove(database: Database, sweep_id: str, *, owner: str | None, by: Actor | None) -> list[str]:
    """Delete an ended sweep and the rows of its jobs; returns the jobs' ids. The caller removes their files."""
    with database.write() as session:
        sweep = _lock(session, sweep_id, SweepAction.DELETE, owner)
        jobs = session.scalars(locking(select(Job).where(Job.sweep_id == sweep_id).order_by(Job.id))).all()
        if any(job.status not in TERMINAL for job in jobs):
            raise IllegalSweepAction(sweep_id, SweepAction.DELETE, sweep.status, ())
        audit.record(session, by, AuditAction.DELETE, sweep_id)
        ids = [job.id for job in jobs]
        hooks.before_deletion(session, ids)
        # The rows of jobs and of the sweep go by their foreign keys.
        session.execute(delete(Job).where(Job.sweep_id == sweep_id).execution_options(synchronize_session=False))
        session.execute(delete(Idempotency).where(Idempotency.job_id == sweep_id))
        session.delete(sweep)
        return ids


def allowed(sweep: Sweep) -> tuple[SweepAction, ...]:
    """The actions that the sweep's state permits."""
    return SWEEP_ACTIONS[SweepStatus(sweep.status)]


def _lock(session: Session, sweep_id: str, action: SweepAction, owner: str | None) -> Sweep:
    sweep = session.scalar(locking(select(Sweep).where(Sweep.id == sweep_id, visible(Sweep.owner, owner))))
    if sweep is None:
        raise SweepNotFound(sweep_id)
    if action not in allowed(sweep):
        raise IllegalSweepAction(sweep_id, action, sweep.status, allowed(sweep))
    return sweep
