"""Predicts a dataset with a trained model: one file, and one transaction that ends the job.

A prediction keeps nothing of an interrupted attempt: it starts again, and its file has the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from service import kinds
from service.datasets.cache import Dataset
from service.datasets.repository import DatasetRepository
from service.datasets.tables import prediction_files
from service.errors import LeaseLost, StorageQuotaExceeded
from service.jobs import commits, leases
from service.kinds.prediction.spec import PREDICTIONS_EPOCH, ResolvedPrediction, read
from service.models.compatibility import columns_of, misfits
from service.models.predicting import LoadedModel, batch_size, predict, read_model
from service.models.prediction_csv import PredictionCsv, in_order_of, inputs_of, parts_of, slices_of
from service.runtime import tracing
from service.runtime.failpoints import failpoint
from service.runtime.settings import Settings
from service.schema import costs
from service.states import ErrorCode, Task
from service.storage.artifacts import ArtifactDamaged, ArtifactKind, ArtifactUnreadable
from service.storage.tables import Job
from workers.messages import Progress
from workers.operations import OutcomeUnknown
from workers.training.kinds import Work, WorkFailed
from workers.training.provenance import provenance
from workers.training.training_run import Budget, JobRun

_BLOCK_ROWS: Final = prediction_files.BLOCK_ROWS


class ModelUnavailable(WorkFailed):
    """The checkpoint of the prediction cannot be used."""

    code = ErrorCode.MODEL_UNAVAILABLE
    hint = "submit the prediction again, with a checkpoint that is stored"


def _run(run: JobRun, settings: Settings, job: Job, dataset: Dataset) -> None:
    """Predict from the first row on, and end the job.

    Raises:
        ModelUnavailable: the checkpoint was deleted, is damaged, or does not fit the data.
        StorageQuotaExceeded: the file does not fit into the quota of the owner.
    """
    spec = read(job.resolved)
    model, class_names = _load_model(run, settings, spec, dataset)
    facts = provenance(dataset, evaluated=False) | {"checkpoint": spec.model.sha256}
    job = run.lease.call(leases.begin, facts)
    failpoint("began")
    with tracing.span("predict"):
        content, rows = _predict(run, job, model, class_names, dataset, spec)
    with tracing.span("upload", {"tapeline.bytes": len(content)}):
        file = run.artifacts.write(job.id, ArtifactKind.PREDICTIONS, PREDICTIONS_EPOCH, run.claim.lease, content)
    del content
    failpoint("files_stored", PREDICTIONS_EPOCH)
    try:
        with tracing.span("commit"):
            run.lease.call(
                commits.succeed_prediction, file, rows=rows, at_most=run.lease.max_owner_bytes, used=run.meter.total()
            )
    except OutcomeUnknown:
        raise  # keep the file: an earlier attempt may have committed its row
    except (LeaseLost, StorageQuotaExceeded):
        run.discard([file.path])
        raise
    failpoint("succeeded")


def _load_model(
    run: JobRun, settings: Settings, spec: ResolvedPrediction, dataset: Dataset
) -> tuple[LoadedModel, Sequence[str]]:
    """The network that the spec is pinned to, and the names of its classes."""
    pinned = spec.model
    name = f"the checkpoint of epoch {pinned.checkpoint} of {pinned.job}"
    found = run.lease.call(commits.pinned_checkpoint, pinned.job, pinned.sha256)
    if found is None:
        raise ModelUnavailable(f"{name} was deleted")
    trainer, row = found
    trained_on = DatasetRepository(settings, run.lease).of_job(trainer)
    if problems := misfits(columns_of(trainer.provenance), trained_on.image_shape, dataset.info):
        raise ModelUnavailable(f"{name} does not fit the data: {problems[0].detail}")
    try:
        content = run.artifacts.read(row.path, row.sha256)
        model = read_model(content, row.path, trained_on.input_shape, trained_on.classes)
    except ArtifactUnreadable:
        raise
    except ArtifactDamaged as error:
        raise ModelUnavailable(f"{name} cannot be read ({error})") from error
    return model, trained_on.class_names if kinds.of(model.spec.kind).task is Task.CLASSIFICATION else ()


def _predict(
    run: JobRun, job: Job, model: LoadedModel, class_names: Sequence[str], dataset: Dataset, spec: ResolvedPrediction
) -> tuple[bytes, int]:
    """The file, and its number of rows."""
    indices = columns = None
    if model.preprocessing is not None:
        indices, columns = in_order_of(model.preprocessing.columns, dataset.info.columns)
    parts = parts_of(dataset, spec.dataset.part)
    rows = sum(len(part) for _, part in parts)
    file, budget = PredictionCsv(dataset.info, class_names), Budget(run, job)
    for start, end in _batches(rows, batch_size(model.network)):
        pieces = list(slices_of(parts, start, end))
        file.write(pieces, predict(model, inputs_of(pieces, indices), columns))
        run.endpoint.check_stop()
        budget.check()
        run.endpoint.report_progress(Progress(end, rows))
        failpoint("batch_done", PREDICTIONS_EPOCH)
    return file.content(), rows


def _batches(rows: int, size: int) -> Iterator[tuple[int, int]]:
    """The batches in which a request would predict a file of these rows: the bits of a row depend on its batch."""
    for block in range(0, rows, _BLOCK_ROWS):
        end = min(block + _BLOCK_ROWS, rows)
        for start in range(block, end, size):
            yield start, min(start + size, end)


WORK: Final = Work(
    run=_run,
    peak_bytes=lambda job: costs.prediction_peak_bytes(job.expected_bytes),
    smaller="predict one part of the dataset at a time",
)
