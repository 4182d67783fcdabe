"""User operations on jobs, each one transaction. The worker's side is in ``leases``, lists are in ``listing``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Select, Update, delete, func, insert, literal, literal_column, select, update
from sqlalchemy.orm import Session
from ulid import ULID

from service.access import audit
from service.access.audit import Actor, AuditAction
from service.errors import ArtifactNotFound, IdempotencyConflict, IllegalTransition, JobNotFound
from service.jobs import events, uploads
from service.jobs.changes import DEFAULT_PRIORITY, JobPatch
from service.jobs.events import EventType
from service.jobs.queries.queue import CLAIM_ORDER
from service.spec.schema import Spec
from service.spec.validation import spec_hash
from service.states import TERMINAL, Action, Request, Status, allowed_actions
from service.storage.artifacts import MEDIA_TYPES, ArtifactKind, StoredFile
from service.storage.database import Database, now_ms
from service.storage.tables import (
    EVENTS,
    JOB_TAGS,
    JOBS,
    Artifact,
    Epoch,
    Event,
    ExpectedEpoch,
    Idempotency,
    Job,
    JobTag,
    Worker,
)

_DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A checked spec on its way into the database."""

    spec: Mapping[str, Any]
    """As sent."""
    resolved: Spec
    steps: int
    owner: str | None = None
    id: str | None = None
    """Known before where files of the job are; else it gets one."""
    origin: Origin | None = None
    upload_id: str | None = None
    """The version of an upload that the spec's dataset is."""
    dataset_sha256: str | None = None
    """Of its data, where it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a job takes over from an earlier one. All of it is copied, so that the earlier one may be deleted."""

    parent: Job
    start: StoredFile | None = None
    """The checkpoint to begin with, which lies in the new job's folder already."""
    reproduces: bool = False
    """Whether the new job is to be compared with the earlier one, epoch by epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """A client's name for one request, and what the request said."""

    key: str
    fingerprint: str


def new_id(prefix: str) -> str:
    """A new id that sorts by the time it was made: ``job_01J...``."""
    return f"{prefix}_{ULID()}"


def submit(
    database: Database,
    submission: Submission,
    *,
    idempotency: IdempotencyKey | None,
    represent: Callable[[Job], dict[str, Any]],
    by: Actor | None = None,
) -> tuple[dict[str, Any], bool]:
    """Store a new job, once.

    Args:
        represent: makes the answer that the client gets; a repetition of the same key gets this same answer.
        by: who does it, for the audit, here and in what follows.

    Returns:
        The answer, and whether it is the stored one of an earlier request.

    Raises:
        IdempotencyConflict: the key came before, with another body.
        JobNotFound: what it is to reproduce was deleted meanwhile.
        SpecError: its dataset was deleted meanwhile.
    """
    # All that takes time comes before the transaction: in SQLite it is the only one that may write.
    job = _new_job(submission)

    def store(session: Session) -> tuple[dict[str, Any], bool]:
        # The bare connection: the session's bookkeeping for a row that nobody asks for again takes longer than the row.
        job.created_ms = job.queued_ms = session.connection().scalar(_NOW) or 0
        answer = represent(job)
        if idempotency is not None:
            # The key is the first write: of two requests at once, the second waits here.
            earlier = _take_key(database, session, idempotency, job, answer)
            if earlier is not None:
                if earlier.fingerprint != idempotency.fingerprint:
                    raise IdempotencyConflict(idempotency.key)
                return earlier.answer, True
        if job.upload_id is not None:
            uploads.pin(session, job.upload_id, deleted=submission.origin is not None)
        _insert(session.connection(), job)
        if submission.origin is not None:
            _take_over(session, job, submission.origin)
        _record_new(session, by, job, submission.origin)
        return answer, False

    return database.group_commit(store)


def _new_job(submission: Submission) -> Job:
    """A job that no session knows, with all but its times; its first event is the one that tells of it."""
    spec, origin = submission.resolved, submission.origin
    start = origin.start if origin is not None else None
    start_epoch = start.epoch if start is not None else 0
    reproduction = None
    if origin is not None and origin.reproduces:
        reproduction = {"of": origin.parent.id, "result_digest": origin.parent.result_digest, "match": None}
    return Job(
        id=submission.id or new_id("job"),
        owner=submission.owner,
        kind=spec.kind,
        name=spec.name or None,
        tags=list(spec.tags),
        priority=spec.priority,
        spec=dict(submission.spec),
        resolved=spec.model_dump(mode="json"),
        spec_hash=spec_hash(spec),
        parent_id=origin.parent.id if origin is not None else None,
        start_epoch=start_epoch,
        reproduction=reproduction,
        status=Status.QUEUED,
        attempt=1,
        deaths=0,
        lease=0,
        epoch=start_epoch,
        epochs=spec.epochs,
        step=submission.steps // spec.epochs * start_epoch,
        steps=submission.steps,
        metrics={},
        health=[],
        extremes={},
        starred=False,
        upload_id=submission.upload_id,
        dataset_sha256=submission.dataset_sha256,
        size_bytes=start.size_bytes if start is not None else 0,
        last_seq=1,
    )


