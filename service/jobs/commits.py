"""Writes of a worker under its lease: epochs, log lines, and the result.

Each write is one transaction that begins with the lease guard, and raises ``LeaseLost`` if the guard fails.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.access import storage_quota
from service.jobs import events, leases, transitions
from service.jobs.events import EventType
from service.jobs.extremes import extended
from service.jobs.leases import Claim, Position, Usage
from service.jobs.queries import lookup
from service.runtime.failpoints import reach
from service.spec.findings import Finding
from service.spec.intervals import interval_of
from service.spec.metric_info import NOT_DIGESTED, TEST_SCORES, describe, number
from service.spec.strict_json import canonical
from service.states import Status
from service.storage import artifact_rows
from service.storage.artifacts import ArtifactKind, StoredFile
from service.storage.database import Database
from service.storage.model_tables import ModelVersion
from service.storage.tables import Artifact, Epoch, ExpectedEpoch, Job
from service.wording import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """The data to commit for a finished epoch; its files are on disk already."""

    epoch: int
    position: Position
    metrics: Mapping[str, float]
    confusion: Sequence[Sequence[int]] | None
    samples_digest: str | None
    seconds: float
    is_best: bool
    files: Sequence[StoredFile]
    health: Sequence[Finding] = ()
    """The findings after this epoch."""
    cpu_seconds: float | None = None
    """CPU time of the epoch. Like ``seconds``, it differs from run to run, so it is not a metric."""
    memory_bytes: int | None = None
    """Resident memory at the end of the epoch."""
    used: Usage | None = None
    """Resources of the whole job so far."""
    goes_on: bool = True
    """Whether another epoch would follow."""

    def is_paused_by_sweep(self, hold_epoch: int | None) -> bool:
        """Whether the sweep pauses a job with this hold epoch after this record's epoch."""
        return self.goes_on and leases.reaches_hold(self.epoch, hold_epoch)


Then = Callable[[Session, Job], None]
"""Further writes of the transaction in which a job pauses or ends."""


def _no_op(session: Session, job: Job) -> None:
    """No further writes."""


def commit_epochs(
    database: Database,
    claim: Claim,
    records: Sequence[EpochRecord],
    *,
    keep_last: int,
    at_most: int = 0,
    then: Then = _no_op,
) -> list[str]:
    """Commit consecutive epochs: metrics, events, artifact rows and progress, in one transaction.

    If its sweep pauses the job after the last of them, the commit also ends the lease.

    An epoch that was committed before (its checkpoint was lost, or none was due) must have the stored metrics; a
    difference is logged as an error.

    Args:
        at_most: maximum bytes of the files of all jobs of an owner who has no limit of their own; 0: no limit.

    Returns:
        Paths of files without rows, for the caller to remove.

    Raises:
        StorageQuotaExceeded: the files of these epochs exceed the limit; none is committed.
        WrongStore: the service has moved to another store; none is committed.
    """
    last = records[-1]
    with database.write() as session:
        job = leases.guard(session, claim, **leases.usage_values(last.used))
        if records[0].epoch <= job.epoch and (stored := _stored_paths(session, records)):
            # Done before, in a transaction whose response was lost; it may have removed checkpoints again.
            return [file.path for record in records for file in record.files if file.path not in stored]
        now = leases.time_of_guard(job, claim)
        size_before = job.size_bytes
        orphans: list[str] = []
        rows: list[Artifact] = []
        for record in records:
            new_rows, stored_before = _record_epoch(session, job, record, now)
            rows, orphans = rows + new_rows, orphans + stored_before
        if any(row.kind == ArtifactKind.CHECKPOINT for row in rows):
            orphans += _prune_checkpoints(session, job, keep_last, rows)
        session.add_all(rows)
        session.flush()
        artifact_rows.check_store(session, {file.store_id for record in records for file in record.files})
        if last.is_paused_by_sweep(job.hold_epoch):
            leases.pause_for_sweep(session, job)
            then(session, job)
        storage_quota.check_growth(session, job.owner, job.size_bytes - size_before, at_most)
        for record in records:
            reach("epoch_committing", record.epoch)
        return orphans


