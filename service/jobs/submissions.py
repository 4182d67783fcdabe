"""Store new jobs (submissions, forks, reproductions), each once per idempotency key."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sqlalchemy import JSON, Connection, delete, insert, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service import hooks, kinds
from service.access import audit, storage_quota
from service.access.audit import Actor, AuditAction
from service.errors import Fault, IdempotencyConflict, JobNotFound, SpecError
from service.jobs import transitions
from service.jobs.events import EventType
from service.jobs.reuse.copies import Copied
from service.runtime import tracing
from service.runtime.failpoints import failpoint
from service.spec.schema import JobSpec
from service.spec.validation import StoredSpec
from service.spec.versions import SPEC_VERSION
from service.states import Status
from service.storage import artifact_rows
from service.storage.artifacts import StoredFile
from service.storage.database import Database, locking, now_ms
from service.storage.ids import new_id
from service.storage.insertions import NewRow, TimeTemplate, insert_rows
from service.storage.sweep_tables import Sweep
from service.storage.tables import EVENTS, IDEMPOTENCY, JOB_TAGS, JOBS, Epoch, ExpectedEpoch, Idempotency, Job, Upload
from service.wording import at_time

_IDEMPOTENCY_KEY_LIFETIME_MS: Final = 24 * 60 * 60 * 1000
_FAR_FUTURE_MS: Final = 100_000_000_000_000  # in the year 5138


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A validated spec to be stored as a job."""

    spec: Mapping[str, Any]
    """As sent."""
    resolved: JobSpec
    steps: int
    owner: str | None = None
    id: str | None = None
    """Set if files of the job exist already; otherwise generated."""
    origin: Origin | None = None
    upload_id: str | None = None
    """The uploaded dataset (one version) that the spec refers to."""
    dataset_sha256: str | None = None
    """Of the data, if known."""
    expected_bytes: int = 0
    """The most that the job's files are expected to take at a time; 0: unknown."""
    fold_group: str | None = None
    """Shared by the folds of one cross-validation."""
    placement: TrialPlacement | None = None
    """Set for a trial of a sweep."""
    investigates: tuple[Job, Job] | None = None
    """Two jobs to train again side by side, instead of training the spec, which is that of the first."""
    traceparent: str | None = None
    """That of its sweep, for a trial."""
    stored: StoredSpec | None = None
    """``resolved`` with its digests, if they are computed already."""
    copied: Copied | None = None
    """The whole result of an equal job: the job has succeeded when it is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a job copies from an earlier one, which may be deleted afterwards."""

    parent: Job
    start: StoredFile | None = None
    """The initial checkpoint, already in the new job's folder."""
    reproduces: bool = False
    """Compare the new job with the earlier one, epoch by epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlacement:
    """Which trial of a sweep a job is."""

    sweep_id: str
    trial: int
    hold_epoch: int | None
    """The job pauses after this epoch; ``None``: it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """A client's key for one request, and a digest of the request."""

    key: str
    fingerprint: str


def submit(
    database: Database,
    submissions: Sequence[Submission],
    *,
    idempotency: IdempotencyKey | None,
    represent: Callable[[Sequence[Job]], dict[str, Any]],
    by: Actor | None = None,
    at_most: int = 0,
) -> tuple[dict[str, Any], bool]:
    """Store new jobs in one transaction, all or none, once.

    Args:
        represent: creates the response; a repeated request with the same key gets the same response. It may contain
            the job's time only in the format of ``times.at_time``: the time is known only after the response is built.
        by: the actor, for the audit log.
        at_most: maximum bytes of the files that the jobs begin with, see ``check_growth``; 0: no limit.

    Returns:
        The response, and whether it was stored by an earlier request.

    Raises:
        IdempotencyConflict: the key was used with another body.
        JobNotFound: the job to reproduce has been deleted in the meantime.
        SpecError: its dataset has been deleted in the meantime.
        StorageQuotaExceeded: the files do not fit into ``at_most`` bytes.
    """
    # Do the slow work before the transaction opens: SQLite allows one writer.
    jobs = [_new_job(submission, by) for submission in submissions]
    if not database.is_sqlite and len(submissions) == 1 and _is_plain(submissions[0]):
        return _insert_alone(database, jobs[0], idempotency, represent, by)

    def store(connection: Connection) -> tuple[dict[str, Any], bool]:
        now = connection.scalar(_NOW) or 0
        for job in jobs:
            job.created_ms = job.queued_ms = now
            if job.status == Status.SUCCEEDED:
                job.started_ms = job.finished_ms = now
        answer = represent(jobs)
        if idempotency is not None:
            # The key is the first write: of two concurrent requests, the second waits here.
            earlier = take_key(connection, idempotency, jobs[0], answer)
            if earlier is not None:
                return earlier, True
        # For few submissions: the bookkeeping of a session takes longer than the row.
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            for job, submission in zip(jobs, submissions, strict=True):
                # Data of a deleted dataset are kept for jobs that repeat a training on them.
                repeats = submission.origin is not None or submission.investigates is not None
                _insert(connection, job, deleted_data=repeats)
                if submission.copied is not None:
                    _store_copied(connection, job, submission.copied)
                if submission.origin is not None:
                    _take_over(session, job, submission.origin)
            storage_quota.check_growth(session, jobs[0].owner, sum(job.size_bytes for job in jobs), at_most)
            session.commit()
        for job, submission in zip(jobs, submissions, strict=True):
            _record_new(connection, by, job, submission.origin)
        return answer, False

    return database.group_commit(store)