def _insert(connection: Connection, job: Job) -> None:
    """Store a new job and its first event."""
    values = {column.key: getattr(job, column.key) for column in JOBS.columns}
    connection.execute(_INSERT_JOB, {name: value for name, value in values.items() if value is not None})
    if job.tags:
        connection.execute(_INSERT_TAG, [{"tag": tag, "job_id": job.id} for tag in set(job.tags)])
    event = {"job_id": job.id, "seq": job.last_seq, "type": EventType.STATUS, "created_ms": job.created_ms}
    connection.execute(_INSERT_EVENT, event | {"data": _status_data(job, reason="submitted")})


def _record_new(session: Session, by: Actor | None, job: Job, origin: Origin | None) -> None:
    if origin is None:
        audit.record(session, by, AuditAction.SUBMIT, job.id)
    else:
        action = AuditAction.REPRODUCE if origin.reproduces else AuditAction.FORK
        audit.record(session, by, action, job.id, parent=origin.parent.id)


def _take_over(session: Session, job: Job, origin: Origin) -> None:
    if origin.start is not None:
        session.add(artifact_row(job.id, origin.start, lease=0))
    if origin.reproduces:
        # Held until the end, or its epochs might be deleted before they are copied, and nothing be like them.
        if session.scalar(select(Job.id).where(Job.id == origin.parent.id).with_for_update()) is None:
            raise JobNotFound(origin.parent.id)
        expected = select(literal(job.id), Epoch.epoch, Epoch.metrics, Epoch.samples_digest)
        columns = [ExpectedEpoch.job_id, ExpectedEpoch.epoch, ExpectedEpoch.metrics, ExpectedEpoch.samples_digest]
        session.execute(insert(ExpectedEpoch).from_select(columns, expected.where(Epoch.job_id == origin.parent.id)))


def replay(session: Session, idempotency: IdempotencyKey, *, owner: str | None = None) -> dict[str, Any] | None:
    """The stored answer of an earlier request with this key, ``None`` where there was none.

    Raises:
        IdempotencyConflict: the key came before, with another body.
    """
    earlier = session.get(Idempotency, (owner or "", idempotency.key))
    if earlier is None:
        return None
    if earlier.fingerprint != idempotency.fingerprint:
        raise IdempotencyConflict(idempotency.key)
    return earlier.answer


def get(session: Session, job_id: str, *, owner: str | None = None) -> Job:
    """One job.

    Args:
        owner: show only this owner's jobs; ``None`` shows all.

    Raises:
        JobNotFound: there is none, or it is somebody else's.
    """
    job = session.scalar(_owned(select(Job).where(Job.id == job_id), owner))
    if job is None:
        raise JobNotFound(job_id)
    return job


def several(session: Session, job_ids: Collection[str], *, owner: str | None = None) -> Sequence[Job]:
    """Those of the jobs that there are, the newest first."""
    query = _owned(select(Job).where(Job.id.in_(job_ids)), owner)
    return session.scalars(query.order_by(Job.created_ms.desc(), Job.id.desc())).all()


def existing(session: Session, job_ids: Collection[str], *, owner: str | None = None) -> set[str]:
    """Which of these ids are those of jobs."""
    query = select(Job.id).where(Job.id.in_(job_ids))
    return set(session.scalars(query if owner is None else query.where(Job.owner == owner)))


def artifact_epochs(session: Session, job_ids: Collection[str], kind: ArtifactKind) -> dict[str, list[int]]:
    """The epochs of which each of the jobs has a file of this kind, rising; jobs without any are left out."""
    query = select(Artifact.job_id, Artifact.epoch).where(Artifact.job_id.in_(job_ids), Artifact.kind == kind)
    found: dict[str, list[int]] = {}
    for job_id, epoch in session.execute(query.order_by(Artifact.job_id, Artifact.epoch)):
        found.setdefault(job_id, []).append(epoch)
    return found


