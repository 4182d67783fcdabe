"""What a worker does with jobs. Every write is one transaction that begins with the guard: the job still runs,
and under this lease. Where the guard finds nothing, the worker stops and leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, case, delete, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from service.errors import LeaseLost
from service.jobs import actions, events
from service.jobs.events import EventType
from service.jobs.extremes import extended
from service.jobs.queries.queue import CLAIM_ORDER
from service.runtime.failpoints import reach
from service.spec.findings import Finding
from service.spec.validation import canonical
from service.states import ErrorCode, Request, Status
from service.storage.artifacts import ArtifactKind, StoredFile
from service.storage.database import Database, now_ms
from service.storage.tables import Artifact, Epoch, ExpectedEpoch, Job, Worker

MAX_DEATHS: Final = 3
"""So many workers lost without a new epoch between them make a job fail: it is the job that kills."""
WORKER_GONE_MS: Final = 60_000
_CLAIMING: Final = 7_267_002
"""An arbitrary number that means "Tapeline claims" among PostgreSQL's advisory locks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that this worker may write to, until somebody else claims it."""

    job_id: str
    lease: int
    lease_s: float
    attempt: int = 1
    """For the logs."""
    cpu_seconds: float = 0.0
    """Processor time of the job under earlier leases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Resources that a job has used so far, under this lease and all before it."""

    cpu_seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a training has come."""

    step: int
    steps: int
    steps_per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """All that one finished epoch leaves behind; its files lie on disk already."""

    epoch: int
    position: Position
    metrics: Mapping[str, float]
    confusion: Sequence[Sequence[int]] | None
    samples_digest: str | None
    seconds: float
    is_best: bool
    files: Sequence[StoredFile]
    health: Sequence[Finding] = ()
    """What is wrong with the training after this epoch."""
    cpu_seconds: float | None = None
    """Processor time of the epoch. Like ``seconds``, it is no metric: it differs from run to run."""
    memory_bytes: int | None = None
    """Resident memory at its end."""
    used: Usage | None = None
    """What the whole job has used by now."""


def claim(database: Database, worker: str, lease_s: float, *, max_running: int = 0) -> Claim | None:
    """Take the best job that waits: the highest priority, then the oldest. ``None`` where none waits.

    Args:
        max_running: pass over the jobs of an owner of whom so many run; 0: no limit.
    """
    best = (
        select(Job.id)
        .where(Job.status == Status.QUEUED, *_below(max_running))
        .order_by(*CLAIM_ORDER)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    with database.write() as session:
        if max_running and not database.is_sqlite:
            # One claim at a time: two at once would count the same jobs, and both find room.
            session.execute(select(func.pg_advisory_xact_lock(_CLAIMING)))
        job = session.scalar(
            update(Job)
            .where(Job.id == best, Job.status == Status.QUEUED)
            .values(
                status=Status.RUNNING,
                lease=Job.lease + 1,
                lease_owner=worker,
                lease_expires_ms=_expiry(lease_s),
                started_ms=func.coalesce(Job.started_ms, now_ms()),
            )
            .returning(Job)
            .execution_options(synchronize_session=False)
        )
        if job is None:
            return None
        actions.record_status(session, job, reason="claimed", worker=worker)
        return Claim(
            job_id=job.id,
            lease=job.lease,
            lease_s=lease_s,
            attempt=job.attempt,
            cpu_seconds=job.cpu_seconds or 0.0,
        )


def _below(max_running: int) -> list[ColumnElement[bool]]:
    """What a job must be to be claimed where owners have a limit; a job without an owner has none."""
    if not max_running:
        return []
    running = aliased(Job)
    busy = select(running.owner).where(running.status == Status.RUNNING, running.owner.is_not(None))
    full = busy.group_by(running.owner).having(func.count() >= max_running)
    return [or_(Job.owner.is_(None), Job.owner.not_in(full))]


def begin(database: Database, held: Claim, provenance: Mapping[str, Any]) -> Job:
    """Say where the job runs now, and read it. A change of provenance between two leases is put on record.

    Raises:
        LeaseLost: as it says.
    """
    with database.write() as session:
        job = _guard(session, held)
        if job.provenance is not None and job.provenance != dict(provenance):
            differing = sorted(
                name for name in {*job.provenance, *provenance} if job.provenance.get(name) != provenance.get(name)
            )
            note = f"continued under another {', '.join(differing)}: the bits may differ from an undisturbed run"
            data = {"level": "warning", "code": "mixed_provenance", "message": note}
            events.append(session, job.id, [(EventType.LOG, data)])
        job.provenance = dict(provenance)
        if job.dataset_sha256 is None:  # of a folder: from now on it must be these data
            job.dataset_sha256 = provenance.get("dataset")
        session.flush()
        session.refresh(job)
        return job


def renew(database: Database, held: Claim, position: Position | None, used: Usage | None = None) -> Request | None:
    """Keep the lease, tell how far it is and what it has used, and hear what was asked of the job.

    Raises:
        LeaseLost: as it says.
    """
    values: dict[str, Any] = {}
    if position is not None:
        values = {"step": position.step, "steps": position.steps}
        values["steps_per_second"] = position.steps_per_second
    with database.write() as session:
        requested = _guard(session, held, **values, **_used(used)).requested
        return Request(requested) if requested else None


def requested(database: Database, held: Claim) -> Request | None:
    """Hear what was asked of the job, without a write.

    Raises:
        LeaseLost: as it says.
    """
    query = select(Job.requested).where(Job.id == held.job_id, Job.status == Status.RUNNING, Job.lease == held.lease)
    with database.read() as session:
        found = session.execute(query).first()
    if found is None:
        raise LeaseLost(held.job_id, held.lease)
    return Request(found.requested) if found.requested else None


def commit_epoch(database: Database, held: Claim, record: EpochRecord, *, keep_last: int) -> list[str]:
    """Make an epoch count: metrics, events, sample and checkpoint rows, progress, in one transaction.

    An epoch that was trained before (its checkpoint was lost, or none was due) must give the stored metrics;
    where it does not, the log says so.

    Returns:
        Paths of files that no row names any more, for the caller to remove.

    Raises:
        LeaseLost: as it says.
    """
    with database.write() as session:
        job = _guard(session, held, **_used(record.used))
        if record.is_best:
            job.best_epoch = record.epoch
        news = _record_metrics(session, job, record)
        orphans: list[str] = []
        for file in record.files:
            known = session.scalar(
                select(Artifact).where(
                    Artifact.job_id == job.id, Artifact.kind == file.kind, Artifact.epoch == file.epoch
                )
            )
            if known is not None:
                if known.path != file.path:
                    orphans.append(file.path)
                continue
            row = actions.artifact_row(job.id, file, lease=held.lease)
            session.add(row)
            job.size_bytes += file.size_bytes
            data = {
                "epoch": file.epoch,
                "artifact": row.id,
                "sha256": file.sha256,
                "size_bytes": file.size_bytes,
            }
            if file.kind is ArtifactKind.CHECKPOINT:
                data["best"] = record.is_best
            news.append((EventType(file.kind.value), data))
        if news:
            events.append(session, job.id, news)
        session.flush()
        orphans += _prune_checkpoints(session, job, keep_last)
        session.flush()
        reach("epoch_committing", record.epoch)
        return orphans


def checkpoints(database: Database, held: Claim) -> Sequence[Artifact]:
    """The job's checkpoints, the newest first."""
    with database.read() as session:
        return actions.artifacts(session, held.job_id, ArtifactKind.CHECKPOINT)[::-1]