def _record_epoch(session: Session, job: Job, record: EpochRecord, now: int) -> tuple[list[Artifact], list[str]]:
    """Record one epoch; returns the new rows of its files, and the paths of files that were stored before."""
    if record.is_best:
        job.best_epoch = record.epoch
    # Of an epoch after all others there are no rows yet.
    is_repeated = record.epoch <= job.epoch
    new_events = _record_metrics(session, job, record, now, is_repeated=is_repeated)
    stored_paths = _stored_files(session, job, record) if is_repeated else {}
    orphans: list[str] = []
    rows: list[Artifact] = []
    for file in record.files:
        if file.kind in stored_paths:
            if stored_paths[file.kind] != file.path:
                orphans.append(file.path)
            continue
        row = artifact_rows.create(job.id, file, lease=job.lease, now=now)
        rows.append(row)
        job.size_bytes += file.size_bytes
        data = {
            "epoch": file.epoch,
            "artifact": row.id,
            "sha256": file.sha256,
            "size_bytes": file.size_bytes,
        }
        if file.kind is ArtifactKind.CHECKPOINT:
            data["best"] = record.is_best
        new_events.append((EventType(file.kind.value), data))
    events.append_to(session, job, new_events, now=now)
    return rows, orphans


def _stored_paths(session: Session, records: Sequence[EpochRecord]) -> set[str]:
    """The paths of the files of these epochs that have rows. A path names its lease, and never repeats."""
    paths = [file.path for record in records for file in record.files]
    return set(session.scalars(select(Artifact.path).where(Artifact.path.in_(paths)))) if paths else set()


def _stored_files(session: Session, job: Job, record: EpochRecord) -> Mapping[str, str]:
    """The paths of the epoch's files that were committed before, by kind."""
    if not record.files:
        return {}
    query = select(Artifact.kind, Artifact.path).where(Artifact.job_id == job.id, Artifact.epoch == record.epoch)
    return {row.kind: row.path for row in session.execute(query)}


def finished_epochs(database: Database, claim: Claim) -> Sequence[Epoch]:
    """The job's committed epochs, in order."""
    with database.read() as session:
        return lookup.epochs(session, claim.job_id)


def checkpoints(database: Database, claim: Claim) -> Sequence[Artifact]:
    """The job's checkpoints, newest first."""
    with database.read() as session:
        return lookup.artifacts(session, claim.job_id, ArtifactKind.CHECKPOINT)[::-1]


def drop_checkpoint(database: Database, claim: Claim, damaged: Artifact, reason: str) -> None:
    """Delete the row of a damaged checkpoint and log it."""
    with database.write() as session:
        job = leases.guard(session, claim)
        row = session.get(Artifact, damaged.id)
        if row is None:  # done before, in a transaction whose response was lost
            return
        session.delete(row)
        job.size_bytes -= row.size_bytes
        message = f"the checkpoint of epoch {damaged.epoch} is damaged and was dropped: {reason}"
        events.log(session, claim.job_id, "warning", "checkpoint_damaged", message, epoch=damaged.epoch)


def log(database: Database, claim: Claim, level: str, code: str, message: str) -> None:
    """Append a line to the job's log."""
    with database.write() as session:
        leases.guard(session, claim)
        events.log(session, claim.job_id, level, code, message)


def digest(
    database: Database, claim: Claim, weights_digest: str, test_scores: Mapping[str, float] | None = None
) -> str:
    """The result digest: SHA-256 over the final weights, the metrics of all epochs, the pixels of all samples, and the
    scores on the test part, if there is one."""
    with database.read() as session:
        rows = [_digested(row) for row in lookup.epochs(session, claim.job_id)]
    test_entry = {"test": _comparable(_storable(test_scores))} if test_scores is not None else {}
    text = canonical({"weights": weights_digest, "epochs": rows, **test_entry})
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _digested(row: Epoch) -> list[Any]:
    """What the result digest has of an epoch."""
    return [row.epoch, _comparable(row.metrics), row.samples_digest]