def cancel(database: Database, job_id: str, *, owner: str | None = None, by: Actor | None = None) -> Job:
    """End a waiting job now, a running one between two batches.

    Raises:
        JobNotFound, IllegalTransition: as they say.
    """
    with database.write() as session:
        job = _claim_for(session, job_id, Action.CANCEL, owner)
        audit.record(session, by, AuditAction.CANCEL, job_id)
        if job.status == Status.RUNNING:
            job.requested = Request.CANCEL
            record_status(session, job, reason="cancel requested")
        else:
            finish(session, job, Status.CANCELLED, reason="cancelled")
        return job


def pause(database: Database, job_id: str, *, owner: str | None = None, by: Actor | None = None) -> Job:
    """Stop a running job between two batches; its last checkpoint stays.

    Raises:
        JobNotFound, IllegalTransition: as they say.
    """
    with database.write() as session:
        job = _claim_for(session, job_id, Action.PAUSE, owner)
        audit.record(session, by, AuditAction.PAUSE, job_id)
        job.requested = Request.PAUSE
        record_status(session, job, reason="pause requested")
        return job


def resume(database: Database, job_id: str, *, owner: str | None = None, by: Actor | None = None) -> Job:
    """Put a paused job back into the queue; it goes on from its last checkpoint.

    Raises:
        JobNotFound, IllegalTransition: as they say.
    """
    with database.write() as session:
        job = _claim_for(session, job_id, Action.RESUME, owner)
        audit.record(session, by, AuditAction.RESUME, job_id)
        _requeue(session, job, reason="resumed")
        return job


def retry(database: Database, job_id: str, *, owner: str | None = None, by: Actor | None = None) -> Job:
    """Put a failed job back into the queue; it goes on from its last checkpoint.

    Raises:
        JobNotFound, IllegalTransition: as they say.
    """
    with database.write() as session:
        job = _claim_for(session, job_id, Action.RETRY, owner)
        audit.record(session, by, AuditAction.RETRY, job_id)
        job.attempt += 1
        job.deaths = 0
        job.error = None
        job.finished_ms = None
        _requeue(session, job, reason="retried")
        return job


def change(
    database: Database,
    job_id: str,
    patch: JobPatch,
    *,
    owner: str | None = None,
    by: Actor | None = None,
    check: Callable[[Job], None] = lambda job: None,
) -> Job:
    """Change what is for people and the queue: name, tags, priority, star, note.

    Args:
        check: looks at the job as it is before, and raises where it is not the one that the client saw.

    Raises:
        JobNotFound: as it says.
    """
    with database.write() as session:
        job = session.scalar(_owned(select(Job).where(Job.id == job_id), owner).with_for_update())
        if job is None:
            raise JobNotFound(job_id)
        check(job)
        given = patch.model_fields_set
        before = _changeable(job)
        if "name" in given:
            job.name = patch.name or None
        if "priority" in given:
            job.priority = DEFAULT_PRIORITY if patch.priority is None else patch.priority
        if "tags" in given:
            job.tags = patch.tags or []
            session.execute(delete(JobTag).where(JobTag.job_id == job_id))
            session.add_all(JobTag(job_id=job_id, tag=tag) for tag in set(job.tags))
        if "starred" in given:
            job.starred = bool(patch.starred)
        if "note" in given:
            job.note = patch.note or None
        if _changeable(job) != before:
            audit.record(session, by, AuditAction.CHANGE, job_id, fields=sorted(given))
            # Without the note: the log is never cut, and a person who deletes a note expects it to be gone.
            told = {"name": job.name, "tags": job.tags, "priority": job.priority, "starred": job.starred}
            record_status(session, job, reason="changed", **told)
        return job


def _changeable(job: Job) -> tuple[Any, ...]:
    return job.name, job.tags, job.priority, job.starred, job.note


def remove(
    database: Database,
    job_id: str,
    *,
    owner: str | None = None,
    by: Actor | None = None,
    check: Callable[[Job], None] = lambda job: None,
) -> None:
    """Delete a finished job's rows. The files are the caller's to remove, after this has committed.

    Args:
        check: looks at the job, which nobody can change meanwhile, and raises where it is to stay.

    Raises:
        JobNotFound, IllegalTransition: as they say.
    """
    with database.write() as session:
        check(_claim_for(session, job_id, Action.DELETE, owner))
        audit.record(session, by, AuditAction.DELETE, job_id)
        for table in (Event, Epoch, ExpectedEpoch, Artifact, JobTag):
            session.execute(delete(table).where(table.job_id == job_id))
        session.execute(delete(Idempotency).where(Idempotency.job_id == job_id))
        session.execute(delete(Job).where(Job.id == job_id))


