"""The commit of an epoch: first its files, then one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import ClassifierTrainer, EpochDone, GanTrainer, checkpoint
from engine.checkpoint import State
from service.datasets.tables.preprocessing import Preprocessing
from service.errors import LeaseLost
from service.jobs.commits import EpochRecord
from service.jobs.leases import Position
from service.pictures import grids
from service.runtime.failpoints import reach
from service.spec.schema import KEEP_LAST
from service.storage.artifacts import ArtifactKind
from workers.lease_session import OutcomeUnknown
from workers.training.build import Trainer
from workers.training.health import TrainingDiagnostics
from workers.training.training_run import TrainingRun


def commit_epoch(
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
) -> bool:
    """Write the epoch's files, then commit its row. If the lease is lost, the files are removed.

    Args:
        preprocessing: of a table; every checkpoint contains it.
        hold_epoch: the job is held after this epoch, and then has a checkpoint of it.

    Returns:
        Whether the job is held: its lease has ended.
    """
    goes_on = not done.is_last and diagnostics.reason_to_stop is None
    is_held = goes_on and hold_epoch is not None and done.epoch >= hold_epoch
    cpu_seconds = run.meter.epoch_seconds()
    contents: dict[ArtifactKind, bytes] = {}
    samples_digest = None
    if done.is_last or done.is_best or is_held or done.epoch % run.spec.checkpoint.every_epochs == 0:
        state = trainer.state_dict()
        state.spec = run.spec.model_dump(mode="json")
        if preprocessing is not None:
            state.state["preprocessing"] = preprocessing.document()
        contents[ArtifactKind.CHECKPOINT] = checkpoint.dumps(state)
    has_samples = preprocessing is None  # rows of a table are no images
    if has_samples and (done.is_last or done.epoch % run.spec.samples.every_epochs == 0):
        contents[ArtifactKind.SAMPLE], samples_digest = samples_of(
            trainer, diagnostics, run.spec.samples.count, class_names
        )
    files = run.artifacts.write_all(run.claim.job_id, done.epoch, run.claim.lease, contents)
    record = EpochRecord(
        epoch=done.epoch,
        position=Position(step=done.step, steps=steps),
        metrics={**done.metrics, **done.scores},
        confusion=done.confusion.tolist() if done.confusion is not None else None,
        samples_digest=samples_digest,
        seconds=seconds,
        is_best=done.is_best,
        files=files,
        health=diagnostics.findings,
        cpu_seconds=round(cpu_seconds, 6),
        memory_bytes=run.meter.memory_bytes(),
        used=run.meter.total(),
        goes_on=goes_on,
    )
    reach("files_stored", done.epoch)
    try:
        orphans = run.lease.commit_epoch(record, keep_last=run.spec.checkpoint.keep_last or KEEP_LAST)
    except OutcomeUnknown:
        raise  # keep the files: an earlier attempt may have committed rows that name them
    except LeaseLost:
        run.discard(file.path for file in files)
        raise
    reach("epoch_committed", done.epoch)
    run.discard(orphans)
    return is_held


def samples_of(
    trainer: Trainer, diagnostics: TrainingDiagnostics, count: int, class_names: Sequence[str]
) -> tuple[bytes, str]:
    """A sample grid of the current network, and the digest of the arrays that it shows."""
    match trainer:
        case ClassifierTrainer():
            shown = trainer.samples(count)
            picture = grids.prediction_grid(
                shown.images, shown.labels, shown.predictions, shown.confidences, class_names=class_names
            )
            return picture, _digest_arrays([shown.predictions, shown.confidences])
        case GanTrainer():
            images = trainer.samples(count)
            return grids.sample_grid(images, sample_classes=diagnostics.classify(images)), _digest_arrays([images])


def weights_digest(state: State) -> str:
    """SHA-256 over the names and bits of all tensors."""
    names = sorted(state.tensors)
    text = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return text + _digest_arrays([state.tensors[name] for name in names])


def _digest_arrays(arrays: Sequence[np.ndarray[Any, Any]]) -> str:
    summed = hashlib.sha256()
    for array in arrays:
        summed.update(f"{array.dtype.str}{array.shape}".encode())
        summed.update(np.ascontiguousarray(array).tobytes())
    return "sha256:" + summed.hexdigest()
