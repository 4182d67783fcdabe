"""The commit of finished epochs, the most frequent write of a worker, and of the result: a few short statements.

The guard reads no more of the job's row than a commit changes, and the row is written once: it has long documents and
many indexes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Connection,
    Float,
    Row,
    String,
    bindparam,
    select,
    update,
)
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from service import hooks
from service.access import storage_quota
from service.errors import LeaseLost
from service.jobs import commits, events, leases, transitions
from service.jobs.commits import TransactionHook, no_op, storable
from service.jobs.events import EventType
from service.jobs.leases import Claim, Position, Usage
from service.jobs.queries.extremes import Extremes, extended
from service.runtime.failpoints import failpoint
from service.schema.findings import Finding
from service.spec.intervals import interval_of
from service.spec.metric_info import TEST_SCORES, describe, number
from service.states import Status
from service.storage import artifact_rows
from service.storage.artifacts import ArtifactKind, StoredFile
from service.storage.database import Database, now_ms
from service.storage.insertions import update_with_rows
from service.storage.owner_tables import Owner
from service.storage.tables import ARTIFACTS, EPOCHS, EVENTS, JOBS, Artifact, Epoch, ExpectedEpoch, Job, Store


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
    replaced: Sequence[StoredFile] = ()
    """Files that are not stored, since later ones of the same commit replace them: only their events remain."""
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


def commit(
    database: Database,
    claim: Claim,
    records: Sequence[EpochRecord],
    *,
    keep_last: int,
    at_most: int = 0,
    then: TransactionHook = no_op,
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
        LeaseLost: the lease is held no more, or the database has lost earlier epochs.
        StorageQuotaExceeded: the files of these epochs exceed the limit; none is committed.
        WrongStore: the service has moved to another store; none is committed.
    """
    last = records[-1]
    with database.write() as session:
        connection = session.connection()
        progress = _Progress(leases.lock(connection, claim, _LOCK))
        progress.check_has(records[0].epoch - 1, claim)
        if records[0].epoch <= progress.epoch and (stored := _stored_paths(session, records)):
            # Done before, in a transaction whose response was lost; it may have removed checkpoints again.
            return [file.path for record in records for file in record.files if file.path not in stored]
        orphans = [path for record in records for path in _record_epoch(session, progress, record)]
        if progress.new_files:
            orphans += _prune_checkpoints(connection, progress, keep_last)
        row = _write(connection, _WRITE, progress, records, {"lease_ms": leases.milliseconds(claim.lease_s)}, last.used)
        if last.is_paused_by_sweep(progress.hold_epoch):
            job = session.get_one(Job, claim.job_id)
            leases.pause_for_sweep(session, job)
            then(session, job)
        _check_quota(session, progress, row, at_most)
        for record in records:
            failpoint("epoch_committing", record.epoch)
        return orphans