def _is_plain(submission: Submission) -> bool:
    """Whether storing the job neither reads nor changes any other row."""
    return all(
        value is None for value in (submission.upload_id, submission.origin, submission.copied, submission.investigates)
    )


def _insert_alone(
    database: Database,
    job: Job,
    idempotency: IdempotencyKey | None,
    represent: Callable[[Sequence[Job]], dict[str, Any]],
    by: Actor | None,
) -> tuple[dict[str, Any], bool]:
    """Store a job and its related rows with one statement of PostgreSQL: seven would take half as much CPU time again.

    The response contains the time of the insertion, which the database determines. Until then, a random
    instant in the far future is its placeholder: it cannot be guessed, so no text of a user contains it.
    """
    job.created_ms = job.queued_ms = _FAR_FUTURE_MS + secrets.randbits(46)
    answer = TimeTemplate(json.dumps(represent([job])), placeholder=at_time(job.created_ms))
    rows = [] if idempotency is None else [_key_row(idempotency, job, answer)]
    rows += [NewRow(JOBS, _columns(job), times=("created_ms", "queued_ms")), _first_event_row(job)]
    rows += [NewRow(JOB_TAGS, {"tag": tag, "job_id": job.id}) for tag in set(job.tags)]
    rows += audit.new_rows(by, AuditAction.SUBMIT, job.id)
    now = database.run_alone(lambda connection: insert_rows(connection, rows, once=idempotency is not None))
    if now is not None:
        audit.was_recorded(by, AuditAction.SUBMIT, job.id)
        return dict(json.loads(answer.at(now))), False
    with database.read() as session:
        earlier = replay(session, idempotency, owner=job.owner) if idempotency is not None else None
    if earlier is None:  # it was stored a day ago, and deleted just now
        return _insert_alone(database, job, idempotency, represent, by)
    return earlier, True


def _key_row(idempotency: IdempotencyKey, job: Job, answer: TimeTemplate) -> NewRow:
    values = {"owner": job.owner or "", "key": idempotency.key, "fingerprint": idempotency.fingerprint}
    return NewRow(IDEMPOTENCY, values | {"job_id": job.id, "answer": answer}, times=("created_ms",))


def _columns(job: Job) -> dict[str, Any]:
    """The columns of a new job that have a value, except its times."""
    values = {name: (getattr(job, name), is_json) for name, is_json in _JOB_COLUMNS}
    return {
        name: json.dumps(value) if is_json else value.value if isinstance(value, Enum) else value
        for name, (value, is_json) in values.items()
        if value is not None
    }


def _first_event_row(job: Job) -> NewRow:
    data = json.dumps(_first_event_data(job))
    return NewRow(EVENTS, {"job_id": job.id, "seq": 1, "type": EventType.STATUS.value, "data": data}, ("created_ms",))


def _first_event_data(job: Job) -> dict[str, Any]:
    first = {"status": Status.QUEUED, "epoch": job.start_epoch}
    request = {"request_id": job.request_id} if job.request_id is not None else {}
    return transitions.status_data(job, reason="submitted") | first | request | tracing.named(job.traceparent)