def epoch_digest(row: Epoch) -> str:
    """The SHA-256 (hex) over what the result digest has of an epoch: its number, metrics, and the pixels of its
    samples."""
    return hashlib.sha256(canonical(_digested(row)).encode()).hexdigest()


def test_digest(scores: Mapping[str, Any]) -> str:
    """The SHA-256 (hex) over what the result digest has of the stored scores on the test part."""
    return hashlib.sha256(canonical(_comparable(scores)).encode()).hexdigest()


def succeed(
    database: Database,
    claim: Claim,
    result_digest: str,
    *,
    test_scores: Mapping[str, float] | None = None,
    stopped_early: Mapping[str, Any] | None = None,
    used: Usage | None = None,
    keep_last: int | None = None,
    then: Then = _no_op,
) -> list[str]:
    """End the job as succeeded.

    Args:
        test_scores: on the test part of the data, if there is one.
        stopped_early: the reason, if it ended before its last epoch.
        keep_last: number of latest checkpoints to keep, besides the best; ``None``: all.

    Returns:
        Paths of files without rows, for the caller to remove.
    """
    with database.write() as session:
        job = leases.guard(session, claim, **leases.usage_values(used))
        job.result_digest = result_digest
        if test_scores is not None:
            job.test_scores = _storable(test_scores)
            events.log(session, job.id, "info", "tested", _describe_test(test_scores), **job.test_scores)
        if stopped_early is not None:
            job.stopped_early = dict(stopped_early)
            job.steps = job.steps // job.epochs * job.epoch
            events.log(session, job.id, "info", "stopped_early", _explain_early_stop(job, stopped_early))
        job.step = job.steps
        if job.reproduction is not None and job.reproduction["match"] is None:
            difference = None
            if job.reproduction["result_digest"] != result_digest:
                # All epochs are equal, so only test scores or weights can differ. Without the original, assume weights.
                original = session.get(Job, job.reproduction["of"])
                part = "weights" if original is None else final_difference(original, job)
                difference = {"epoch": job.epoch, "differs": [part]}
            _conclude(session, job, job.reproduction, difference)
        orphans = _prune_checkpoints(session, job, keep_last) if keep_last is not None else []
        transitions.finish(session, job, Status.SUCCEEDED, reason="done")
        session.flush()
        then(session, job)
        reach("succeeding")
        return orphans


def succeed_prediction(
    database: Database, claim: Claim, file: StoredFile, *, rows: int, at_most: int = 0, used: Usage | None = None
) -> None:
    """Commit the file of a prediction, and end the job as succeeded.

    Args:
        rows: in the file, besides its header.
        at_most: as for ``commit_epochs``.

    Raises:
        StorageQuotaExceeded: the file exceeds the limit; nothing is committed.
        WrongStore: the service has moved to another store; nothing is committed.
    """
    with database.write() as session:
        job = leases.guard(session, claim, **leases.usage_values(used))
        row = artifact_rows.create(job.id, file, lease=claim.lease)
        session.add(row)
        job.size_bytes += file.size_bytes
        job.epoch, job.step, job.steps = file.epoch, rows, rows
        job.result_digest = f"sha256:{file.sha256}"
        message = f"{counted(rows, 'row')}, {file.size_bytes:,} bytes"
        facts = {"artifact": row.id, "sha256": file.sha256, "size_bytes": file.size_bytes}
        session.flush()
        events.log(session, job.id, "info", "predicted", message, **facts)
        transitions.finish(session, job, Status.SUCCEEDED, reason="done")
        artifact_rows.check_store(session, {file.store_id})
        storage_quota.check_growth(session, job.owner, file.size_bytes, at_most)
        reach("succeeding")


