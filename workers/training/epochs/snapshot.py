"""The snapshot of a finished epoch, and its commit: first the files, then one transaction; short epochs share both.

The training thread takes the snapshot, which shares nothing with the trainer, and the thread of ``EpochWriter`` commits
it while the next epoch is trained. The training thread does everything that uses BLAS, the trainer or the diagnostics.
The writer draws, stores the files and runs the transaction: it mostly waits for the disk, or does not need the
interpreter's lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from engine import EpochDone, checkpoint
from engine.checkpoint import State
from engine.trainers.trainer import Trainer
from service.datasets.tables.preprocessing import Preprocessing
from service.errors import LeaseLost, ServiceError, StorageQuotaExceeded
from service.jobs import epoch_commits
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Position, reaches_hold
from service.runtime import tracing
from service.runtime.failpoints import failpoint
from service.spec.schema import KEEP_LAST
from service.spec.validation import document_for_files
from service.storage.artifacts import ArtifactKind
from workers.operations import OutcomeUnknown
from workers.training import kinds
from workers.training.diagnostics import TrainingDiagnostics
from workers.training.kinds import Draw
from workers.training.training_run import TrainingRun

_FILES_AT_ONCE: Final = 64
"""Files that are open at the same time; a child may have 256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSnapshot:
    """The immutable snapshot of a finished epoch."""

    record: EpochRecord
    """The record without files and without the resource usage of the whole job."""
    checkpoint: bytes | None
    draw_samples: Draw | None
    is_paused_by_sweep: bool
    """Whether its commit holds the job, which ends the lease."""


def take_snapshot(
    run: TrainingRun,
    trainer: Trainer,
    done: EpochDone,
    diagnostics: TrainingDiagnostics,
    *,
    steps: int,
    seconds: float,
    class_names: Sequence[str],
    preprocessing: Preprocessing | None = None,
    hold_epoch: int | None = None,
) -> EpochSnapshot:
    """Copy the data that the commit of an epoch needs.

    Args:
        preprocessing: of a table; every checkpoint contains it.
        hold_epoch: its sweep pauses the job after this epoch, which then has a checkpoint of it.
    """
    goes_on = not done.is_last and diagnostics.reason_to_stop is None
    is_paused_by_sweep = goes_on and reaches_hold(done.epoch, hold_epoch)
    cpu_seconds = run.meter.epoch_seconds()
    checkpoint_bytes = draw = samples_digest = None
    if done.is_last or done.is_best or is_paused_by_sweep or done.epoch % run.spec.checkpoint.every_epochs == 0:
        state = trainer.state_dict()
        state.spec = document_for_files(run.spec)
        if preprocessing is not None:
            state.state["preprocessing"] = preprocessing.document()
        checkpoint_bytes = checkpoint.dumps(state)
    has_samples = preprocessing is None  # rows of a table are not images
    if has_samples and (done.is_last or done.epoch % run.spec.samples.every_epochs == 0):
        draw, samples_digest = samples_of(trainer, diagnostics, run.spec.samples.count, class_names)
    record = EpochRecord(
        epoch=done.epoch,
        position=Position(step=done.step, steps=steps),
        metrics={**done.metrics, **done.scores},
        confusion=done.confusion.tolist() if done.confusion is not None else None,
        samples_digest=samples_digest,
        seconds=seconds,
        is_best=done.is_best,
        files=(),
        health=tuple(diagnostics.findings),
        cpu_seconds=round(cpu_seconds, 6),
        memory_bytes=run.meter.memory_bytes(),
        goes_on=goes_on,
    )
    return EpochSnapshot(
        record=record, checkpoint=checkpoint_bytes, draw_samples=draw, is_paused_by_sweep=is_paused_by_sweep
    )


def store_files(
    run: TrainingRun, snapshots: Sequence[EpochSnapshot], keep_last: int | None = None
) -> Sequence[EpochRecord]:
    """Write the files of consecutive epochs, all together, but not the checkpoints that later ones replace.

    Args:
        keep_last: the number of latest checkpoints to keep; by default, while the job goes on.

    Returns:
        The complete records, in order.
    """
    kept = _kept_checkpoints(snapshots, keep_last or _keep_last(run))
    records, contents, digests = list[EpochRecord](), dict[str, bytes](), dict[str, str]()
    used = run.meter.total()
    for snapshot in snapshots:
        epoch, data = snapshot.record.epoch, _contents(snapshot)
        named = run.artifacts.name_all(run.claim.job_id, epoch, run.claim.lease, data)
        files = [file for file in named if file.kind is not ArtifactKind.CHECKPOINT or epoch in kept]
        contents |= {file.path: data[file.kind] for file in files}
        digests |= {file.path: file.sha256 for file in files}
        replaced = [file for file in named if file not in files]
        records.append(replace(snapshot.record, files=files, replaced=replaced, used=used))
    if contents:
        size, paths = sum(map(len, contents.values())), list(contents)
        with tracing.span("upload", {"tapeline.epoch": records[-1].epoch, "tapeline.bytes": size}):
            for start in range(0, len(paths), _FILES_AT_ONCE):
                some = paths[start : start + _FILES_AT_ONCE]
                run.artifacts.put_all({path: contents[path] for path in some}, {path: digests[path] for path in some})
    for record in records:
        failpoint("files_stored", record.epoch)
    return records