def drop_checkpoint(database: Database, held: Claim, damaged: Artifact, reason: str) -> None:
    """Forget a checkpoint that cannot be read, and say so in the log.

    Raises:
        LeaseLost: as it says.
    """
    with database.write() as session:
        job = _guard(session, held)
        row = session.get(Artifact, damaged.id)
        if row is None:  # done before, in a transaction of which nobody heard
            return
        session.delete(row)
        job.size_bytes -= row.size_bytes
        message = f"the checkpoint of epoch {damaged.epoch} is damaged and was dropped: {reason}"
        data = {"level": "warning", "code": "checkpoint_damaged", "message": message, "epoch": damaged.epoch}
        events.append(session, held.job_id, [(EventType.LOG, data)])


def log(database: Database, held: Claim, level: str, code: str, message: str) -> None:
    """Put a line into the job's log.

    Raises:
        LeaseLost: as it says.
    """
    with database.write() as session:
        _guard(session, held)
        data = {"level": level, "code": code, "message": message}
        events.append(session, held.job_id, [(EventType.LOG, data)])


def digest(database: Database, held: Claim, weights_digest: str) -> str:
    """Sum a whole result up in one SHA-256: the final weights, every epoch's metrics, every sample's pixels."""
    with database.read() as session:
        rows = [[row.epoch, row.metrics, row.samples_digest] for row in actions.epochs(session, held.job_id)]
    text = canonical({"weights": weights_digest, "epochs": rows})
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def succeed(
    database: Database,
    held: Claim,
    result_digest: str,
    *,
    stopped_early: Mapping[str, Any] | None = None,
    used: Usage | None = None,
    keep_last: int | None = None,
) -> list[str]:
    """The training is done.

    Args:
        stopped_early: why, where that is before its last epoch.
        keep_last: of the latest checkpoints keep so many, besides the best; ``None``: all that there are.

    Returns:
        Paths of files that no row names any more, for the caller to remove.

    Raises:
        LeaseLost: as it says.
    """
    with database.write() as session:
        job = _guard(session, held, **_used(used))
        job.result_digest = result_digest
        if stopped_early is not None:
            job.stopped_early = dict(stopped_early)
            job.steps = job.steps // job.epochs * job.epoch
            data = {"level": "info", "code": "stopped_early", "message": _why_early(job, stopped_early)}
            events.append(session, job.id, [(EventType.LOG, data)])
        job.step = job.steps
        if job.reproduction is not None and job.reproduction["match"] is None:
            # Where every epoch's metrics and samples were equal, what is left are the weights.
            same = job.reproduction["result_digest"] == result_digest
            _conclude(session, job, job.reproduction, None if same else {"epoch": job.epoch, "differs": ["weights"]})
        unnamed = _prune_checkpoints(session, job, keep_last) if keep_last is not None else []
        actions.finish(session, job, Status.SUCCEEDED, reason="done")
        session.flush()
        reach("succeeding")
        return unnamed


