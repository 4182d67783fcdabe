"""Take over epochs of an earlier job, if the spec allows it; some jobs verify them by retraining one epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine import BatchDone, CheckpointError, EngineError, EpochDone, checkpoint
from service.datasets.cache import Dataset
from service.datasets.tables.preprocessing import Preprocessing
from service.errors import LeaseLost, StorageQuotaExceeded
from service.jobs import commits
from service.jobs.reuse import reused_epochs
from service.jobs.reuse.reused_epochs import Outcome
from service.jobs.reuse.sources import Source, is_verified
from service.runtime.failpoints import failpoint
from service.spec.schema import Reuse
from service.spec.validation import read_resolved
from service.storage.artifacts import ArtifactDamaged
from service.storage.tables import Artifact, Epoch, Job
from workers.messages import Preparing
from workers.operations import OutcomeUnknown
from workers.training import build
from workers.training.diagnostics import TrainingDiagnostics
from workers.training.epochs.snapshot import samples_of, weights_digest
from workers.training.training_run import TrainingRun, log


def take_over(
    run: TrainingRun,
    job: Job,
    provenance: Mapping[str, Any],
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    *,
    verified_share: float,
) -> Outcome:
    """Take over reusable epochs. The job then ends, is held, or continues after them or from the start."""
    if run.spec.reuse is Reuse.NEVER or job.parent_id is not None or job.epoch > 0:
        return Outcome.NOTHING_REUSED
    source = run.lease.call(reused_epochs.find, provenance)
    if source is None:
        return Outcome.NOTHING_REUSED
    if is_verified(job.id, verified_share) and not _is_repeatable(run, source, dataset, preprocessing):
        return Outcome.NOTHING_REUSED
    try:
        files, copied = run.lease.call(reused_epochs.read, source)
        copied = replace(copied, files=run.artifacts.copy_all(files, job_id=job.id, lease=run.claim.lease))
    except (ArtifactDamaged, OSError) as error:
        log.warning("not reused", source=source.job.id, error=str(error))
        return Outcome.NOTHING_REUSED
    failpoint("reuse_stored")
    try:
        outcome = run.lease.call(
            reused_epochs.store,
            copied,
            used=run.meter.total(),
            at_most=run.lease.max_owner_bytes,
        )
    except OutcomeUnknown:
        raise  # keep the files: an earlier attempt may have committed rows that name them
    except (LeaseLost, StorageQuotaExceeded):
        run.discard(file.path for file in copied.files)
        raise
    failpoint("reused")
    return outcome


def _is_repeatable(run: TrainingRun, source: Source, dataset: Dataset, preprocessing: Preprocessing | None) -> bool:
    """Whether an epoch that is retrained from the checkpoint before it has the stored results; if not, the source is no
    longer reused."""
    rows, checkpoints = run.lease.call(reused_epochs.result_of, source.job.id)
    if source.epochs not in rows:  # deleted in the meantime
        return False
    start = max((row for row in checkpoints if row.epoch < source.epochs), key=lambda row: row.epoch, default=None)
    try:
        differences = _find_differences(run, source, dataset, preprocessing, start, rows, checkpoints)
    except (ArtifactDamaged, CheckpointError, EngineError) as error:
        log.warning("not reused", source=source.job.id, error=str(error))
        return False
    epoch = (start.epoch if start is not None else 0) + 1
    if differences:
        message = f"epoch {epoch} of {source.job.id}, trained again, differs in {', '.join(differences)}"
        log.error("not reused", source=source.job.id, error=message)
        run.lease.call(reused_epochs.disable, source.job.id, message)
        return False
    message = f"epoch {epoch} of {source.job.id}, trained again, has the same bits"
    run.lease.call(commits.log, "info", "verified", message)
    return True


def _find_differences(
    run: TrainingRun,
    source: Source,
    dataset: Dataset,
    preprocessing: Preprocessing | None,
    start: Artifact | None,
    rows: Mapping[int, Epoch],
    checkpoints: list[Artifact],
) -> list[str]:
    """The results of the epoch after a checkpoint that differ from the stored ones."""
    spec = read_resolved(source.job.resolved)
    trainer = build.trainer(spec, dataset, preprocessing)
    if start is not None:
        trainer.load_state_dict(checkpoint.loads(run.artifacts.read(start.path, start.sha256)))
    diagnostics = TrainingDiagnostics.of(spec, dataset)
    diagnostics.replay([row for row in rows.values() if row.epoch <= trainer.epoch])
    for report in trainer.run():
        match report:
            case BatchDone():
                run.endpoint.check_stop()
                run.endpoint.report_progress(Preparing())
            case EpochDone():
                break
    else:
        raise EngineError("no epoch is left")
    done = diagnostics.evaluate(trainer, report)
    stored = rows[done.epoch]
    differences = commits.differences(stored.metrics, {**done.metrics, **done.scores})
    if stored.samples_digest is not None:
        class_names = dataset.info.class_names
        _, digest = samples_of(trainer, diagnostics, spec.samples.count, class_names)
        differences += ["samples"] if digest != stored.samples_digest else []
    stored_checkpoint = next((row for row in checkpoints if row.epoch == done.epoch), None)
    if stored_checkpoint is not None:
        stored_state = checkpoint.loads(run.artifacts.read(stored_checkpoint.path, stored_checkpoint.sha256))
        differences += ["weights"] if weights_digest(stored_state) != weights_digest(trainer.state_dict()) else []
    return differences
