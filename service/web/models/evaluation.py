"""A classifier on the validation data: confusion matrix and its cells, mistakes, calibration, importance of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flask import Blueprint, Response

from service.datasets.tables.rows import named_row
from service.jobs.queries import lookup
from service.pictures import grids
from service.spec.schema import Kind
from service.web.core.core import core
from service.web.http import downloads, slots
from service.web.http.downloads import picture
from service.web.http.endpoint import endpoint
from service.web.http.problems import Problem
from service.web.inference import loading, validation_results
from service.web.inference.loading import class_names, job_of, require_images
from service.web.inference.validation_results import Misclassified
from service.web.jobs.result_schemas import ConfusionMatrix
from service.web.models.schemas import (
    CalibrationAnswer,
    CalibrationBin,
    CellQuery,
    CheckpointQuery,
    ColumnImportance,
    ConfusionCell,
    ImportanceAnswer,
    MatrixQuery,
    Mistake,
    MistakeList,
    MistakesQuery,
)
from service.wording import counted

blueprint: Final = Blueprint("confusion", __name__)

TAG: Final = "Inference"


@blueprint.get("/jobs/<job_id>/confusion")
@endpoint(TAG, ConfusionMatrix, query=MatrixQuery, problems=("job_not_found", "wrong_kind", "not_yet"))
def matrix(job_id: str, query: MatrixQuery) -> ConfusionMatrix:
    """Show the confusion matrix of an epoch, with precision, recall and F1 of each class."""
    job = job_of(job_id, Kind.CLASSIFIER)
    with core().database.read() as session:
        found = lookup.matrix(session, job, str(query.epoch or query.checkpoint))
    if found is None:
        finished = counted(job.epoch, "epoch")
        raise Problem("not_yet", f"there is no confusion matrix of this epoch: the job has finished {finished}")
    epoch, counts = found
    return ConfusionMatrix.of(epoch, class_names(job, len(counts)), counts)


@blueprint.get("/jobs/<job_id>/confusion/<int:true>/<int:predicted>")
@endpoint(TAG, ConfusionCell, query=CellQuery, problems=(*loading.PROBLEMS, "dataset_unavailable"))
def cell(job_id: str, true: int, predicted: int, query: CellQuery) -> ConfusionCell:
    """Show the validation images in one cell of the confusion matrix.

    Mistakes are in descending order of confidence, correct predictions in ascending order. The first request for a
    checkpoint evaluates the whole validation split.
    """
    result = validation_results.cell(job_id, true, predicted, checkpoint=query.checkpoint, limit=query.limit)
    columns = result.info.columns
    return ConfusionCell(
        checkpoint=result.epoch,
        count=result.count,
        indices=result.indices.tolist(),
        confidences=result.confidences.tolist(),
        images=[] if columns else [grids.image_base64(image) for image in result.inputs],
        rows=[named_row(values, columns) for values in result.inputs] if columns else None,
    )


@blueprint.get("/jobs/<job_id>/confusion/<int:true>/<int:predicted>.png")
@endpoint(
    TAG,
    "image/png",
    **downloads.DRAWN,
    query=CellQuery,
    problems=(*loading.PROBLEMS, "dataset_unavailable", "not_found"),
)
def cell_picture(job_id: str, true: int, predicted: int, query: CellQuery) -> Response:
    """Draw the images of one cell, each with the confidence of its prediction."""
    result = validation_results.cell(job_id, true, predicted, checkpoint=query.checkpoint, limit=query.limit)
    if not result.count:
        raise Problem("not_found", f"no validation image of class {true} is predicted as class {predicted}")
    require_images(result.info)
    count, names = len(result.inputs), result.info.class_names
    classes = [true] * count, [predicted] * count
    with slots.hold(slots.DRAWING):
        data = grids.prediction_grid(result.inputs, *classes, confidences=result.confidences, class_names=names)
    return downloads.send_picture(picture(data), "image/png")


@blueprint.get("/jobs/<job_id>/mistakes")
@endpoint(TAG, MistakeList, query=MistakesQuery, problems=(*loading.PROBLEMS, "dataset_unavailable"))
def mistakes(job_id: str, query: MistakesQuery) -> MistakeList:
    """Show the validation images that a checkpoint misclassifies, most confident first.

    The first request for a checkpoint evaluates the whole validation split.
    """
    result = validation_results.mistakes(job_id, checkpoint=query.checkpoint, limit=query.limit)
    return MistakeList.represent(
        result,
        checkpoint=result.epoch,
        class_names=result.info.class_names,
        data=[_mistake(mistake, result.info.columns) for mistake in result.shown],
    )


def _mistake(misclassified: Misclassified, columns: Sequence[Mapping[str, Any]]) -> Mistake:
    return Mistake.represent(
        misclassified,
        image=None if columns else grids.image_base64(misclassified.input),
        row=named_row(misclassified.input, columns) if columns else None,
    )


evaluation_blueprint: Final = Blueprint("evaluation", __name__)


@evaluation_blueprint.get("/jobs/<job_id>/calibration")
@endpoint(TAG, CalibrationAnswer, query=CheckpointQuery, problems=(*loading.PROBLEMS, "dataset_unavailable"))
def calibration(job_id: str, query: CheckpointQuery) -> CalibrationAnswer:
    """Compare the confidence of predictions with their accuracy on the validation data.

    The first request for a checkpoint evaluates the whole validation split. `GET /jobs/{job_id}/plots/calibration.png`
    draws it.
    """
    result, epoch, count = validation_results.calibration(job_id, query.checkpoint)
    bins = [CalibrationBin.represent(item) for item in result.bins]
    return CalibrationAnswer.represent(result, checkpoint=epoch, validation_count=count, bins=bins)


@evaluation_blueprint.get("/jobs/<job_id>/importance")
@endpoint(
    TAG, ImportanceAnswer, query=CheckpointQuery, problems=(*loading.PROBLEMS, "dataset_unavailable", "not_found")
)
def importance(job_id: str, query: CheckpointQuery) -> ImportanceAnswer:
    """Show how important each column of a table is: the accuracy that is lost when its values are shuffled.

    Each column is shuffled five times. The shuffles depend only on the
    job's seed, so results are reproducible. Of columns with the same
    information, each seems less important than both are together. `GET /jobs/{job_id}/plots/importance.png` draws
    it.
    """
    result, epoch = validation_results.importances(job_id, query.checkpoint)
    columns = [ColumnImportance.represent(item) for item in result.columns]
    return ImportanceAnswer.represent(result, checkpoint=epoch, columns=columns)