def _why_early(job: Job, why: Mapping[str, Any]) -> str:
    epochs = "1 epoch" if why["patience"] == 1 else f"{why['patience']} epochs"
    best = f"{why['metric']} was best in epoch {why['best_epoch']} ({why['best']:.6g})"
    return f"stopped after epoch {job.epoch} of {job.epochs}: {best}, and not better for {epochs}"


def fail(database: Database, held: Claim, error: Mapping[str, Any], *, used: Usage | None = None) -> None:
    """The training itself went wrong; ``error`` has at least ``code`` and ``message``.

    Raises:
        LeaseLost: as it says.
    """
    with database.write() as session:
        job = _guard(session, held, **_used(used))
        job.error = dict(error)
        actions.finish(session, job, Status.FAILED, reason=str(error["code"]))


def hand_back(database: Database, held: Claim, request: Request | None, *, used: Usage | None = None) -> None:
    """Give the job up between two batches: because somebody asked, or because this worker stops.

    What the unfinished epoch did is thrown away; the next worker goes on from the last checkpoint.

    Raises:
        LeaseLost: as it says.
    """
    with database.write() as session:
        job = _guard(session, held, **_used(used))
        # A worker may stop in the moment in which a person asks: the request counts.
        asked = Request(job.requested) if job.requested else request
        _let_go(session, job, asked, reason="handed back")
        session.flush()
        reach("handing_back")


def report_death(database: Database, held: Claim, message: str, *, used: Usage | None = None) -> None:
    """The child that trained is gone without a word.

    Raises:
        LeaseLost: as it says.
    """
    with database.write() as session:
        record_worker_loss(session, _guard(session, held, **_used(used)), message)


def release_unacknowledged_claims(database: Database, worker: str, known: Collection[Claim]) -> list[str]:
    """Put back jobs that run in this worker's name without its knowing; gives their ids.

    The claim of such a job was committed, but the answer got lost: it is nobody's death.
    """
    mine = select(Job).where(Job.status == Status.RUNNING, Job.lease_owner == worker).with_for_update()
    held = {(claimed.job_id, claimed.lease) for claimed in known}
    with database.write() as session:
        unknown = [job for job in session.scalars(mine) if (job.id, job.lease) not in held]
        for job in unknown:
            _let_go(session, job, Request(job.requested) if job.requested else None, reason="handed back")
        return [job.id for job in unknown]