def epochs(session: Session, job_id: str, *, last: int | None = None) -> Sequence[Epoch]:
    """The finished epochs of a job in order: all, or the last so many."""
    query = select(Epoch).where(Epoch.job_id == job_id)
    if last is None:
        return session.scalars(query.order_by(Epoch.epoch)).all()
    return session.scalars(query.order_by(Epoch.epoch.desc()).limit(last)).all()[::-1]


def count_epochs(session: Session, job_id: str) -> int:
    """How many epochs of a job are finished, without those of the job that it was forked from."""
    return session.scalar(select(func.count()).select_from(Epoch).where(Epoch.job_id == job_id)) or 0


def artifacts(session: Session, job_id: str, kind: ArtifactKind | None = None) -> Sequence[Artifact]:
    """The files of a job, by kind and epoch."""
    query = select(Artifact).where(Artifact.job_id == job_id)
    if kind is not None:
        query = query.where(Artifact.kind == kind)
    return session.scalars(query.order_by(Artifact.kind, Artifact.epoch)).all()


def artifact(session: Session, job_id: str, artifact_id: str) -> Artifact:
    """One file of a job.

    Raises:
        ArtifactNotFound: the job has no such file.
    """
    found = session.get(Artifact, artifact_id)
    if found is None or found.job_id != job_id:
        raise ArtifactNotFound(job_id, f"artifact {artifact_id!r}")
    return found


def checkpoint(session: Session, job: Job, which: str) -> Artifact:
    """The checkpoint a person means by ``best``, ``latest`` or the number of an epoch.

    Raises:
        ArtifactNotFound: there is none such (any more).
    """
    return _of_epoch(session, job, ArtifactKind.CHECKPOINT, which)


def sample(session: Session, job: Job, which: str) -> Artifact:
    """The picture of samples a person means by ``latest`` or the number of an epoch.

    Raises:
        ArtifactNotFound: there is none such.
    """
    return _of_epoch(session, job, ArtifactKind.SAMPLE, which)


def stale_queued(session: Session, *, waited_s: float, limit: int) -> Sequence[str]:
    """Ids of the jobs that are next in the queue and have waited for at least ``waited_s`` seconds."""
    old = Job.queued_ms < now_ms() - int(waited_s * 1000)
    query = select(Job.id).where(Job.status == Status.QUEUED, old).order_by(*CLAIM_ORDER).limit(limit)
    return session.scalars(query).all()


def count_waiting(session: Session, owner: str, *, at_most: int) -> int:
    """How many of an owner's jobs wait; counting ends at ``at_most``."""
    # Spelled as the index is: SQLite does not look into parameters when it chooses one.
    waiting = literal_column("status") == literal_column("'queued'")
    some = select(Job.id).where(Job.owner == owner, waiting).limit(at_most).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def paths(session: Session, job_ids: Collection[str]) -> dict[str, set[str]]:
    """The files that rows of these jobs name, for those of the jobs that there are."""
    found: dict[str, set[str]] = {
        job_id: set() for job_id in session.scalars(select(Job.id).where(Job.id.in_(job_ids)))
    }
    rows = select(Artifact.job_id, Artifact.path).where(Artifact.job_id.in_(job_ids))
    for job_id, path in session.execute(rows):
        found.setdefault(job_id, set()).add(path)
    return found


def measurement() -> Update:
    """The statement that sums up the sizes of every job's files anew."""
    total = select(func.coalesce(func.sum(Artifact.size_bytes), 0)).where(Artifact.job_id == Job.id)
    return update(Job).values(size_bytes=total.scalar_subquery())


def measure(session: Session, job_id: str) -> None:
    """Sum up the sizes of one job's files anew; what the session holds of the job is to be read again."""
    session.flush()
    session.execute(measurement().where(Job.id == job_id).execution_options(synchronize_session=False))


def purge_expired(database: Database) -> None:
    """Drop idempotency keys and workers that nobody can ask about any more."""
    before = now_ms() - _DAY_MS
    with database.write() as session:
        session.execute(delete(Idempotency).where(Idempotency.created_ms < before))
        session.execute(delete(Worker).where(Worker.seen_ms < before))


