"""Exports of trained models: from a job and its checkpoint to the file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from service import kinds
from service.application.models import ExportRequest
from service.datasets.info import DatasetInfo
from service.jobs.queries import listing
from service.kinds.kind import Ability
from service.models.exports import creation
from service.models.exports.creation import JobFacts, Pictures, Sample
from service.models.exports.photos import PhotoPreparation
from service.pictures import grids
from service.storage.tables import Artifact
from service.web.core.core import core
from service.web.inference.loading import dataset_of, inference

if TYPE_CHECKING:
    from service.models.exports.trained_network import TrainedModel

_MAX_SAMPLES: Final = 40
"""Sample grids of one export; TensorBoard shows ten of them."""


def make(request: ExportRequest, curves: Callable[[], bytes]) -> bytes:
    """The bytes of an export.

    Args:
        curves: draws the curves of the job.

    Raises:
        DatasetNotFound, DatasetChanged: the model cannot be described without its data.
        ArtifactDamaged: the checkpoint cannot be read.
        ExtraMissing: the format's library is not installed.
    """
    if request.checkpoint is None:
        return creation.make(request.format, _facts(request, None), _pictures(request, curves), None)
    info = dataset_of(request.job)
    return creation.make(
        request.format, _facts(request, info), _pictures(request, curves), _model(request.checkpoint, info)
    )


def _model(checkpoint: Artifact, info: DatasetInfo) -> TrainedModel:
    from service.models.exports.trained_network import TrainedModel  # loads the engine

    model = inference().load(checkpoint, info.input_shape, info.classes)
    preprocessing = model.preprocessing
    columns, target = (preprocessing.columns, preprocessing.target) if preprocessing is not None else ((), None)
    photos = None
    if info.is_photos and Ability.CLASSIFY in kinds.of(model.spec.kind).abilities:
        rows, width = info.image_shape[:2]
        photos = PhotoPreparation(
            rows=rows,
            columns=width,
            in_colour=len(info.image_shape) > 2,
            converts_first=not info.detects_colours,
            pads=info.pads_photos,
        )
    return TrainedModel(
        model.spec, model.network, info.image_shape, info.class_names, columns, photos, info.unused_columns, target
    )


def _pictures(request: ExportRequest, curves: Callable[[], bytes]) -> Pictures:
    rows = request.samples
    if len(rows) > _MAX_SAMPLES:
        rows = [rows[(index + 1) * len(rows) // _MAX_SAMPLES - 1] for index in range(_MAX_SAMPLES)]
    artifacts = core().artifacts

    def read(row: Artifact) -> bytes:
        return grids.as_shown(artifacts.read(row.path, row.sha256))

    samples = [Sample(row.epoch, partial(read, row), row.created_ms) for row in rows]
    return Pictures(samples=samples, curves=curves)


def _facts(request: ExportRequest, info: DatasetInfo | None) -> JobFacts:
    job = request.job
    return JobFacts(
        job=job,
        title=listing.title(job.id, job.name, job.kind),
        epochs=request.epochs,
        checkpoint_epoch=request.checkpoint.epoch if request.checkpoint is not None else 0,
        dataset_title=info.title if info is not None else str(job.resolved["dataset"]["name"]),
        dataset_source=info.source if info is not None else "",
        license=request.license or (info.licence if info is not None else None),
    )