def clock(database: Database) -> int:
    """The database's time, milliseconds since 1970."""
    with database.read() as session:
        return session.scalar(select(now_ms())) or 0


def check_in(database: Database, worker: Worker) -> None:
    """Say that a worker process is alive."""
    values = {
        "host": worker.host,
        "pid": worker.pid,
        "slots": worker.slots,
        "running": worker.running,
        "draining": worker.draining,
        "seen_ms": now_ms(),
    }
    insert = database.insert(Worker).values(id=worker.id, started_ms=now_ms(), **values)
    with database.write() as session:
        session.execute(insert.on_conflict_do_update(index_elements=[Worker.id], set_=values))


def sign_off(database: Database, worker_id: str) -> None:
    """Say that a worker process is gone."""
    with database.write() as session:
        session.execute(delete(Worker).where(Worker.id == worker_id))


def live_workers(session: Session) -> Sequence[Worker]:
    """The worker processes that were seen lately."""
    seen = Worker.seen_ms > now_ms() - WORKER_GONE_MS
    return session.scalars(select(Worker).where(seen).order_by(Worker.started_ms)).all()


def _expiry(lease_s: float) -> Any:
    return now_ms() + int(lease_s * 1000)


def _guard(session: Session, held: Claim, **values: Any) -> Job:
    job = session.scalar(
        update(Job)
        .where(Job.id == held.job_id, Job.status == Status.RUNNING, Job.lease == held.lease)
        .values(lease_expires_ms=_expiry(held.lease_s), **values)
        .returning(Job)
        .execution_options(synchronize_session=False)
    )
    if job is None:
        raise LeaseLost(held.job_id, held.lease)
    return job


def _used(used: Usage | None) -> dict[str, Any]:
    """Values for the guard: totals, not additions, so that a write may be repeated; and the greater one stays,
    whether the supervisor or its child was the later to write."""
    if used is None:
        return {}
    return {
        "cpu_seconds": case((Job.cpu_seconds > used.cpu_seconds, Job.cpu_seconds), else_=used.cpu_seconds),
        "peak_memory_bytes": case(
            (Job.peak_memory_bytes > used.peak_memory_bytes, Job.peak_memory_bytes), else_=used.peak_memory_bytes
        ),
    }


def _record_metrics(session: Session, job: Job, record: EpochRecord) -> list[tuple[EventType, Mapping[str, Any]]]:
    stored = session.get(Epoch, (job.id, record.epoch))
    metrics = _storable(record.metrics)
    if stored is None:
        job.deaths = 0  # not where an epoch is trained again: a job that kills each time behind it would go on for ever
        job.epoch, job.metrics = record.epoch, metrics
        job.extremes = extended(job.extremes, metrics, record.epoch)
        job.step, job.steps = record.position.step, record.position.steps
        session.add(
            Epoch(
                job_id=job.id,
                epoch=record.epoch,
                step=record.position.step,
                metrics=metrics,
                confusion=[list(row) for row in record.confusion] if record.confusion is not None else None,
                samples_digest=record.samples_digest,
                seconds=record.seconds,
                cpu_seconds=record.cpu_seconds,
                memory_bytes=record.memory_bytes,
                lease=job.lease,
                finished_ms=now_ms(),
            )
        )
        _compare(session, job, record, metrics)
        data = {"epoch": record.epoch, "step": record.position.step, "values": metrics, "seconds": record.seconds}
        data |= {"cpu_seconds": record.cpu_seconds, "memory_bytes": record.memory_bytes}
        data["health"] = [finding.code.value for finding in record.health]
        return [(EventType.METRICS, data), *_record_health(job, record)]
    if stored.metrics == metrics and stored.samples_digest == record.samples_digest:
        return []
    differing = _differing(stored.metrics, metrics) or ["samples"]
    message = f"epoch {record.epoch}, trained again, gave another {', '.join(differing)}"
    data = {"level": "error", "code": "determinism_violation", "message": message, "epoch": record.epoch}
    return [(EventType.LOG, data | {"stored": stored.metrics, "again": metrics})]