def record_status(session: Session, job: Job, *, reason: str, **more: Any) -> None:
    """Write the event that belongs to a change of a job's state, in the same transaction."""
    session.flush()
    events.append(session, job.id, [(EventType.STATUS, _status_data(job, reason=reason) | more)])
    session.refresh(job)


def _status_data(job: Job, *, reason: str) -> dict[str, Any]:
    data = {"status": job.status, "requested": job.requested, "attempt": job.attempt, "lease": job.lease}
    return data | {"epoch": job.epoch, "reason": reason}


def finish(session: Session, job: Job, status: Status, *, reason: str) -> None:
    """End a job for good: its state, and the event after which there are no more."""
    if status not in TERMINAL:
        raise ValueError(f"{status} does not end a job")
    job.status = status
    job.requested = None
    job.lease_owner = job.lease_expires_ms = None
    job.finished_ms = session.scalar(select(now_ms()))
    measure(session, job.id)  # a worker of an older version, during an upgrade, does not keep the sum
    record_status(session, job, reason=reason)
    end = {"status": job.status, "error": job.error, "result_digest": job.result_digest}
    events.append(session, job.id, [(EventType.END, end)])
    session.refresh(job)


def _requeue(session: Session, job: Job, *, reason: str) -> None:
    job.status = Status.QUEUED
    job.requested = None
    job.queued_ms = session.scalar(select(now_ms())) or 0
    record_status(session, job, reason=reason)


def _owned(query: Select[Job], owner: str | None) -> Select[Job]:
    return query if owner is None else query.where(Job.owner == owner)


def _claim_for(session: Session, job_id: str, action: Action, owner: str | None) -> Job:
    """Lock a job's row and make sure that the action is legal from where it stands."""
    job = session.scalar(_owned(select(Job).where(Job.id == job_id), owner).with_for_update())
    if job is None:
        raise JobNotFound(job_id)
    require(job, action)
    return job


def require(job: Job, action: Action) -> None:
    """Raise IllegalTransition unless the action is legal from where the job stands."""
    allowed = actions_of(job)
    if action not in allowed:
        raise IllegalTransition(job.id, action, Status(job.status), allowed)


def artifact_row(job_id: str, file: StoredFile, *, lease: int) -> Artifact:
    """The row that makes a file of a job exist."""
    return Artifact(
        id=new_id("art"),
        job_id=job_id,
        kind=file.kind,
        epoch=file.epoch,
        lease=lease,
        name=file.name,
        path=file.path,
        media_type=MEDIA_TYPES[file.kind],
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        created_ms=now_ms(),
    )


def actions_of(job: Job) -> tuple[Action, ...]:
    """What may be asked of this job now."""
    requested = Request(job.requested) if job.requested else None
    code = job.error.get("code") if job.error else None
    return allowed_actions(Status(job.status), requested=requested, error_code=code, epoch=job.epoch)


def _of_epoch(session: Session, job: Job, kind: ArtifactKind, which: str) -> Artifact:
    query = select(Artifact).where(Artifact.job_id == job.id, Artifact.kind == kind)
    if which == "best" and job.best_epoch is not None:
        query = query.where(Artifact.epoch == job.best_epoch)
    elif which not in ("best", "latest"):
        if not (which.isascii() and which.isdigit() and len(which) < 10):
            raise ArtifactNotFound(job.id, f"{kind} {which!r}; name an epoch's number, or latest")
        query = query.where(Artifact.epoch == int(which))
    found = session.scalar(query.order_by(Artifact.epoch.desc()).limit(1))
    if found is None:
        raise ArtifactNotFound(job.id, f"{kind} {which!r}")
    return found


def _take_key(
    database: Database, session: Session, idempotency: IdempotencyKey, job: Job, answer: dict[str, Any]
) -> Idempotency | None:
    """Insert the key with its answer, or give the row that was there before."""
    scope = job.owner or ""
    row = {
        "owner": scope,
        "key": idempotency.key,
        "fingerprint": idempotency.fingerprint,
        "job_id": job.id,
        "answer": answer,
        "created_ms": job.created_ms,
    }
    insertion = database.insert(Idempotency).on_conflict_do_nothing().returning(Idempotency.key)
    if session.connection().execute(insertion, row).first() is not None:
        return None
    return session.get_one(Idempotency, (scope, idempotency.key))


_NOW: Final = select(now_ms())
_INSERT_JOB, _INSERT_TAG, _INSERT_EVENT = JOBS.insert(), JOB_TAGS.insert(), EVENTS.insert()
"""Built once: for a POST, building a statement takes as long as running it."""
