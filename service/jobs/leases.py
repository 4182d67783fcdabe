"""Leases: the right of one worker to write to a running job.

Every write of a worker is one transaction that begins with the guard, which checks that the job is running under this
lease. If not, it raises ``LeaseLost``, and the worker stops and leaves nothing behind.

A lease is its number and a random token. The number alone is issued again after the database went back in time: it was
restored from a copy, or a failover lost its last transactions.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    String,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.dml import ReturningUpdate

from service import kinds
from service.errors import LeaseLost
from service.jobs import events, owner_queue, transitions, worker_registry
from service.jobs.events import EventType
from service.jobs.queries import lookup
from service.jobs.queries.queue import CLAIM_ORDER
from service.runtime import tracing
from service.runtime.failpoints import failpoint
from service.spec.versions import SPEC_VERSION
from service.states import ErrorCode, MachineFaultReason, Reason, Request, Status
from service.storage.database import Database, locking, now_ms
from service.storage.insertions import insert_many
from service.storage.tables import EVENTS, JOBS, Epoch, Event, Job, Worker

MAX_DEATHS: Final = 3
"""A job fails after this many consecutive worker losses without a new epoch: it probably kills its workers."""
MAX_MACHINE_FAULTS: Final = 5
"""A job fails after this many machine faults without a new epoch between them: the machines seem to be well. Those of
the store must also have lasted: in an outage, each of many workers releases the job once."""

_TOKEN_BYTES: Final = 16

STORAGE_REMEDY: Final = "free disk space or repair the artifact store (tapeline doctor names the cause), then retry"
CHECKPOINT_KEPT: Final = ": the last checkpoint is kept"
STORAGE_HINT: Final = STORAGE_REMEDY + CHECKPOINT_KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to write to a job, until another worker claims it."""

    job_id: str
    lease: int
    token: str = field(repr=False)
    """Random, so that no other claim has the same lease. It is written to no log, event or response."""
    lease_s: float
    attempt: int = 1
    """For the logs."""
    cpu_seconds: float = 0.0
    """CPU time of the job under earlier leases."""
    request_id: str | None = None
    """Of the HTTP request that queued the job."""
    traceparent: str | None = None
    """Of that request."""
    trace: str | None = None
    """The traceparent of this attempt."""
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The job's row at the claim, by column: its training begins without another query."""

    @property
    def log_fields(self) -> dict[str, Any]:
        """What the lines in a worker's log say about the job, from the request to the lease."""
        request = {"request_id": self.request_id} if self.request_id else {}
        return {
            "job": self.job_id,
            "lease": self.lease,
            "attempt": self.attempt,
            **request,
            **tracing.named(self.trace),
        }

    @property
    def span_attributes(self) -> dict[str, str | int]:
        """What the spans of this attempt say about the job."""
        return {
            "tapeline.job.id": self.job_id,
            "tapeline.job.lease": self.lease,
            "tapeline.job.attempt": self.attempt,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Resources that a job has used so far, under this lease and all before it."""

    cpu_seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Progress of a training."""

    step: int
    steps: int
    steps_per_second: float | None = None


def claim(
    database: Database,
    worker: str,
    lease_s: float,
    *,
    datasets: Collection[str] | None = None,
    spec_version: int = SPEC_VERSION,
) -> Claim | None:
    """Claim a job: of the owner whose turn it is, the first by priority, then age; or ``None``.

    Args:
        datasets: that the worker has, besides uploads; jobs on others are passed over. ``None``: it has all.
        spec_version: the newest that the worker knows; newer jobs, and those of unknown kinds, are passed over.
    """
    while True:
        with database.write() as session:
            if (owner := owner_queue.next_owner(session)) is not None:
                return _claim_of(session, owner, worker, lease_s, datasets, spec_version)
        # Nobody waits, or each who does gets or ends a job at this moment: wait for the first one.
        with database.read_once() as session:
            owner = owner_queue.first_owner(session)
        if owner is None:
            return None
        with database.write() as session:
            if owner_queue.lock_owner(session, owner):
                return _claim_of(session, owner, worker, lease_s, datasets, spec_version)


def _claim_of(
    session: Session,
    owner: str | None,
    worker: str,
    lease_s: float,
    datasets: Collection[str] | None,
    spec_version: int,
) -> Claim | None:
    """Claim the first job of an owner; if the worker cannot run those of the owner, the first of the next one."""
    passed: list[str] = []
    while owner is not None:
        who = {"job_owner": owner} if owner else {}
        which = {"datasets": list(datasets)} if datasets is not None else {}
        token = secrets.token_hex(_TOKEN_BYTES)
        values = {"worker": worker, "token": token, "lease_ms": milliseconds(lease_s), **who, **which}
        values["known"] = spec_version
        job = session.connection().execute(_taking(bool(who), bool(which)), values).first()
        if job is not None:
            trace = tracing.new_attempt(job.traceparent)
            data = transitions.status_data(job, reason="claimed") | {"worker": worker, **tracing.named(trace)}
            rows = events.rows(job.id, [(EventType.STATUS, data)], job.last_seq - 1, job.claimed_ms)
            insert_many(session.connection(), EVENTS, rows)
            return Claim(
                job_id=job.id,
                lease=job.lease,
                token=token,
                lease_s=lease_s,
                attempt=job.attempt,
                cpu_seconds=job.claimed_cpu_seconds,
                request_id=job.request_id,
                traceparent=job.traceparent,
                trace=trace,
                row=dict(job._mapping),
            )
        lane = and_(owner_queue.is_queued(), owner_queue.belongs_to(owner))
        can_run = and_(owner_queue.has_data(datasets), worker_registry.is_known(spec_version))
        if not session.scalar(select(exists().where(lane, ~can_run))):
            return None
        passed.append(owner)
        owner = owner_queue.next_owner(session, without=passed)
    return None


@functools.cache
def _taking(has_owner: bool, has_datasets: bool) -> ReturningUpdate[Any]:
    """The statement that begins the lease of an owner's first job, unless another worker does so now, and returns its
    row. It is built once: that takes as long as its execution."""
    is_drained = and_(Worker.id == bindparam("worker"), Worker.drain.is_not(None))
    owner = owner_queue.belongs_to(bindparam("job_owner", type_=String) if has_owner else "")
    has_data = owner_queue.has_data(bindparam("datasets", expanding=True) if has_datasets else None)
    can_run = and_(has_data, worker_registry.is_known(bindparam("known", type_=Integer)))
    first = select(Job.id).where(owner_queue.is_queued(), owner, can_run).order_by(*CLAIM_ORDER).limit(1)
    free = locking(first, skip_locked=True).scalar_subquery()
    return (
        update(JOBS)
        .where(JOBS.c.id == free, JOBS.c.status == Status.QUEUED, ~exists().where(is_drained))
        .values(
            status=Status.RUNNING,
            lease=JOBS.c.lease + 1,
            lease_token=bindparam("token"),
            lease_owner=bindparam("worker"),
            lease_expires_ms=now_ms() + bindparam("lease_ms", type_=BigInteger),
            claimed_ms=now_ms(),
            claimed_cpu_seconds=func.coalesce(JOBS.c.cpu_seconds, 0.0),
            started_ms=func.coalesce(JOBS.c.started_ms, now_ms()),
            last_seq=JOBS.c.last_seq + 1,
        )
        .returning(*JOBS.c)
    )


def begin(database: Database, claim: Claim, provenance: Mapping[str, Any]) -> Job:
    """Record the provenance of this run and return the job. A change since the last lease, or, in a
    reproduction, since the original, is logged as a warning."""
    with database.write() as session:
        row = lock(session, claim, _LOCK_JOB)
        job: Job = row.Job
        job.lease_expires_ms = row.now + milliseconds(claim.lease_s)  # not in SQL: that would be read again
        # What is not trained starts again, so that its bits are those of the last provenance alone.
        goes_on = kinds.of(job.kind).trains
        changed = events.provenance_differences(job.provenance, provenance) if goes_on else []
        if changed:
            names = ", ".join(changed)
            message = f"continued with another provenance ({names}): the bits may differ from an undisturbed run"
            events.log(session, job.id, "warning", events.MIXED_PROVENANCE, message)
            job.reusable = False
        events.compare_with_original(session, job, provenance)
        job.provenance = dict(provenance)
        if job.dataset_sha256 is None:  # of a folder: later leases must find the same data
            job.dataset_sha256 = provenance.get("dataset")
        session.flush()
        return job


def is_budget_spent(job: Job | Row[*tuple[Any, ...]]) -> bool:
    """Whether a job has used the CPU time that its user allows."""
    return job.budget_seconds is not None and (job.cpu_seconds or 0.0) >= job.budget_seconds


def release_lease(database: Database, claim: Claim, request: Request | None, *, used: Usage | None = None) -> None:
    """End the lease after a batch, because of a request or because this worker stops.

    The unfinished epoch is discarded; the next worker continues from the last checkpoint.
    """
    with database.write() as session:
        job = guard(session, claim, **usage_values(used))
        release(session, job, reason=Reason.RELEASED, otherwise=request)
        session.flush()
        failpoint("releasing")


def budget_left(database: Database, claim: Claim, used: Usage) -> float | None:
    """The CPU seconds that a job may still use; ``None``: no limit. A user may have changed the budget."""
    with database.read_once() as session:
        budget = lookup.get(session, claim.job_id).budget_seconds
    return None if budget is None else budget - used.cpu_seconds


def release_for_fault(
    database: Database,
    claim: Claim,
    reason: MachineFaultReason,
    error: Mapping[str, Any],
    *,
    store_timeout_s: float,
    used: Usage | None = None,
    then: Callable[[Session, Job], None] = lambda session, job: None,
) -> bool:
    """End the lease because of a fault of this machine: the job is queued, and no attempt is counted.

    After ``MAX_MACHINE_FAULTS`` times without a new epoch it fails with ``error``; because of the store, not before
    ``store_timeout_s`` after the first.

    Returns:
        Whether the job has failed.
    """
    with database.write() as session:
        job = guard(session, claim, **usage_values(used))
        _forget_preemption(session, job)
        count, first_ms = _machine_faults(session, job)
        has_lasted = reason is not MachineFaultReason.STORE or first_ms <= _now(session) - 1000 * store_timeout_s
        if job.requested is None and count + 1 >= MAX_MACHINE_FAULTS and has_lasted:
            job.error = dict(error)
            transitions.finish(session, job, Status.FAILED, reason=str(error["code"]))
            then(session, job)
            return True
        message = f"{error['message']}; the job waits for another machine, or until this one is well"
        session.flush()
        events.log(session, job.id, "warning", "machine_fault", message)
        release(session, job, reason=reason.of_job)
        return False


def _machine_faults(session: Session, job: Job) -> tuple[int, int]:
    """The number of machine faults since the last epoch or retry, and the time of the first."""
    reason = Event.data["reason"].as_string()
    progress = or_(Event.type == EventType.METRICS, and_(Event.type == EventType.STATUS, reason == "retried"))
    last = select(func.coalesce(func.max(Event.seq), 0)).where(Event.job_id == job.id, progress).scalar_subquery()
    faults = select(func.count(), func.coalesce(func.min(Event.created_ms), 0)).where(
        Event.job_id == job.id,
        Event.seq > last,
        Event.type == EventType.STATUS,
        reason.in_([fault.of_job for fault in MachineFaultReason]),
    )
    count, first_ms = session.execute(faults).one()
    return count, first_ms


def record_child_loss(database: Database, claim: Claim, message: str, *, used: Usage | None = None) -> None:
    """Record that the training process died, or was killed because it made no progress."""
    with database.write() as session:
        record_worker_loss(session, guard(session, claim, **usage_values(used)), message)


def release_unacknowledged_claims(database: Database, worker: str, acknowledged: Collection[Claim]) -> list[str]:
    """Requeue jobs whose claim by this worker was committed but not acknowledged; returns their ids.

    The response to the claim was lost. It does not count as a worker loss.
    """
    query = select(Job).where(Job.status == Status.RUNNING, Job.lease_owner == worker)
    # Not locked: a transaction that holds the lock of its own job may wait for that of another, to end a sweep.
    query = query.where(or_(Job.lease_token.is_(None), ~is_one_of(acknowledged)))
    query = query.order_by(func.coalesce(Job.owner, ""), Job.id)  # the order in which a commit locks owners
    with database.write() as session:
        unacknowledged = session.scalars(locking(query)).all()
        for job in unacknowledged:
            release(session, job, reason=Reason.RELEASED)
        return [job.id for job in unacknowledged]


def pause_for_sweep(session: Session, job: Job) -> None:
    """End the lease of a job that has reached the epoch after which its sweep pauses it."""
    release(session, job, reason=Reason.PAUSED_BY_SWEEP, otherwise=Request.PAUSE)


def record_worker_loss(session: Session, job: Job, message: str) -> None:
    """Count a lost worker of a job whose row is locked; the job is queued again, or fails."""
    _forget_preemption(session, job)
    job.deaths += 1
    if job.requested is None and job.deaths >= MAX_DEATHS:
        text = f"{message}; {job.deaths} workers were lost without a new epoch between them"
        job.error = {"code": ErrorCode.WORKER_LOST, "message": text, "epoch": job.epoch}
        transitions.finish(session, job, Status.FAILED, reason=ErrorCode.WORKER_LOST, message=message)
        return
    job.attempt += 1
    release(session, job, reason=Reason.LOST, message=message)


def _forget_preemption(session: Session, job: Job) -> None:
    """A lease that ends because something is broken makes room, too, and is counted and charged as such."""
    if job.requested == Request.PREEMPT:
        job.requested = None
        session.flush()  # a trigger gives back the time of a preempted lease


def is_paused_by_sweep(job: Job) -> bool:
    """Whether a paused job waits for its sweep, not for a user."""
    return job.status == Status.PAUSED and reaches_hold(job.epoch, job.hold_epoch)


def reaches_hold(epoch: int, hold_epoch: int | None) -> bool:
    """Whether its sweep pauses a job after this epoch, unless the job ends with it."""
    return hold_epoch is not None and epoch >= hold_epoch


def release(session: Session, job: Job, *, reason: str, otherwise: Request | None = None, **extra: Any) -> None:
    """Set the next state of an unfinished job when its lease ends: queued, or the state that was requested.

    Args:
        otherwise: what to do if no user requested anything; a request that is made at this moment takes precedence.
            What it says takes precedence over preemption, which asks only for the slot.
    """
    worker = transitions.holder(job)
    last_step = session.scalar(select(func.max(Epoch.step)).where(Epoch.job_id == job.id))
    job.step = last_step or job.steps // job.epochs * job.start_epoch
    job.steps_per_second = None
    requested = Request(job.requested) if job.requested else None
    match otherwise or requested if requested is Request.PREEMPT else requested or otherwise:
        case Request.CANCEL:
            transitions.finish(session, job, Status.CANCELLED, reason="cancelled")
            return
        case Request.PAUSE:
            job.status, reason = Status.PAUSED, reason if reason == Reason.PAUSED_BY_SWEEP else "paused"
        case Request.BUDGET if is_budget_spent(job):
            job.status, reason = Status.PAUSED, Reason.BUDGET
        case Request.PREEMPT:
            job.status, reason = Status.QUEUED, Reason.PREEMPTED
        case _:  # no request, or a budget that was raised meanwhile
            job.status = Status.QUEUED
    job.requested = None
    job.lease_owner = job.lease_expires_ms = None
    transitions.record_status(session, job, reason=reason, **worker, **extra)


def clock(database: Database) -> int:
    """The database's time in milliseconds since 1970."""
    with database.read() as session:
        return _now(session)


def _now(session: Session) -> int:
    return session.scalar(select(now_ms())) or 0


def guard(session: Session, claim: Claim, **values: Any) -> Job:
    """The lease guard, the first statement of every write: lock the job's row, renew the lease, and set ``values``.

    Raises:
        LeaseLost: the job no longer runs, or runs under another lease.
    """
    job = session.scalar(
        update(Job)
        .where(_is_held(claim))
        .values(lease_expires_ms=expiry(claim.lease_s), **values)
        .returning(Job)
        .execution_options(synchronize_session=False)
    )
    if job is None:
        raise LeaseLost(claim.job_id, claim.lease)
    return job


def _is_held(claim: Claim) -> ColumnElement[bool]:
    is_same = and_(Job.lease == claim.lease, Job.lease_token == claim.token)
    return and_(Job.id == claim.job_id, Job.status == Status.RUNNING, is_same)


def is_one_of(claims: Collection[Claim]) -> ColumnElement[bool]:
    """That a job's last lease is that of one of these claims; NULL if it has no token."""
    held = [(claim.job_id, claim.lease, claim.token) for claim in claims]
    return tuple_(JOBS.c.id, JOBS.c.lease, JOBS.c.lease_token).in_(held)


def lock_statement(*columns: Column[Any] | type[Job]) -> Select[Any]:
    """The statement of ``lock`` that reads these columns, to be made once."""
    query: Select[Any] = select(*columns, now_ms().label("now"))
    held = and_(JOBS.c.id == bindparam("job"), JOBS.c.status == Status.RUNNING)
    held = and_(held, JOBS.c.lease == bindparam("held"), JOBS.c.lease_token == bindparam("token"))
    return locking(query.where(held), keeps_key=True)


_LOCK_JOB: Final = lock_statement(Job)


def lock(connection: Connection | Session, claim: Claim, statement: Select[Any]) -> Row[Any]:
    """The lease guard of a write that changes the row once, at its end: lock the row, and read some columns.

    Returns:
        The columns and ``now``, the database's time in milliseconds since 1970.

    Raises:
        LeaseLost: the job no longer runs, or runs under another lease.
    """
    parameters = {"job": claim.job_id, "held": claim.lease, "token": claim.token}
    row = connection.execute(statement, parameters).first()
    if row is None:
        raise LeaseLost(claim.job_id, claim.lease)
    return row


def usage_values(used: Usage | None) -> dict[str, Any]:
    """Values for the guard. They are totals, so a write can be repeated, and they never decrease, no matter
    whether the supervisor or the child has measured last."""
    if used is None:
        return {}
    return {
        "cpu_seconds": at_least(Job.cpu_seconds, literal(used.cpu_seconds)),
        "peak_memory_bytes": at_least(Job.peak_memory_bytes, literal(used.peak_memory_bytes, BigInteger)),
    }


def at_least(column: ColumnElement[Any] | InstrumentedAttribute[Any], new: ColumnElement[Any]) -> ColumnElement[Any]:
    """The new value, unless it is NULL or lower than the column's."""
    return func.coalesce(case((column > new, column), else_=new), column)


def expiry(lease_s: float) -> Any:
    """In SQL, when a lease expires that is renewed now."""
    return now_ms() + milliseconds(lease_s)


def milliseconds(seconds: float) -> int:
    """The unit of the database's times."""
    return int(seconds * 1000)