def pinned_checkpoint(database: Database, claim: Claim, job_id: str, sha256: str) -> tuple[Job, Artifact] | None:
    """A checkpoint of another job, with that job; ``None``: it was deleted."""
    query = select(Job, Artifact).join(Artifact, Artifact.job_id == Job.id)
    query = query.where(Job.id == job_id, Artifact.kind == ArtifactKind.CHECKPOINT, Artifact.sha256 == sha256)
    with database.read() as session:
        row = session.execute(query.limit(1)).first()
        return None if row is None else (row[0], row[1])


def _describe_test(scores: Mapping[str, float]) -> str:
    count, texts = int(scores.get("test_count", 0)), []
    for name in TEST_SCORES:
        if name in scores:
            interval = interval_of(name, scores, count)
            text = f"{describe(name).label} {number(name, scores[name])}"
            texts.append(text if interval is None else f"{text} {interval.text}")
    return f"{', '.join(texts)}, with the weights of epoch {scores['test_epoch']}"


def _explain_early_stop(job: Job, reason: Mapping[str, Any]) -> str:
    epochs = "1 epoch" if reason["patience"] == 1 else f"{reason['patience']} epochs"
    best = f"{reason['metric']} was best in epoch {reason['best_epoch']} ({reason['best']:.6g})"
    return f"stopped after epoch {job.epoch} of {job.epochs}: {best}, and not better for {epochs}"


def fail(
    database: Database, claim: Claim, error: Mapping[str, Any], *, used: Usage | None = None, then: Then = _no_op
) -> None:
    """End the job as failed; ``error`` has at least ``code`` and ``message``."""
    with database.write() as session:
        job = leases.guard(session, claim, **leases.usage_values(used))
        job.error = dict(error)
        transitions.finish(session, job, Status.FAILED, reason=str(error["code"]))
        then(session, job)


def _record_metrics(
    session: Session, job: Job, record: EpochRecord, now: int, *, is_repeated: bool
) -> list[tuple[EventType, Mapping[str, Any]]]:
    stored = session.get(Epoch, (job.id, record.epoch)) if is_repeated else None
    metrics = _storable(record.metrics)
    if stored is None:
        job.deaths = 0  # not for a repeated epoch, or a job that always kills its worker after it would never fail
        job.epoch, job.metrics = record.epoch, metrics
        job.extremes = extended(job.extremes, metrics, record.epoch)
        # The supervisor may already have reported a batch of the next epoch.
        job.step, job.steps = max(job.step, record.position.step), record.position.steps
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
                finished_ms=now,
            )
        )
        _compare_epoch(session, job, record, metrics)
        data = {"epoch": record.epoch, "step": record.position.step, "values": metrics, "seconds": record.seconds}
        data |= {"cpu_seconds": record.cpu_seconds, "memory_bytes": record.memory_bytes}
        data["health"] = [finding.code.value for finding in record.health]
        return [(EventType.METRICS, data), *_record_health(job, record)]
    if _comparable(stored.metrics) == _comparable(metrics) and stored.samples_digest == record.samples_digest:
        return []
    job.reusable = False
    names = _differences(stored.metrics, metrics) or ["samples"]
    message = f"epoch {record.epoch}, trained again, differs in {', '.join(names)}"
    data = {"level": "error", "code": events.DETERMINISM_VIOLATION, "message": message, "epoch": record.epoch}
    return [(EventType.LOG, data | {"stored": stored.metrics, "again": metrics})]


def _compare_epoch(session: Session, job: Job, record: EpochRecord, metrics: Mapping[str, Any]) -> None:
    """Compare an epoch of a reproduction with the original's; the first difference ends the comparison."""
    if job.reproduction is None or job.reproduction["match"] is not None:
        return
    expected = session.get(ExpectedEpoch, (job.id, record.epoch))
    differs = ["epochs"] if expected is None else _differences(expected.metrics, metrics)
    if expected is not None and expected.samples_digest != record.samples_digest:
        differs = [*differs, "samples"]
    if differs:
        _conclude(session, job, job.reproduction, {"epoch": record.epoch, "differs": differs})


