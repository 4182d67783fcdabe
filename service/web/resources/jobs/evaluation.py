"""Calibration of a classifier, and the importance of a table's columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flask import Blueprint

from service.datasets.info import DatasetInfo
from service.spec.schema import Kind
from service.states import DatasetKind
from service.storage.tables import Artifact, Job
from service.web.endpoints import endpoint
from service.web.files.drawings import Format, Picture, require_here
from service.web.inference import loading
from service.web.inference.loading import dataset_of, inference, job_of, with_network
from service.web.middleware.problems import Problem
from service.web.schemas.inference import CalibrationAnswer, CalibrationBin, ColumnImportance, ImportanceAnswer
from service.web.schemas.queries import CheckpointQuery
from service.web.services import services

if TYPE_CHECKING:
    from service.web.inference.answering import LoadedModel

blueprint: Final = Blueprint("evaluation", __name__)

TAG: Final = "Inference"


@blueprint.get("/jobs/<job_id>/calibration")
@endpoint(TAG, CalibrationAnswer, query=CheckpointQuery, problems=(*loading.PROBLEMS, "dataset_unavailable"))
def calibration(job_id: str, query: CheckpointQuery) -> CalibrationAnswer:
    """Compare the confidence of predictions with their accuracy on the validation data.

    The first request for a checkpoint evaluates the whole validation split. `GET /jobs/{job_id}/plots/calibration.png`
    draws it for the best checkpoint.
    """
    job = job_of(job_id, Kind.CLASSIFIER)
    info = dataset_of(job)
    require_here(info)

    def answer(model: LoadedModel, row: Artifact) -> CalibrationAnswer:
        return _calibration(model, row, info)

    return with_network(job, query.checkpoint, info, answer)


@blueprint.get("/jobs/<job_id>/importance")
@endpoint(
    TAG, ImportanceAnswer, query=CheckpointQuery, problems=(*loading.PROBLEMS, "dataset_unavailable", "not_found")
)
def importance(job_id: str, query: CheckpointQuery) -> ImportanceAnswer:
    """Show how important each column of a table is: the accuracy that is lost when its values are shuffled.

    Each column is shuffled five times. The shuffles depend only on the
    job's seed, so results are reproducible. Of columns with the same
    information, each seems less important than both are together. `GET /jobs/{job_id}/plots/importance.png` draws
    it for the best checkpoint.
    """
    job = job_of(job_id, Kind.CLASSIFIER)
    info = _table_of(job)

    def answer(model: LoadedModel, row: Artifact) -> ImportanceAnswer:
        return _importance(model, row, info)

    return with_network(job, query.checkpoint, info, answer)


def plot(job: Job, which: str, fmt: Format) -> Picture:
    """``calibration`` or ``importance`` of the best checkpoint, drawn.

    Raises:
        Problem: there is no such plot of this job, or not yet.
    """
    if job.kind != Kind.CLASSIFIER:
        raise Problem("not_found", f"a {job.kind} has no plot {which}")
    info = _table_of(job) if which == "importance" else dataset_of(job)
    require_here(info)

    def draw(model: LoadedModel, row: Artifact) -> Picture:
        def drawn() -> bytes:
            from service.pictures import evaluations  # loads Matplotlib, which takes most of a second

            if which == "importance":
                found = _importance(model, row, info)
                bars = [(item.column, item.mean, item.deviation) for item in found.columns]
                return evaluations.importance(bars, accuracy=found.accuracy, epoch=row.epoch, fmt=fmt)
            measured = _calibration(model, row, info)
            points = [(item.confidence, item.accuracy, item.count) for item in measured.bins]
            return evaluations.calibration(points, error=measured.expected_error, epoch=row.epoch, fmt=fmt)

        return services().drawings.kept(job.id, which, row.epoch, fmt, drawn)

    return with_network(job, "best", info, draw)


def _table_of(job: Job) -> DatasetInfo:
    info = dataset_of(job)
    if info.kind is not DatasetKind.TABLE:
        raise Problem("not_found", "the job is trained on images: only columns of a table have an importance")
    return info


def _calibration(model: LoadedModel, row: Artifact, info: DatasetInfo) -> CalibrationAnswer:
    dataset = services().repository.load(info)
    found = inference().calibration(row, model, dataset)
    bins = [CalibrationBin.represent(item) for item in found.bins]
    count = len(dataset.validation)
    return CalibrationAnswer.represent(found, checkpoint=row.epoch, validation_count=count, bins=bins)


def _importance(model: LoadedModel, row: Artifact, info: DatasetInfo) -> ImportanceAnswer:
    found = inference().importances(row, model, services().repository.load(info))
    columns = [ColumnImportance.represent(item) for item in found.columns]
    return ImportanceAnswer.represent(found, checkpoint=row.epoch, columns=columns)
