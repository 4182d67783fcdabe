"""Writes of a worker under its lease: epochs, log lines, and the result.

Each write is one transaction that begins with the lease guard, and raises ``LeaseLost`` if the guard fails.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Integer, Row, and_, bindparam, delete, literal_column, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningDelete

from service import hooks
from service.access import storage_quota
from service.jobs import events, leases, transitions
from service.jobs.events import EventType
from service.jobs.leases import Claim, Usage
from service.jobs.queries import lookup
from service.runtime.failpoints import failpoint
from service.spec.metric_info import NOT_DIGESTED
from service.spec.strict_json import canonical
from service.states import Status
from service.storage import artifact_rows
from service.storage.artifacts import ArtifactKind, StoredFile
from service.storage.database import Database
from service.storage.tables import ARTIFACTS, Artifact, Epoch, Job
from service.wording import counted

TransactionHook = Callable[[Session, Job | Row[Any]], None]
"""Further writes of the transaction in which a job pauses or ends."""


def no_op(session: Session, job: Job | Row[Any]) -> None:
    """No further writes."""


def finished_epochs(database: Database, claim: Claim) -> Sequence[Epoch]:
    """The job's committed epochs, in order."""
    with database.read_once() as session:
        return lookup.epochs(session, claim.job_id)


def checkpoints(database: Database, claim: Claim) -> Sequence[Artifact]:
    """The job's checkpoints, newest first."""
    with database.read_once() as session:
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


DigestedEpoch = tuple[int, Mapping[str, Any], str | None]
"""Number, metrics and the digest of the samples of an epoch."""


def result_digest(
    epochs: Iterable[DigestedEpoch], weights_digest: str, test_scores: Mapping[str, float] | None = None
) -> str:
    """The result digest: SHA-256 over the final weights, the metrics of all epochs, the pixels of all samples, and the
    scores on the test part, if there is one."""
    test_entry = {"test": comparable(storable(test_scores))} if test_scores is not None else {}
    entries = [_digested(*epoch) for epoch in epochs]
    text = canonical({"weights": weights_digest, "epochs": entries, **test_entry})
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _digested(epoch: int, metrics: Mapping[str, Any], samples_digest: str | None) -> list[Any]:
    """What the result digest has of an epoch."""
    return [epoch, comparable(metrics), samples_digest]


def epoch_digest(row: Epoch) -> str:
    """The SHA-256 (hex) over what the result digest has of an epoch: its number, metrics, and the pixels of its
    samples."""
    return hashlib.sha256(canonical(_digested(row.epoch, row.metrics, row.samples_digest)).encode()).hexdigest()


def test_digest(scores: Mapping[str, Any]) -> str:
    """The SHA-256 (hex) over what the result digest has of the stored scores on the test part."""
    return hashlib.sha256(canonical(comparable(scores)).encode()).hexdigest()


def succeed_prediction(
    database: Database, claim: Claim, file: StoredFile, *, rows: int, at_most: int = 0, used: Usage | None = None
) -> None:
    """Commit the file of a prediction, and end the job as succeeded.

    Args:
        rows: in the file, besides its header.
        at_most: as for ``epoch_commits.commit``.

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
        failpoint("succeeding")


def pinned_checkpoint(database: Database, claim: Claim, job_id: str, sha256: str) -> tuple[Job, Artifact] | None:
    """A checkpoint of another job, with that job; ``None``: it was deleted."""
    query = select(Job, Artifact).join(Artifact, Artifact.job_id == Job.id)
    query = query.where(Job.id == job_id, Artifact.kind == ArtifactKind.CHECKPOINT, Artifact.sha256 == sha256)
    with database.read_once() as session:
        row = session.execute(query.limit(1)).first()
        return None if row is None else (row[0], row[1])


def fail(
    database: Database,
    claim: Claim,
    error: Mapping[str, Any],
    *,
    used: Usage | None = None,
    then: TransactionHook = no_op,
) -> None:
    """End the job as failed; ``error`` has at least ``code`` and ``message``."""
    with database.write() as session:
        job = leases.guard(session, claim, **leases.usage_values(used))
        job.error = dict(error)
        transitions.finish(session, job, Status.FAILED, reason=str(error["code"]))
        then(session, job)


def conclusion(
    reproduction: Mapping[str, Any], difference: Mapping[str, Any] | None
) -> tuple[dict[str, Any], events.NewEvent]:
    """The result of a reproduction, and the line of its log. With a difference, the job's bits are in doubt."""
    original = reproduction["of"]
    if difference is None:
        line = {"level": "info", "code": "reproduced", "message": f"bit-identical to {original}"}
        return {**reproduction, "match": True}, (EventType.LOG, line)
    message = f"epoch {difference['epoch']} differs from {original} in {', '.join(difference['differs'])}"
    line = {"level": "error", "code": "not_reproduced", "message": message, **difference}
    return {**reproduction, "match": False, "first_difference": dict(difference)}, (EventType.LOG, line)


def final_difference(scores_a: Mapping[str, Any] | None, scores_b: Mapping[str, Any] | None) -> str:
    """Where two results differ whose epochs are all equal, by their stored test scores: ``test scores`` if these differ
    (the weights may, too), otherwise ``weights``."""
    return "weights" if comparable(scores_a or {}) == comparable(scores_b or {}) else "test scores"


def differences(stored: Mapping[str, Any], metrics: Mapping[str, float]) -> list[str]:
    """The names of the metrics in which an epoch differs from the stored ones."""
    return differing(stored, storable(metrics))


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names of the metrics in which an epoch differs from the stored ones; both are storable."""
    return sorted(name for name in {*before, *now} - NOT_DIGESTED if before.get(name) != now.get(name))


def comparable(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics by which results are compared."""
    return {name: value for name, value in metrics.items() if name not in NOT_DIGESTED}


def storable(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """The metrics with ``None`` for values that are not finite, since JSON has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


_checkpoints: Final = and_(
    ARTIFACTS.c.job_id == bindparam("job"), ARTIFACTS.c.kind == literal_column(f"'{ArtifactKind.CHECKPOINT}'")
)


@functools.cache
def _prune() -> ReturningDelete[str, int, int]:
    """The statement, built once."""
    kept = hooks.kept_epochs(bindparam("job"))
    return (
        delete(ARTIFACTS)
        .where(
            _checkpoints,
            ARTIFACTS.c.epoch
            <= select(ARTIFACTS.c.epoch)
            .where(_checkpoints)
            .order_by(ARTIFACTS.c.epoch.desc())
            .offset(bindparam("keep", type_=Integer))
            .limit(1)
            .scalar_subquery(),
            ARTIFACTS.c.epoch.not_in(bindparam("kept", expanding=True)),
            *(ARTIFACTS.c.epoch.not_in(query) for query in kept),
        )
        .returning(ARTIFACTS.c.path, ARTIFACTS.c.size_bytes, ARTIFACTS.c.epoch)
    )


def prune_checkpoints(
    connection: Connection, job_id: str, keep_last: int, kept_epochs: Collection[int | None]
) -> Sequence[Row[str, int, int]]:
    """Delete the rows of old checkpoints; returns the ``path`` and ``size_bytes`` of each, the oldest first.

    Args:
        keep_last: number of latest checkpoints to keep.
        kept_epochs: checkpoints that are kept, too: the best one, and the initial one, since a fork can only start
            there. Those that features need are always kept.
    """
    kept = [epoch for epoch in kept_epochs if epoch is not None]
    rows = connection.execute(_prune(), {"job": job_id, "keep": max(0, keep_last), "kept": kept}).all()
    return sorted(rows, key=lambda row: row.epoch)