def add(session: Session, submission: Submission) -> Job:
    """Store a new job in a transaction that is open already; it has no idempotency key, and no line in the audit log.

    Raises:
        SpecError: its dataset has been deleted.
    """
    job = _new_job(submission)
    job.created_ms = job.queued_ms = session.connection().scalar(_NOW) or 0
    _insert(session.connection(), job, deleted_data=True)
    return job


def _new_job(submission: Submission, by: Actor | None = None) -> Job:
    """A job outside any session, complete except for its times; its first event has number 1."""
    spec, origin = submission.resolved, submission.origin
    stored = submission.stored or StoredSpec.of(spec)
    epochs = spec.epochs
    may_have_equal_epochs = submission.investigates is None and kinds.of(spec.kind).trains
    start = origin.start if origin is not None else None
    start_epoch = start.epoch if start is not None else 0
    reproduction: dict[str, Any] | None = None
    if origin is not None and origin.reproduces:
        parent = origin.parent
        reproduction = {"of": parent.id, "result_digest": parent.result_digest, "match": None}
        reproduction["provenance"] = parent.provenance
    investigation: dict[str, Any] | None = None
    if submission.investigates is not None:
        a, b = submission.investigates
        investigation = {"a": a.id, "b": b.id, "found": None, "sentence": None}
    job = Job(
        id=submission.id or new_id("job"),
        owner=submission.owner,
        kind=spec.kind,
        name=spec.name or None,
        tags=list(spec.tags),
        priority=spec.priority,
        budget_seconds=spec.budget.seconds if spec.budget is not None else None,
        spec=dict(submission.spec),
        resolved=stored.document,
        spec_hash=stored.hash,
        spec_version=SPEC_VERSION,
        prefix_hash=stored.prefix_hash if may_have_equal_epochs else None,
        investigation=investigation,
        reused_epochs=0,
        reusable=True,
        parent_id=origin.parent.id if origin is not None else None,
        start_epoch=start_epoch,
        reproduction=reproduction,
        fold_group=submission.fold_group,
        sweep_id=submission.placement.sweep_id if submission.placement is not None else None,
        trial=submission.placement.trial if submission.placement is not None else None,
        hold_epoch=submission.placement.hold_epoch if submission.placement is not None else None,
        status=Status.QUEUED,
        request_id=by.request_id if by is not None else None,
        traceparent=by.traceparent if by is not None else submission.traceparent,
        attempt=1,
        deaths=0,
        lease=0,
        epoch=start_epoch,
        epochs=epochs,
        step=submission.steps // epochs * start_epoch,
        steps=submission.steps,
        metrics={},
        health=[],
        extremes={},
        starred=False,
        upload_id=submission.upload_id,
        dataset_sha256=submission.dataset_sha256,
        size_bytes=start.size_bytes if start is not None else 0,
        expected_bytes=submission.expected_bytes,
        last_seq=1,
    )
    if submission.copied is not None:
        for name, value in submission.copied.values.items():
            setattr(job, name, value)
        job.last_seq += submission.copied.event_count + 2
    return job


def _insert(connection: Connection, job: Job, *, deleted_data: bool) -> None:
    """Store a new job and its first event.

    Raises:
        SpecError: its dataset has been deleted, and ``deleted_data`` is false.
    """
    if job.upload_id is not None:
        _pin(connection, job.upload_id, deleted=deleted_data)
    values = {column.key: getattr(job, column.key) for column in JOBS.columns}
    connection.execute(_INSERT_JOB, {name: value for name, value in values.items() if value is not None})
    if job.tags:
        connection.execute(_INSERT_TAG, [{"tag": tag, "job_id": job.id} for tag in set(job.tags)])
    event = {"job_id": job.id, "seq": 1, "type": EventType.STATUS, "created_ms": job.created_ms}
    connection.execute(_INSERT_EVENT, event | {"data": _first_event_data(job)})


def _store_copied(connection: Connection, job: Job, copied: Copied) -> None:
    """Store the epochs that a new job takes over, and its last events."""
    copied.store(connection, job.id, lease=0, after=1, now=job.created_ms)
    entries = [
        (EventType.STATUS, transitions.status_data(job, reason="reused")),
        (EventType.END, transitions.end_data(job)),
    ]
    rows = [
        {"job_id": job.id, "seq": seq, "type": kind, "data": data, "created_ms": job.created_ms}
        for seq, (kind, data) in enumerate(entries, job.last_seq - 1)
    ]
    connection.execute(_INSERT_EVENT, rows)
    hooks.job_changed(connection, job, reason="reused")
    failpoint("reusing")


