"""The confusion matrix, the examples in each of its cells, and the most confident mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from flask import Blueprint, Response
from numpy.typing import NDArray

from service.datasets.info import DatasetInfo
from service.datasets.tables.rows import named_row
from service.pictures import grids
from service.spec.schema import Kind
from service.storage.tables import Artifact, Epoch
from service.web.endpoints import endpoint
from service.web.files import downloads
from service.web.files.drawings import picture, require_here, require_images
from service.web.inference import loading
from service.web.inference.loading import class_names, dataset_of, inference, job_of, with_network
from service.web.middleware.problems import Problem
from service.web.schemas.inference import ConfusionCell, ConfusionMatrix, Mistake, MistakeList
from service.web.schemas.queries import CellQuery, EpochQuery, MistakesQuery
from service.web.services import services

if TYPE_CHECKING:
    from service.web.inference.answering import LoadedModel

blueprint: Final = Blueprint("confusion", __name__)

TAG: Final = "Inference"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """The images of one cell, by descending confidence; on the diagonal by ascending confidence."""

    info: DatasetInfo
    epoch: int
    count: int
    indices: NDArray[np.int64]
    confidences: NDArray[Any]
    inputs: NDArray[Any]
    """Images, or rows of a table."""


@blueprint.get("/jobs/<job_id>/confusion")
@endpoint(TAG, ConfusionMatrix, query=EpochQuery, problems=("job_not_found", "wrong_kind", "not_yet"))
def matrix(job_id: str, query: EpochQuery) -> ConfusionMatrix:
    """Show the confusion matrix of an epoch, with precision, recall and F1 of each class."""
    job = job_of(job_id, Kind.CLASSIFIER)
    with services().database.read() as session:
        row = session.get(Epoch, (job_id, query.epoch or job.epoch))
    if row is None or row.confusion is None:
        raise Problem("not_yet", f"there is no confusion matrix of this epoch: the job has finished {job.epoch} epochs")
    return ConfusionMatrix.of(row.epoch, class_names(job, len(row.confusion)), row.confusion)


@blueprint.get("/jobs/<job_id>/confusion/<int:true>/<int:predicted>")
@endpoint(TAG, ConfusionCell, query=CellQuery, problems=(*loading.PROBLEMS, "dataset_unavailable"))
def cell(job_id: str, true: int, predicted: int, query: CellQuery) -> ConfusionCell:
    """Show the validation images in one cell of the confusion matrix.

    Mistakes are in descending order of confidence, correct predictions in ascending order. The first request for a
    checkpoint evaluates the whole validation split.
    """
    found = _find(job_id, true, predicted, query)
    columns = found.info.columns
    return ConfusionCell(
        checkpoint=found.epoch,
        count=found.count,
        indices=found.indices.tolist(),
        confidences=found.confidences.tolist(),
        images=[] if columns else [grids.image_base64(image) for image in found.inputs],
        rows=[named_row(values, columns) for values in found.inputs] if columns else None,
    )


@blueprint.get("/jobs/<job_id>/confusion/<int:true>/<int:predicted>.png")
@endpoint(
    TAG,
    "image/png",
    other_media=downloads.AS_OCTETS,
    query=CellQuery,
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=(*loading.PROBLEMS, "dataset_unavailable", "not_found"),
)
def cell_picture(job_id: str, true: int, predicted: int, query: CellQuery) -> Response:
    """Draw the images of one cell, each with the confidence of its prediction."""
    found = _find(job_id, true, predicted, query)
    if not found.count:
        raise Problem("not_found", f"no validation image of class {true} is predicted as class {predicted}")
    require_images(found.info)
    shown, names = len(found.inputs), found.info.class_names
    classes = [true] * shown, [predicted] * shown
    data = grids.prediction_grid(found.inputs, *classes, confidences=found.confidences, class_names=names)
    return downloads.send_picture(picture(data), "image/png")


@blueprint.get("/jobs/<job_id>/mistakes")
@endpoint(TAG, MistakeList, query=MistakesQuery, problems=(*loading.PROBLEMS, "dataset_unavailable"))
def mistakes(job_id: str, query: MistakesQuery) -> MistakeList:
    """Show the validation images that a checkpoint misclassifies, most confident first.

    The first request for a checkpoint evaluates the whole validation split.
    """
    job = job_of(job_id, Kind.CLASSIFIER)
    info = dataset_of(job)
    require_here(info)

    def answer(model: LoadedModel, row: Artifact) -> MistakeList:
        return _mistakes(model, row, info, query.limit)

    return with_network(job, query.checkpoint, info, answer)


def _mistakes(model: LoadedModel, row: Artifact, info: DatasetInfo, limit: int) -> MistakeList:
    dataset = services().repository.load(info)
    found = inference().validation(row, model, dataset)
    labels = dataset.validation.labels
    wrong = np.flatnonzero(found.classes != labels)
    confidences = found.probabilities[wrong, found.classes[wrong]]
    shown = wrong[np.argsort(-confidences, kind="stable")[:limit]]
    return MistakeList(
        checkpoint=row.epoch,
        count=len(wrong),
        validation_count=len(labels),
        class_names=list(info.class_names),
        data=[
            Mistake(
                index=int(index),
                true_class=int(labels[index]),
                predicted_class=int(found.classes[index]),
                confidence=float(found.probabilities[index, found.classes[index]]),
                true_confidence=float(found.probabilities[index, labels[index]]),
                image=None if info.columns else grids.image_base64(dataset.validation.inputs[index]),
                row=named_row(dataset.validation.inputs[index], info.columns) if info.columns else None,
            )
            for index in shown
        ],
    )


def _find(job_id: str, true: int, predicted: int, query: CellQuery) -> _Cell:
    job = job_of(job_id, Kind.CLASSIFIER)
    info = dataset_of(job)
    require_here(info)
    if max(true, predicted) >= info.classes:
        raise Problem("not_found", f"there is no such class: the dataset has the classes 0 to {info.classes - 1}")

    def select(model: LoadedModel, row: Artifact) -> _Cell:
        return _select(model, row, info, true, predicted, query.limit)

    return with_network(job, query.checkpoint, info, select)


def _select(model: LoadedModel, row: Artifact, info: DatasetInfo, true: int, predicted: int, limit: int) -> _Cell:
    dataset = services().repository.load(info)
    found = inference().validation(row, model, dataset)
    inside = np.flatnonzero((dataset.validation.labels == true) & (found.classes == predicted))
    sure = found.probabilities[inside, predicted]
    order = np.argsort(sure if true == predicted else -sure, kind="stable")[:limit]
    indices = inside[order]
    return _Cell(
        info=info,
        epoch=row.epoch,
        count=len(inside),
        indices=indices,
        confidences=sure[order],
        inputs=dataset.validation.inputs[indices],
    )