def succeed(
    database: Database,
    claim: Claim,
    weights_digest: str,
    *,
    epoch: int = 0,
    records: Sequence[EpochRecord] = (),
    test_scores: Mapping[str, float] | None = None,
    stopped_early: Mapping[str, Any] | None = None,
    used: Usage | None = None,
    keep_last: int | None = None,
    at_most: int = 0,
    then: TransactionHook = no_op,
) -> list[str]:
    """End the job as succeeded, in one transaction with the commit of its last epochs.

    Args:
        epoch: of the weights; all up to it are committed, or among ``records``.
        records: the epochs that are not committed.
        test_scores: on the test part of the data, if there is one.
        stopped_early: the reason, if it ended before its last epoch.
        keep_last: number of latest checkpoints to keep, besides the best; ``None``: all.
        at_most: as for ``commit``.

    Returns:
        Paths of files without rows, for the caller to remove.

    Raises:
        LeaseLost: likewise.
        StorageQuotaExceeded: the files of these epochs exceed the limit; nothing is committed.
        WrongStore: the service has moved to another store; nothing is committed.
    """
    with database.write() as session:
        connection = session.connection()
        row = leases.lock(connection, claim, _LOCK_TO_END)
        progress = _Progress(row)
        if records:
            progress.check_has(records[0].epoch - 1, claim)
        orphans = [path for record in records for path in _record_epoch(session, progress, record)]
        progress.check_has(epoch, claim)
        digest = commits.result_digest(_digested_epochs(connection, progress), weights_digest, test_scores)
        result: dict[str, Any] = {"result_digest": digest, "finished_ms": progress.now, "status": Status.SUCCEEDED}
        if test_scores is not None:
            result["test_scores"] = scores = storable(test_scores)
            progress.log("tested", _describe_test(test_scores), **scores)
        if stopped_early is not None:
            result["stopped_early"] = dict(stopped_early)
            progress.steps = progress.steps // row.epochs * progress.epoch
            progress.log("stopped_early", _explain_early_stop(row.epochs, progress.epoch, stopped_early))
        progress.step = progress.steps
        if progress.reproduction is not None and progress.reproduction["match"] is None:
            _conclude_reproduction(connection, progress, progress.reproduction, digest, result.get("test_scores"))
        if keep_last is not None:
            orphans += _prune_checkpoints(connection, progress, keep_last)
        # A cancelled job that ends before the request was noticed has succeeded.
        error = None if transitions.is_cancelled_by_user(row) else row.error
        if error != row.error:
            result["error"] = error
        now = {"status": Status.SUCCEEDED, "requested": None, "epoch": progress.epoch}
        ended = transitions.status_data(row, reason="done", **now) | transitions.holder(row)
        last = {"status": Status.SUCCEEDED, "error": error, "result_digest": digest}
        progress.events += [(EventType.STATUS, ended), (EventType.END, last)]
        job = _write(connection, _END, progress, records, result, used)
        hooks.job_changed(connection, job, reason="done")
        then(session, job)
        _check_quota(session, progress, job, at_most)
        for record in records:
            failpoint("epoch_committing", record.epoch)
        failpoint("succeeding")
        return orphans


class _Progress:
    """What a commit reads of a job's row, the new values, and the rows to insert."""

    def __init__(self, row: Row[Any]) -> None:
        self._before = row._mapping
        self.job_id: str = row.id
        self.owner: str | None = row.owner
        self.lease: int = row.lease
        self.start_epoch: int = row.start_epoch
        self.has_rows: bool = row.epoch > 0 or row.start_epoch > 0
        """Whether epochs or files of the job may have rows."""
        self.hold_epoch: int | None = row.hold_epoch
        self.last_seq: int = row.last_seq
        self.size_before: int = row.size_bytes
        self.now: int = row.now

        self.epoch: int = row.epoch
        self.step: int = row.step
        self.steps: int = row.steps
        self.deaths: int = row.deaths
        self.metrics: Mapping[str, Any] = row.metrics
        self.extremes: Extremes = row.extremes
        self.best_epoch: int | None = row.best_epoch
        self.health: list[Any] = row.health
        self.size_bytes: int = row.size_bytes
        self.reproduction: Mapping[str, Any] | None = row.reproduction
        self.reusable: bool = row.reusable

        self.new_epochs: list[dict[str, Any]] = []
        self.new_files: list[dict[str, Any]] = []
        self.events: list[events.NewEvent] = []

    def check_has(self, epoch: int, claim: Claim) -> None:
        """Raise ``LeaseLost`` if the database lacks epochs up to this one, which this worker has committed: it went
        back in time, and the lease with it. The next lease repeats them."""
        if epoch > self.epoch:
            raise LeaseLost(claim.job_id, claim.lease)

    def log(self, code: str, message: str, **data: Any) -> None:
        """Append a line to the job's log."""
        self.events.append((EventType.LOG, {"level": "info", "code": code, "message": message, **data}))

    def values(self, used: Usage | None) -> dict[str, Any]:
        """The parameters of the statement that writes the row: of its columns, those that have changed."""
        changed = {name: value for name in _CHANGEABLE if (value := getattr(self, name)) != self._before[name]}
        return {
            **changed,
            "last_seq": self.last_seq + len(self.events),
            "job": self.job_id,
            "job_owner": self.owner,
            "used_cpu_seconds": None if used is None else used.cpu_seconds,
            "used_memory_bytes": None if used is None else used.peak_memory_bytes,
        }