def _record_new(connection: Connection, by: Actor | None, job: Job, origin: Origin | None) -> None:
    if origin is None:
        extra = {"reused_from": job.reused_from} if job.reused_from is not None else {}
        extra |= {name: job.investigation[name] for name in ("a", "b")} if job.investigation is not None else {}
        audit.record(connection, by, AuditAction.SUBMIT, job.id, **extra)
    else:
        action = AuditAction.REPRODUCE if origin.reproduces else AuditAction.FORK
        audit.record(connection, by, action, job.id, parent=origin.parent.id)


def _take_over(session: Session, job: Job, origin: Origin) -> None:
    if origin.start is not None:
        session.add(artifact_rows.create(job.id, origin.start, lease=0))
        session.flush()
        artifact_rows.check_store(session, {origin.start.store_id})
    if origin.reproduces:
        # Locked until the commit, so that the epochs are not deleted before they are copied.
        if session.scalar(locking(select(Job.id).where(Job.id == origin.parent.id))) is None:
            raise JobNotFound(origin.parent.id)
        expected = select(literal(job.id), Epoch.epoch, Epoch.metrics, Epoch.samples_digest)
        columns = [ExpectedEpoch.job_id, ExpectedEpoch.epoch, ExpectedEpoch.metrics, ExpectedEpoch.samples_digest]
        session.execute(insert(ExpectedEpoch).from_select(columns, expected.where(Epoch.job_id == origin.parent.id)))


def replay(
    session: Session | Connection, idempotency: IdempotencyKey, *, owner: str | None = None
) -> dict[str, Any] | None:
    """The stored response of an earlier request with this key, or ``None``.

    Raises:
        IdempotencyConflict: the key was used with another body.
    """
    stored = select(Idempotency.fingerprint, Idempotency.answer).where(
        Idempotency.owner == (owner or ""), Idempotency.key == idempotency.key
    )
    earlier = session.execute(stored).first()
    if earlier is None:
        return None
    if earlier.fingerprint != idempotency.fingerprint:
        raise IdempotencyConflict(idempotency.key)
    return dict(earlier.answer)


def take_key(
    connection: Connection, idempotency: IdempotencyKey, job: Job | Sweep, answer: dict[str, Any]
) -> dict[str, Any] | None:
    """Insert the key with its response, or return that of an earlier request.

    Raises:
        IdempotencyConflict: the key was used with another body.
    """
    row: dict[str, Any] = {"owner": job.owner or "", "key": idempotency.key, "fingerprint": idempotency.fingerprint}
    row |= {"job_id": job.id, "answer": answer, "created_ms": job.created_ms}
    if connection.execute(_INSERT_KEY[connection.dialect.name], row).first() is not None:
        return None
    return replay(connection, idempotency, owner=job.owner)


def purge_expired(database: Database) -> None:
    """Delete idempotency keys that are older than their lifetime."""
    with database.write() as session:
        session.execute(delete(Idempotency).where(Idempotency.created_ms < now_ms() - _IDEMPOTENCY_KEY_LIFETIME_MS))


_JOB_COLUMNS: Final = [
    (column.key, isinstance(column.type, JSON))
    for column in JOBS.columns
    if column.key not in ("created_ms", "queued_ms")
]
_NOW: Final = select(now_ms())
_INSERT_KEY: Final = {
    name: dialect.insert(IDEMPOTENCY).on_conflict_do_nothing().returning(IDEMPOTENCY.c.key)
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
_INSERT_JOB, _INSERT_TAG, _INSERT_EVENT = JOBS.insert(), JOB_TAGS.insert(), EVENTS.insert()
"""Built once: building a statement takes as long as executing it."""


def _pin(connection: Connection, upload_id: str, *, deleted: bool) -> None:
    """Lock the data of a new job until the job's row, which refers to them, is committed.

    Args:
        deleted: whether deleted data are accepted, as for a fork or reproduction of a job that used them.

    Raises:
        SpecError: the data have been deleted in the meantime.
    """
    query = select(Upload.id).where(Upload.id == upload_id)
    if not deleted:
        query = query.where(Upload.deleted_ms.is_(None))
    if connection.scalar(locking(query, share=True)) is None:
        detail = "the dataset was deleted while the job was being submitted"
        raise SpecError([Fault(pointer="#/dataset/name", detail=detail, code="dataset_not_found")])
