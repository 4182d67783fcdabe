"""Exports of trained models: from a job and its checkpoint to the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.application.exports import ExportOrder
from service.datasets import DatasetInfo
from service.jobs.queries import listing
from service.models.exports.orders import EpochFacts, JobFacts
from service.web.inference.loading import dataset_of, inference

if TYPE_CHECKING:
    from service.models.exports.trained import TrainedModel


def make(order: ExportOrder) -> bytes:
    """The bytes of an export.

    Raises:
        DatasetNotFound, DatasetChanged: the model cannot be described without its data.
        ArtifactDamaged: the checkpoint cannot be read.
        ExtraMissing: the format's library is not installed.
    """
    from service.models.exports import making  # loads the engine

    if order.checkpoint is None:
        raise NotImplementedError
    info = dataset_of(order.job)
    return making.make(order.format, _facts(order, info), _model(order, info))


def _model(order: ExportOrder, info: DatasetInfo) -> TrainedModel:
    from service.models.exports.trained import TrainedModel  # loads the engine

    assert order.checkpoint is not None  # noqa: S101 - for the type checker
    ready = inference().ready(order.checkpoint, info.image_shape)
    return TrainedModel.of(ready.spec, ready.network, info.image_shape, info.class_names)


def _facts(order: ExportOrder, info: DatasetInfo | None) -> JobFacts:
    job = order.job
    return JobFacts(
        id=job.id,
        name=job.name,
        title=listing.title(job.id, job.name, job.kind),
        kind=job.kind,
        tags=job.tags,
        spec=job.resolved,
        spec_hash=job.spec_hash,
        checkpoint_epoch=order.checkpoint.epoch if order.checkpoint is not None else 0,
        best_epoch=job.best_epoch,
        provenance=job.provenance or {},
        result_digest=job.result_digest,
        dataset_title=info.title if info is not None else str(job.resolved["dataset"]["name"]),
        dataset_source=info.source if info is not None else "",
        dataset_sha256=job.dataset_sha256,
        license=order.license or (info.licence if info is not None else None),
        epochs=[EpochFacts(epoch=row.epoch, metrics=row.metrics, finished_ms=row.finished_ms) for row in order.epochs],
    )