_CHANGEABLE: Final = (
    *("epoch", "step", "steps", "deaths", "metrics", "extremes", "best_epoch", "health"),
    *("size_bytes", "reproduction", "reusable"),
)
_READ: Final = ("id", "owner", "lease", "start_epoch", "hold_epoch", "last_seq", *_CHANGEABLE)
_LOCK: Final = leases.lock_statement(*(JOBS.c[name] for name in _READ))
_LOCK_TO_END: Final = leases.lock_statement(
    *(JOBS.c[name] for name in (*_READ, "epochs", "attempt", "status", "requested", "error", "lease_owner"))
)
_own_limit: Final = select(Owner.artifact_bytes).where(Owner.id == bindparam("job_owner", type_=String))
_write_used: Final = (
    update(JOBS)
    .where(JOBS.c.id == bindparam("job"))
    .values(
        cpu_seconds=leases.at_least(JOBS.c.cpu_seconds, bindparam("used_cpu_seconds", type_=Float)),
        peak_memory_bytes=leases.at_least(JOBS.c.peak_memory_bytes, bindparam("used_memory_bytes", type_=BigInteger)),
    )
    .returning(
        select(Store.id).scalar_subquery().label("store"),
        _own_limit.scalar_subquery().label("own_limit"),
    )
)
"""Further values are those of the parameters."""
_WRITE: Final = _write_used.values(lease_expires_ms=now_ms() + bindparam("lease_ms", type_=BigInteger))
_END: Final = _write_used.values(lease_expires_ms=None, lease_owner=None, requested=None).returning(
    *(JOBS.c[name] for name in ("id", "owner", "name", "kind", "status", "sweep_id", "last_seq"))
)


def _write(
    connection: Connection,
    statement: ReturningUpdate[Any],
    progress: _Progress,
    records: Sequence[EpochRecord],
    further: Mapping[str, Any],
    used: Usage | None,
) -> Row[Any]:
    """Write the job's row, and insert the others; returns what the statement reads.

    Args:
        further: parameters of the statement.
    """
    rows = {
        EPOCHS: progress.new_epochs,
        ARTIFACTS: progress.new_files,
        EVENTS: events.rows(progress.job_id, progress.events, progress.last_seq, progress.now),
    }
    row = update_with_rows(connection, statement, {**progress.values(used), **further}, rows).one()
    artifact_rows.check_same_store(row.store, {file.store_id for record in records for file in record.files})
    return row


def _check_quota(session: Session, progress: _Progress, row: Row[Any], at_most: int) -> None:
    limit = at_most if row.own_limit is None else row.own_limit
    storage_quota.check_within(session, progress.owner, progress.size_bytes - progress.size_before, limit)


def _record_epoch(session: Session, progress: _Progress, record: EpochRecord) -> list[str]:
    """Record one epoch; returns the paths of files that were stored before."""
    if record.is_best:
        progress.best_epoch = record.epoch
    stored_paths: Mapping[str, str] = {}
    # Of an epoch after all others there are no rows yet.
    if record.epoch <= progress.epoch:
        stored_paths = _stored_files(session, progress.job_id, record)
        stored = session.get(Epoch, (progress.job_id, record.epoch))
    else:
        stored = None
    if stored is None:
        _record_metrics(session, progress, record)
    else:
        _compare_with_stored(progress, record, stored)
    orphans: list[str] = []
    for file in (*record.replaced, *record.files):
        is_stored = file in record.files
        if file.kind in stored_paths:
            if is_stored and stored_paths[file.kind] != file.path:
                orphans.append(file.path)
            continue
        row = artifact_rows.values(progress.job_id, file, lease=progress.lease, now=progress.now)
        if is_stored:
            progress.new_files.append(row)
            progress.size_bytes += file.size_bytes
        data = {"epoch": file.epoch, "artifact": row["id"], "sha256": file.sha256, "size_bytes": file.size_bytes}
        if file.kind is ArtifactKind.CHECKPOINT:
            data["best"] = record.is_best
        progress.events.append((EventType(file.kind.value), data))
    return orphans