def _compare(session: Session, job: Job, record: EpochRecord, metrics: Mapping[str, Any]) -> None:
    """Compare an epoch of a reproduction with the original's; the first that differs ends the comparison."""
    if job.reproduction is None or job.reproduction["match"] is not None:
        return
    expected = session.get(ExpectedEpoch, (job.id, record.epoch))
    differs = ["epochs"] if expected is None else _differing(expected.metrics, metrics)
    if expected is not None and expected.samples_digest != record.samples_digest:
        differs = [*differs, "samples"]
    if differs:
        _conclude(session, job, job.reproduction, {"epoch": record.epoch, "differs": differs})


def _conclude(
    session: Session, job: Job, reproduction: Mapping[str, Any], difference: Mapping[str, Any] | None
) -> None:
    """Say what came of a reproduction, in the job and in its log."""
    original = reproduction["of"]
    if difference is None:
        job.reproduction = {**reproduction, "match": True}
        data = {"level": "info", "code": "reproduced", "message": f"every bit is that of {original}"}
    else:
        job.reproduction = {**reproduction, "match": False, "first_difference": dict(difference)}
        names = ", ".join(difference["differs"])
        message = f"epoch {difference['epoch']} gave another {names} than {original}"
        data = {"level": "error", "code": "not_reproduced", "message": message, **difference}
    session.flush()
    events.append(session, job.id, [(EventType.LOG, data)])


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _record_health(job: Job, record: EpochRecord) -> list[tuple[EventType, Mapping[str, Any]]]:
    """Keep what is wrong now, and tell of what was found and what is over."""
    before, now = job.health, [finding.document() for finding in record.health]
    job.health = now
    over = [(finding, "over") for finding in before if finding not in now]
    found = [(finding, "found") for finding in now if finding not in before]
    return [
        (EventType.HEALTH, {"state": state, **finding, "epoch": record.epoch, "since": finding["epoch"]})
        for finding, state in over + found
    ]


def _storable(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Null for what is not finite: PostgreSQL's JSON has no NaN, and neither has anybody else's."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _prune_checkpoints(session: Session, job: Job, keep_last: int) -> list[str]:
    ours = (Artifact.job_id == job.id, Artifact.kind == ArtifactKind.CHECKPOINT)
    oldest_kept = select(Artifact.epoch).where(*ours).order_by(Artifact.epoch.desc()).offset(keep_last - 1).limit(1)
    # What a fork began with is all that it can begin with again.
    spared = [epoch for epoch in (job.best_epoch, job.start_epoch) if epoch is not None]
    spare = session.scalars(
        select(Artifact)
        .where(*ours, Artifact.epoch < oldest_kept.scalar_subquery(), Artifact.epoch.not_in(spared))
        .order_by(Artifact.epoch)
    ).all()
    for row in spare:
        session.delete(row)
        job.size_bytes -= row.size_bytes
    return [row.path for row in spare]


def _let_go(session: Session, job: Job, request: Request | None, *, reason: str) -> None:
    """Where a job goes that nobody trains any more, without having ended."""
    last = session.scalar(select(func.max(Epoch.step)).where(Epoch.job_id == job.id))
    job.step = last or job.steps // job.epochs * job.start_epoch
    job.steps_per_second = None
    match request:
        case Request.CANCEL:
            actions.finish(session, job, Status.CANCELLED, reason="cancelled")
            return
        case Request.PAUSE:
            job.status, reason = Status.PAUSED, "paused"
        case None:
            job.status = Status.QUEUED
    job.requested = None
    job.lease_owner = job.lease_expires_ms = None
    actions.record_status(session, job, reason=reason)


def record_worker_loss(session: Session, job: Job, message: str) -> None:
    """Count a worker of this job, whose row is locked, as lost: the job waits again, or has failed."""
    job.deaths += 1
    if job.requested is None and job.deaths >= MAX_DEATHS:
        text = f"{message}; {job.deaths} workers were lost without a new epoch between them"
        job.error = {"code": ErrorCode.WORKER_LOST, "message": text, "epoch": job.epoch}
        actions.finish(session, job, Status.FAILED, reason=ErrorCode.WORKER_LOST)
        return
    job.attempt += 1
    _let_go(session, job, Request(job.requested) if job.requested else None, reason=f"{events.WORKER_LOST}: {message}")
