"""Results of a checkpoint on the validation data: the cells of the confusion matrix, mistakes, calibration,
and the importance of a table's columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from service.datasets.info import DatasetInfo
from service.spec.schema import Kind
from service.states import DatasetKind
from service.storage.tables import Artifact, Job
from service.web.files.drawings import Format, Picture, require_available
from service.web.inference.loading import dataset_of, inference, job_of, with_network
from service.web.middleware.problems import Problem
from service.web.services import services

if TYPE_CHECKING:
    from service.web.inference.evaluating import Calibration, Importances
    from service.web.inference.model_runner import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """The examples of one cell, by descending confidence; on the diagonal by ascending confidence."""

    info: DatasetInfo
    epoch: int
    """Of the checkpoint."""
    count: int
    indices: NDArray[np.int64]
    confidences: NDArray[Any]
    inputs: NDArray[Any]
    """Images, or rows of a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misclassified:
    """A misclassified example."""

    index: int
    true_class: int
    predicted_class: int
    confidence: float
    true_confidence: float
    input: NDArray[Any]
    """An image, or a row of a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistakes:
    """The most confident mistakes of a checkpoint."""

    info: DatasetInfo
    epoch: int
    """Of the checkpoint."""
    count: int
    validation_count: int
    shown: Sequence[Misclassified]


def cell(job_id: str, true: int, predicted: int, *, checkpoint: str, limit: int) -> Cell:
    """The examples of class ``true`` that a checkpoint predicts as class ``predicted``.

    Raises:
        Problem: there is no such class, or no such checkpoint.
    """
    job, info = _readable(job_id)
    if max(true, predicted) >= info.classes:
        raise Problem("not_found", f"there is no such class: the dataset has the classes 0 to {info.classes - 1}")

    def select(model: LoadedModel, row: Artifact) -> Cell:
        dataset = services().repository.load(info)
        predictions = inference().validation(row, model, dataset)
        cell_indices = np.flatnonzero((dataset.validation.labels == true) & (predictions.classes == predicted))
        confidences = predictions.probabilities[cell_indices, predicted]
        order = np.argsort(confidences if true == predicted else -confidences, kind="stable")[:limit]
        indices = cell_indices[order]
        return Cell(
            info=info,
            epoch=row.epoch,
            count=len(cell_indices),
            indices=indices,
            confidences=confidences[order],
            inputs=dataset.validation.inputs[indices],
        )

    return with_network(job, checkpoint, info, select)


def mistakes(job_id: str, *, checkpoint: str, limit: int) -> Mistakes:
    """The examples that a checkpoint misclassifies, most confident first."""
    job, info = _readable(job_id)

    def select(model: LoadedModel, row: Artifact) -> Mistakes:
        dataset = services().repository.load(info)
        predictions = inference().validation(row, model, dataset)
        labels = dataset.validation.labels
        mistake_indices = np.flatnonzero(predictions.classes != labels)
        confidences = predictions.probabilities[mistake_indices, predictions.classes[mistake_indices]]
        shown = [
            Misclassified(
                index=int(index),
                true_class=int(labels[index]),
                predicted_class=int(predictions.classes[index]),
                confidence=float(predictions.probabilities[index, predictions.classes[index]]),
                true_confidence=float(predictions.probabilities[index, labels[index]]),
                input=dataset.validation.inputs[index],
            )
            for index in mistake_indices[np.argsort(-confidences, kind="stable")[:limit]]
        ]
        return Mistakes(
            info=info, epoch=row.epoch, count=len(mistake_indices), validation_count=len(labels), shown=shown
        )

    return with_network(job, checkpoint, info, select)


def calibration(job_id: str, checkpoint: str) -> tuple[Calibration, int, int]:
    """The calibration of a checkpoint, its epoch, and the number of validation examples."""
    job, info = _readable(job_id)

    def measure(model: LoadedModel, row: Artifact) -> tuple[Calibration, int, int]:
        dataset = services().repository.load(info)
        return inference().calibration(row, model, dataset), row.epoch, len(dataset.validation)

    return with_network(job, checkpoint, info, measure)


def importances(job_id: str, checkpoint: str) -> tuple[Importances, int]:
    """The importance of each column of a table for a checkpoint, and its epoch.

    Raises:
        Problem: the job is trained on images.
    """
    job = job_of(job_id, Kind.CLASSIFIER)
    info = _table_of(job)

    def measure(model: LoadedModel, row: Artifact) -> tuple[Importances, int]:
        return inference().importances(row, model, services().repository.load(info)), row.epoch

    return with_network(job, checkpoint, info, measure)


def plot(job: Job, plot_name: str, fmt: Format, checkpoint: str) -> Picture:
    """``calibration`` or ``importance`` of a checkpoint, drawn.

    Raises:
        Problem: there is no such plot of this job, or not yet.
    """
    if job.kind != Kind.CLASSIFIER:
        raise Problem("not_found", f"a {job.kind} has no plot {plot_name}")
    info = _table_of(job) if plot_name == "importance" else dataset_of(job)
    require_available(info)

    def draw(model: LoadedModel, row: Artifact) -> Picture:
        def render() -> bytes:
            from service.pictures import plots  # loads Matplotlib, which takes most of a second

            dataset = services().repository.load(info)
            if plot_name == "importance":
                column_importances = inference().importances(row, model, dataset)
                bars = [(item.column, item.mean, item.deviation) for item in column_importances.columns]
                return plots.importance(bars, accuracy=column_importances.accuracy, epoch=row.epoch, fmt=fmt)
            diagram = inference().calibration(row, model, dataset)
            points = [(item.confidence, item.accuracy, item.count) for item in diagram.bins]
            return plots.calibration(points, error=diagram.expected_error, epoch=row.epoch, fmt=fmt)

        return services().drawings.cached_picture(job.id, plot_name, row.epoch, fmt, render)

    return with_network(job, checkpoint, info, draw)


def _readable(job_id: str) -> tuple[Job, DatasetInfo]:
    """A classifier and its dataset, whose files can be read."""
    job = job_of(job_id, Kind.CLASSIFIER)
    info = dataset_of(job)
    require_available(info)
    return job, info


def _table_of(job: Job) -> DatasetInfo:
    info = dataset_of(job)
    if info.kind is not DatasetKind.TABLE:
        raise Problem("not_found", "the job is trained on images: only columns of a table have an importance")
    return info