def _stored_paths(session: Session, records: Sequence[EpochRecord]) -> set[str]:
    """The paths of the files of these epochs that have rows. A path names its lease, and never repeats."""
    paths = [file.path for record in records for file in record.files]
    return set(session.scalars(select(Artifact.path).where(Artifact.path.in_(paths)))) if paths else set()


def _stored_files(session: Session, job_id: str, record: EpochRecord) -> Mapping[str, str]:
    """The paths of the epoch's files that were committed before, by kind."""
    if not record.files and not record.replaced:
        return {}
    query = select(Artifact.kind, Artifact.path).where(Artifact.job_id == job_id, Artifact.epoch == record.epoch)
    return {row.kind: row.path for row in session.execute(query)}


def _record_metrics(session: Session, progress: _Progress, record: EpochRecord) -> None:
    metrics = storable(record.metrics)
    progress.deaths = 0  # not for a repeated epoch, or a job that always kills its worker after it would never fail
    progress.epoch, progress.metrics = record.epoch, metrics
    progress.extremes = extended(progress.extremes, metrics, record.epoch)
    # The supervisor may already have reported a batch of the next epoch.
    progress.step, progress.steps = max(progress.step, record.position.step), record.position.steps
    measured = {"seconds": record.seconds, "cpu_seconds": record.cpu_seconds, "memory_bytes": record.memory_bytes}
    progress.new_epochs.append(
        {
            "job_id": progress.job_id,
            "epoch": record.epoch,
            "step": record.position.step,
            "metrics": metrics,
            "confusion": [list(row) for row in record.confusion] if record.confusion is not None else None,
            "samples_digest": record.samples_digest,
            "lease": progress.lease,
            "finished_ms": progress.now,
        }
        | measured
    )
    if progress.reproduction is not None and progress.reproduction["match"] is None:
        _compare_with_original(session, progress, progress.reproduction, record, metrics)
    data = {"epoch": record.epoch, "step": record.position.step, "values": metrics} | measured
    data["health"] = [finding.code.value for finding in record.health]
    progress.events += [(EventType.METRICS, data), *_record_health(progress, record)]


def _compare_with_original(
    session: Session,
    progress: _Progress,
    reproduction: Mapping[str, Any],
    record: EpochRecord,
    metrics: Mapping[str, Any],
) -> None:
    """Compare an epoch of a reproduction with the original's; the first difference ends the comparison."""
    expected = session.get(ExpectedEpoch, (progress.job_id, record.epoch))
    differs = ["epochs"] if expected is None else commits.differing(expected.metrics, metrics)
    if expected is not None and expected.samples_digest != record.samples_digest:
        differs = [*differs, "samples"]
    if differs:
        difference = {"epoch": record.epoch, "differs": differs}
        progress.reproduction, line = commits.conclusion(reproduction, difference)
        progress.reusable = False
        progress.events.append(line)


def _compare_with_stored(progress: _Progress, record: EpochRecord, stored: Epoch) -> None:
    """Log an epoch that was trained again with other bits."""
    metrics = storable(record.metrics)
    has_same_metrics = commits.comparable(stored.metrics) == commits.comparable(metrics)
    if has_same_metrics and stored.samples_digest == record.samples_digest:
        return
    progress.reusable = False
    names = commits.differing(stored.metrics, metrics) or ["samples"]
    message = f"epoch {record.epoch}, trained again, differs in {', '.join(names)}"
    data = {"level": "error", "code": events.DETERMINISM_VIOLATION, "message": message, "epoch": record.epoch}
    progress.events.append((EventType.LOG, data | {"stored": stored.metrics, "again": metrics}))