def _conclude(
    session: Session, job: Job, reproduction: Mapping[str, Any], difference: Mapping[str, Any] | None
) -> None:
    """Record the result of a reproduction, in the job and in its log."""
    original = reproduction["of"]
    if difference is None:
        job.reproduction = {**reproduction, "match": True}
        session.flush()
        events.log(session, job.id, "info", "reproduced", f"bit-identical to {original}")
    else:
        job.reproduction = {**reproduction, "match": False, "first_difference": dict(difference)}
        job.reusable = False
        session.flush()
        message = f"epoch {difference['epoch']} differs from {original} in {', '.join(difference['differs'])}"
        events.log(session, job.id, "error", "not_reproduced", message, **difference)


def final_difference(a: Job, b: Job) -> str:
    """Where two results differ whose epochs are all equal: ``test scores`` if these differ (the weights may, too),
    otherwise ``weights``."""
    scores_a, scores_b = (_comparable(job.test_scores or {}) for job in (a, b))
    return "weights" if scores_a == scores_b else "test scores"


def differences(stored: Mapping[str, Any], metrics: Mapping[str, float]) -> list[str]:
    """The names of the metrics in which an epoch differs from the stored ones."""
    return _differences(stored, _storable(metrics))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*before, *now} - NOT_DIGESTED if before.get(name) != now.get(name))


def _comparable(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics by which results are compared."""
    return {name: value for name, value in metrics.items() if name not in NOT_DIGESTED}


def _record_health(job: Job, record: EpochRecord) -> list[tuple[EventType, Mapping[str, Any]]]:
    """Store the current findings; returns events for new and resolved ones."""
    before, now = job.health, [finding.document() for finding in record.health]
    job.health = now
    resolved = [(finding, "over") for finding in before if finding not in now]
    new = [(finding, "found") for finding in now if finding not in before]
    return [
        (EventType.HEALTH, {"state": state, **finding, "epoch": record.epoch, "since": finding["epoch"]})
        for finding, state in resolved + new
    ]


def _storable(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The metrics with ``None`` for values that are not finite, since JSON has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _prune_checkpoints(session: Session, job: Job, keep_last: int, new: list[Artifact] | None = None) -> list[str]:
    """Delete the rows of old checkpoints; returns the paths of their files.

    Args:
        new: rows that are not inserted yet; those that would be deleted again are removed from the list.
    """
    new = [] if new is None else new
    new_checkpoints = sorted((row for row in new if row.kind == ArtifactKind.CHECKPOINT), key=lambda row: row.epoch)
    # A fork can only start from its initial checkpoint.
    kept_epochs = [epoch for epoch in (job.best_epoch, job.start_epoch) if epoch is not None]
    excess = [row for row in new_checkpoints[:-keep_last] if row.epoch not in kept_epochs]
    for row in excess:
        new.remove(row)
    conditions = (Artifact.job_id == job.id, Artifact.kind == ArtifactKind.CHECKPOINT)
    query = select(Artifact).where(*conditions, Artifact.epoch.not_in(kept_epochs)).order_by(Artifact.epoch)
    query = query.where(Artifact.epoch.not_in(select(ModelVersion.epoch).where(ModelVersion.job_id == job.id)))
    if (kept_stored := keep_last - len(new_checkpoints)) > 0:
        last = select(Artifact.epoch).where(*conditions).order_by(Artifact.epoch.desc())
        query = query.where(Artifact.epoch < last.offset(kept_stored - 1).limit(1).scalar_subquery())
    elif new_checkpoints:
        query = query.where(Artifact.epoch < new_checkpoints[-1].epoch)
    with session.no_autoflush:
        stored = session.scalars(query).all()
    for row in stored:
        session.delete(row)
    excess = [*stored, *excess]
    job.size_bytes -= sum(row.size_bytes for row in excess)
    return [row.path for row in excess]