def _contents(snapshot: EpochSnapshot) -> dict[ArtifactKind, bytes]:
    contents: dict[ArtifactKind, bytes] = {}
    if snapshot.checkpoint is not None:
        contents[ArtifactKind.CHECKPOINT] = snapshot.checkpoint
    if snapshot.draw_samples is not None:
        contents[ArtifactKind.SAMPLE] = snapshot.draw_samples()
    return contents


def _keep_last(run: TrainingRun) -> int:
    return run.spec.checkpoint.keep_last or KEEP_LAST


def _kept_checkpoints(snapshots: Sequence[EpochSnapshot], keep_last: int) -> set[int]:
    """The epochs whose checkpoints the commit keeps: the latest ones, and the best."""
    epochs = [snapshot.record.epoch for snapshot in snapshots if snapshot.checkpoint is not None]
    best = [snapshot.record.epoch for snapshot in snapshots if snapshot.record.is_best]
    return {*epochs[-keep_last:], *best[-1:]}


def size_of(snapshot: EpochSnapshot) -> int:
    """The bytes of the files of an epoch, about: images are not larger than the arrays that they show."""
    arrays = [*snapshot.draw_samples.args, *snapshot.draw_samples.keywords.values()] if snapshot.draw_samples else []
    return len(snapshot.checkpoint or b"") + sum(getattr(array, "nbytes", 0) for array in arrays)


def commit(run: TrainingRun, records: Sequence[EpochRecord]) -> None:
    """Commit epochs whose files are stored, in one transaction.

    If the lease is lost, their files are removed. If they do not fit into the quota of the owner, as many as fit are
    committed.
    """
    try:
        orphans = _call(run, records, epoch_commits.commit, records, keep_last=_keep_last(run))
    except StorageQuotaExceeded:
        if len(records) == 1:
            _discard(run, records)
            raise
        try:
            commit(run, records[:1])
        except ServiceError:
            _discard(run, records[1:])
            raise
        commit(run, records[1:])
        return
    run.discard(orphans)


def succeed(run: TrainingRun, snapshots: Sequence[EpochSnapshot], weights: str, **result: Any) -> None:
    """Store and commit the last epochs, with the result, in one transaction.

    Likewise; if the files do not fit into the quota, as many epochs as fit are committed, and the job does not end.

    Args:
        weights: their digest.
        result: as for ``epoch_commits.succeed``.
    """
    # By default, an ended job keeps only its best and its latest checkpoint.
    keep_last = run.spec.checkpoint.keep_last or 1
    records = store_files(run, snapshots, keep_last)
    named = {"records": records, "used": run.meter.total(), "keep_last": keep_last, **result}
    try:
        orphans = _call(run, records, epoch_commits.succeed, weights, **named)
    except StorageQuotaExceeded:
        commit(run, records)
        succeed(run, (), weights, **result)
        return
    failpoint("succeeded")
    run.discard(orphans)


def _call(
    run: TrainingRun,
    records: Sequence[EpochRecord],
    operation: Callable[..., list[str]],
    /,
    *arguments: Any,
    **named: Any,
) -> list[str]:
    """Call an operation that commits epochs; returns the paths of files without rows."""
    last = {"tapeline.epoch": records[-1].epoch} if records else {}
    try:
        with tracing.span("commit", {"tapeline.epochs": len(records), **last}):
            orphans = run.lease.call(operation, *arguments, at_most=run.lease.max_owner_bytes, **named)
    except OutcomeUnknown:
        raise  # keep the files: an earlier attempt may have committed rows that name them
    except LeaseLost:
        _discard(run, records)
        raise
    for record in records:
        failpoint("epoch_committed", record.epoch)
    return orphans


def _discard(run: TrainingRun, records: Sequence[EpochRecord]) -> None:
    run.discard(file.path for record in records for file in record.files)


def samples_of(
    trainer: Trainer, diagnostics: TrainingDiagnostics, count: int, class_names: Sequence[str]
) -> tuple[Draw, str]:
    """A function that draws a sample grid of the current network, and the digest of the arrays that it shows."""
    draw, arrays = kinds.training(diagnostics.kind).samples(trainer, count, class_names, diagnostics.classify)
    return draw, _digest_arrays(arrays)


def weights_digest(state: State) -> str:
    """SHA-256 over the names and bits of all tensors."""
    names = sorted(state.tensors)
    text = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return text + _digest_arrays([state.tensors[name] for name in names])


def _digest_arrays(arrays: Sequence[np.ndarray[Any, Any]]) -> str:
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(f"{array.dtype.str}{array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    return "sha256:" + hasher.hexdigest()