def _digested_epochs(connection: Connection, progress: _Progress) -> list[commits.DigestedEpoch]:
    """What the result digest has of each epoch, in order."""
    epochs = [(row["epoch"], row["metrics"], row["samples_digest"]) for row in progress.new_epochs]
    if progress.has_rows:
        query = select(EPOCHS.c.epoch, EPOCHS.c.metrics, EPOCHS.c.samples_digest)
        stored = connection.execute(query.where(EPOCHS.c.job_id == progress.job_id))
        epochs += [(row.epoch, row.metrics, row.samples_digest) for row in stored]
    return sorted(epochs, key=lambda epoch: epoch[0])


def _conclude_reproduction(
    connection: Connection,
    progress: _Progress,
    reproduction: Mapping[str, Any],
    digest: str,
    test_scores: Mapping[str, Any] | None,
) -> None:
    """Compare the result of a reproduction with the original's."""
    difference = None
    if reproduction["result_digest"] != digest:
        # All epochs are equal, so only test scores or weights can differ. Without the original, assume weights.
        query = select(JOBS.c.test_scores).where(JOBS.c.id == reproduction["of"])
        original = connection.execute(query).first()
        part = "weights" if original is None else commits.final_difference(original.test_scores, test_scores)
        difference = {"epoch": progress.epoch, "differs": [part]}
        progress.reusable = False
    progress.reproduction, line = commits.conclusion(reproduction, difference)
    progress.events.append(line)


def _describe_test(scores: Mapping[str, float]) -> str:
    count, texts = int(scores.get("test_count", 0)), []
    for name in TEST_SCORES:
        if name in scores:
            interval = interval_of(name, scores, count)
            text = f"{describe(name).label} {number(name, scores[name])}"
            texts.append(text if interval is None else f"{text} {interval.text}")
    return f"{', '.join(texts)}, with the weights of epoch {scores['test_epoch']}"


def _explain_early_stop(epochs: int, last_epoch: int, reason: Mapping[str, Any]) -> str:
    patience = "1 epoch" if reason["patience"] == 1 else f"{reason['patience']} epochs"
    best = f"{reason['metric']} was best in epoch {reason['best_epoch']} ({reason['best']:.6g})"
    return f"stopped after epoch {last_epoch} of {epochs}: {best}, and not better for {patience}"


def _record_health(progress: _Progress, record: EpochRecord) -> list[events.NewEvent]:
    """Store the current findings; returns events for new and resolved ones."""
    before, now = progress.health, [finding.document() for finding in record.health]
    if now == before:
        return []
    progress.health = now
    resolved = [(finding, "over") for finding in before if finding not in now]
    new = [(finding, "found") for finding in now if finding not in before]
    return [
        (EventType.HEALTH, {"state": state, **finding, "epoch": record.epoch, "since": finding["epoch"]})
        for finding, state in resolved + new
    ]


def _prune_checkpoints(connection: Connection, progress: _Progress, keep_last: int) -> list[str]:
    """Delete the rows of checkpoints that new ones replace, and do not insert those that newer ones replace.

    Returns:
        The paths of their files.
    """
    new = [file for file in progress.new_files if file["kind"] == ArtifactKind.CHECKPOINT]
    kept = (progress.best_epoch, progress.start_epoch)
    removed: Sequence[Row[str, int, int]] = ()
    if progress.has_rows:
        removed = commits.prune_checkpoints(connection, progress.job_id, keep_last - len(new), kept)
    old = [file for file in new[:-keep_last] if file["epoch"] not in kept]
    progress.new_files = [file for file in progress.new_files if file not in old]
    progress.size_bytes -= sum(row.size_bytes for row in removed) + sum(file["size_bytes"] for file in old)
    return [row.path for row in removed] + [file["path"] for file in old]
