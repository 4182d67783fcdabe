"""A classifier or regressor on the validation data: confusion matrix and its cells, mistakes, calibration, residuals,
importance of columns."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

import numpy as np
from flask import Blueprint, Response
from pydantic import Field

from service.datasets.tables.rows import named_row
from service.jobs.queries import lookup
from service.kinds.kind import Ability
from service.pictures import grids
from service.spec.schema import MAX_EPOCHS
from service.web.core.core import core
from service.web.http import downloads, slots
from service.web.http.downloads import picture
from service.web.http.endpoint import endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.problems import Problem
from service.web.http.queries import Query, Text, WhichCheckpoint
from service.web.http.schemas import ResponseModel
from service.web.inference import loading, validation_results
from service.web.inference.loading import class_names, job_of, require_images
from service.web.inference.validation_results import Residuals, Selection
from service.web.jobs.result_schemas import ConfusionMatrix
from service.wording import counted

blueprint: Final = Blueprint("confusion", __name__)

TAG: Final = "Inference"
TRUE: Final = PathParameter("true", "Index of the true class.", "4")
PREDICTED: Final = PathParameter("predicted", "Index of the predicted class.", "9")
MAX_POINTS: Final = 2000
"""Maximum number of points in an answer with residuals."""


class MatrixQuery(Query):
    """Which epoch to show."""

    checkpoint: WhichCheckpoint = Field(
        "latest",
        description="`best`, `latest`, or an epoch number. The matrix is stored with the metrics of an epoch, so it "
        "remains when the checkpoint is removed; `latest` is the last finished epoch.",
    )
    epoch: Annotated[int, Field(ge=1, le=MAX_EPOCHS)] | None = Field(
        None,
        json_schema_extra={"deprecated": True},
        description="Former name of `checkpoint`, for an epoch number.",
    )


class CellQuery(Query):
    """Which images to return, classified with which checkpoint."""

    checkpoint: WhichCheckpoint = Field("latest", description="`best`, `latest`, or an epoch number.")
    limit: int = Field(64, ge=1, le=256)
    v: Text | None = Field(None, description="Ignored; a new value makes a browser load the image again.")


class CheckpointQuery(Query):
    """Which checkpoint to evaluate."""

    checkpoint: WhichCheckpoint = Field("best", description="`best`, `latest`, or an epoch number.")


class MistakesQuery(CheckpointQuery):
    """How many mistakes to return, and of which checkpoint."""

    limit: int = Field(24, ge=1, le=256)


class ConfusionCell(ResponseModel):
    """The validation images of one class that a checkpoint predicts as one class."""

    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    count: int = Field(description="Number of images in the cell; at most `limit` are returned.")
    indices: list[int] = Field(description="Indices in the validation split, from 0.")
    confidences: list[float] = Field(description="Probability of the predicted class.")
    images: list[str] = Field(description="PNGs in base64; empty for a table.")
    rows: list[dict[str, Any]] | None = Field(
        None, description="Rows of a table, as values by column; null for images."
    )


class Mistake(ResponseModel):
    """A validation image that a checkpoint classifies wrongly."""

    index: int = Field(description="Index in the validation split, from 0.")
    true_class: int
    predicted_class: int
    confidence: float = Field(description="Probability of the predicted class, in [0, 1].")
    true_confidence: float = Field(description="Probability of the true class.")
    image: str | None = Field(description="A PNG in base64; null for a row of a table.")
    row: dict[str, Any] | None = Field(None, description="A row of a table, as values by column; null for an image.")


class MistakeList(ResponseModel):
    """The mistakes of a checkpoint, most confident first."""

    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    count: int = Field(description="Number of misclassified images; at most `limit` are in `data`.")
    validation_count: int = Field(description="Images in the validation split.")
    class_names: list[str]
    data: list[Mistake]


class ResidualRow(ResponseModel):
    """A validation row with its target and its prediction."""

    index: int = Field(description="Index in the validation split, from 0.")
    target: float
    prediction: float
    row: dict[str, Any] = Field(description="Its values by column.")


class ResidualsAnswer(ResponseModel):
    """The predictions of a regressor for the validation rows."""

    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    validation_count: int
    target: str = Field(description="The column that is predicted.")
    points: list[Annotated[list[float], Field(min_length=2, max_length=2)]] = Field(
        description=f"Target and prediction of the validation rows; of more than {MAX_POINTS:,}, of evenly spaced ones."
    )
    worst: list[ResidualRow] = Field(description="The rows with the largest errors, largest first.")

    @classmethod
    def of(cls, found: Residuals) -> Self:
        """The response for the residuals of a checkpoint."""
        count, columns = len(found.targets), found.info.columns
        shown = [index * count // min(count, MAX_POINTS) for index in range(min(count, MAX_POINTS))]
        points = np.stack([found.targets, found.predictions], axis=1)
        worst = zip(found.worst.tolist(), points[found.worst].tolist(), found.inputs, strict=True)
        return cls(
            checkpoint=found.epoch,
            validation_count=count,
            target=found.info.target,
            points=points[shown].tolist(),
            worst=[
                ResidualRow(index=index, target=target, prediction=prediction, row=named_row(values, columns))
                for index, (target, prediction), values in worst
            ],
        )


class CalibrationBin(ResponseModel):
    """Validation predictions within an interval of confidence."""

    low: float
    high: float
    count: int
    confidence: float | None = Field(description="Mean probability of the predicted class; null: the bin is empty.")
    accuracy: float | None = Field(description="Fraction of correct predictions; null: the bin is empty.")


class CalibrationAnswer(ResponseModel):
    """Confidence against accuracy on the validation data."""

    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    validation_count: int
    expected_error: float = Field(
        description="Expected calibration error: the mean distance of confidence and accuracy over all predictions. "
        "Training with `loss.label_smoothing` lowers confidence, by about as much."
    )
    bins: list[CalibrationBin] = Field(description="Ten, from 0 to 1.")


class ColumnImportance(ResponseModel):
    """The importance of a column."""

    column: str
    mean: float = Field(
        description="Loss of accuracy when the column is shuffled; of a regressor, gain in RMSE. Negative: the column "
        "misleads."
    )
    deviation: float = Field(description="Standard deviation over the repeats.")


class ImportanceAnswer(ResponseModel):
    """The importance of each column of a table."""

    checkpoint: int = Field(description="Epoch of the checkpoint that was used.")
    accuracy: float | None = Field(description="Accuracy on the same rows without shuffling; null for a regressor.")
    rmse: float | None = Field(description="RMSE of a regressor on the same rows without shuffling.")
    rows: int = Field(description="Number of validation rows used.")
    columns: list[ColumnImportance] = Field(description="In the order of the dataset.")


@blueprint.get("/jobs/<job_id>/confusion")
@endpoint(
    TAG, ConfusionMatrix, query=MatrixQuery, problems=("job_not_found", "wrong_kind", "not_yet"), is_shown_by_links=True
)
def matrix(job_id: str, query: MatrixQuery) -> ConfusionMatrix:
    """Show the confusion matrix of an epoch, with precision, recall and F1 of each class."""
    job = job_of(job_id, Ability.CLASSIFY)
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
        data = grids.captioned_grid(result.inputs, *classes, confidences=result.confidences, class_names=names)
    return downloads.send_picture(picture(data), "image/png")


@blueprint.get("/jobs/<job_id>/mistakes")
@endpoint(
    TAG,
    MistakeList,
    query=MistakesQuery,
    problems=(*loading.PROBLEMS, "dataset_unavailable"),
    client="Job.mistakes",
)
def mistakes(job_id: str, query: MistakesQuery) -> MistakeList:
    """Show the validation images that a checkpoint misclassifies, most confident first.

    The first request for a checkpoint evaluates the whole validation split.
    """
    result = validation_results.mistakes(job_id, checkpoint=query.checkpoint, limit=query.limit)
    data = [_mistake(result, position) for position in range(len(result.indices))]
    return MistakeList.from_row(result, checkpoint=result.epoch, class_names=result.info.class_names, data=data)


def _mistake(result: Selection, position: int) -> Mistake:
    label, predicted = result.labels[position], result.classes[position]
    values, columns = result.inputs[position], result.info.columns
    return Mistake(
        index=int(result.indices[position]),
        true_class=int(label),
        predicted_class=int(predicted),
        confidence=float(result.probabilities[position, predicted]),
        true_confidence=float(result.probabilities[position, label]),
        image=None if columns else grids.image_base64(values),
        row=named_row(values, columns) if columns else None,
    )


@blueprint.get("/jobs/<job_id>/residuals")
@endpoint(TAG, ResidualsAnswer, query=MistakesQuery, problems=(*loading.PROBLEMS, "dataset_unavailable"))
def residuals(job_id: str, query: MistakesQuery) -> ResidualsAnswer:
    """Show targets and predictions of a regressor for the validation rows, and the rows with the largest errors.

    The first request for a checkpoint evaluates the whole validation split. `GET /jobs/{job_id}/plots/residuals.png`
    draws it.
    """
    return ResidualsAnswer.of(validation_results.residuals(job_id, checkpoint=query.checkpoint, limit=query.limit))


evaluation_blueprint: Final = Blueprint("evaluation", __name__)


@evaluation_blueprint.get("/jobs/<job_id>/calibration")
@endpoint(
    TAG,
    CalibrationAnswer,
    query=CheckpointQuery,
    problems=(*loading.PROBLEMS, "dataset_unavailable"),
    client="Job.calibration",
    is_shown_by_links=True,
)
def calibration(job_id: str, query: CheckpointQuery) -> CalibrationAnswer:
    """Compare the confidence of predictions with their accuracy on the validation data.

    The first request for a checkpoint evaluates the whole validation split. `GET /jobs/{job_id}/plots/calibration.png`
    draws it.
    """
    result, epoch, count = validation_results.calibration(job_id, query.checkpoint)
    return CalibrationAnswer.from_row(result, checkpoint=epoch, validation_count=count)


@evaluation_blueprint.get("/jobs/<job_id>/importance")
@endpoint(
    TAG,
    ImportanceAnswer,
    query=CheckpointQuery,
    problems=(*loading.PROBLEMS, "dataset_unavailable", "not_found"),
    client="Job.importance",
    is_shown_by_links=True,
)
def importance(job_id: str, query: CheckpointQuery) -> ImportanceAnswer:
    """Show how important each column of a table is: the accuracy that is lost when its values are shuffled, or the
    RMSE that a regressor gains.

    Each column is shuffled five times. The shuffles depend only on the
    job's seed, so results are reproducible. Of columns with the same
    information, each seems less important than both are together. `GET /jobs/{job_id}/plots/importance.png` draws
    it.
    """
    result, epoch = validation_results.importances(job_id, query.checkpoint)
    return ImportanceAnswer.from_row(result, checkpoint=epoch)
