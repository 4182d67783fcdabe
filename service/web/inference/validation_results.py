"""Results of a checkpoint on the validation data: the cells of the confusion matrix, mistakes, calibration, residuals,
and the importance of a table's columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from service.datasets.info import DatasetInfo
from service.kinds.kind import Ability
from service.states import DatasetKind
from service.storage.artifacts import ArtifactDamaged
from service.storage.tables import Artifact, Job
from service.web.core.core import core
from service.web.http.problems import Problem
from service.web.inference.loading import dataset_of, inference, job_of, require_available, with_network

if TYPE_CHECKING:
    from service.models.predicting import LoadedModel
    from service.web.inference.evaluating import Calibration, Importances


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Some validation examples, with the predictions of a checkpoint."""

    info: DatasetInfo
    epoch: int
    """Of the checkpoint."""
    count: int
    """Of all such examples, also of those beyond the limit."""
    validation_count: int
    indices: NDArray[np.int64]
    labels: NDArray[Any]
    classes: NDArray[Any]
    """As which they are predicted."""
    probabilities: NDArray[Any]
    """Of each class (n, classes)."""
    inputs: NDArray[Any]
    """Images, or rows of a table."""

    @property
    def confidences(self) -> NDArray[Any]:
        """The probability of each predicted class."""
        return np.take_along_axis(self.probabilities, self.classes[:, None], axis=1)[:, 0]


def cell(job_id: str, true: int, predicted: int, *, checkpoint: str, limit: int) -> Selection:
    """The examples of class ``true`` that a checkpoint predicts as class ``predicted``, by descending confidence; on
    the diagonal by ascending confidence.

    Raises:
        Problem: there is no such class, or no such checkpoint.
    """
    job, info = _readable(job_id)
    if max(true, predicted) >= info.classes:
        raise Problem("not_found", f"there is no such class: the dataset has the classes 0 to {info.classes - 1}")

    def is_selected(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
        selected: NDArray[Any] = (labels == true) & (classes == predicted)
        return selected

    return _select(job, info, checkpoint, is_selected, limit=limit, surest_first=true != predicted)


def mistakes(job_id: str, *, checkpoint: str, limit: int) -> Selection:
    """The examples that a checkpoint misclassifies, most confident first."""
    return _select(*_readable(job_id), checkpoint, np.not_equal, limit=limit)


def _select(
    job: Job,
    info: DatasetInfo,
    checkpoint: str,
    is_selected: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]],
    *,
    limit: int,
    surest_first: bool = True,
) -> Selection:
    """The examples that are selected by their label and predicted class."""

    def select(model: LoadedModel, row: Artifact) -> Selection:
        dataset = core().repository.load(info)
        predictions, validation = inference().validation(row, model, dataset), dataset.validation
        selected = np.flatnonzero(is_selected(validation.labels, predictions.classes))
        confidences = predictions.probabilities[selected, predictions.classes[selected]]
        indices = selected[np.argsort(-confidences if surest_first else confidences, kind="stable")[:limit]]
        return Selection(
            info=info,
            epoch=row.epoch,
            count=len(selected),
            validation_count=len(validation),
            indices=indices,
            labels=validation.labels[indices],
            classes=predictions.classes[indices],
            probabilities=predictions.probabilities[indices],
            inputs=validation.inputs[indices],
        )

    return with_network(job, checkpoint, info, select)


def calibration(job_id: str, checkpoint: str) -> tuple[Calibration, int, int]:
    """The calibration of a checkpoint, its epoch, and the number of validation examples."""
    job, info = _readable(job_id)

    def measure(model: LoadedModel, row: Artifact) -> tuple[Calibration, int, int]:
        dataset = core().repository.load(info)
        return inference().calibration(row, model, dataset), row.epoch, len(dataset.validation)

    return with_network(job, checkpoint, info, measure)


def importances(job_id: str, checkpoint: str) -> tuple[Importances, int]:
    """The importance of each column of a table for a checkpoint, and its epoch.

    Raises:
        Problem: the job is trained on images.
    """
    job = job_of(job_id, Ability.PREDICT)
    info = table_of(job)

    def measure(model: LoadedModel, row: Artifact) -> tuple[Importances, int]:
        return inference().importances(row, model, core().repository.load(info)), row.epoch

    return with_network(job, checkpoint, info, measure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """The predictions of a regressor for the validation rows.

    Attributes:
        targets, predictions: float64 (n,), in the unit of the target.
        worst: indices of the rows with the largest errors, largest first.
        inputs: those rows.
    """

    info: DatasetInfo
    epoch: int
    targets: NDArray[np.float64]
    predictions: NDArray[np.float64]
    worst: NDArray[np.int64]
    inputs: NDArray[Any]

    @property
    def rmse(self) -> float:
        """Root of the mean squared difference."""
        from engine import regression_scores  # loads the engine

        return regression_scores(self.targets, self.predictions)["rmse"]


def residuals(job_id: str, *, checkpoint: str, limit: int) -> Residuals:
    """The predictions of a checkpoint of a regressor, and the rows with the largest errors.

    Args:
        limit: the number of these rows.
    """
    job, info = _readable(job_id, Ability.RESIDUALS)

    return with_network(job, checkpoint, info, lambda model, row: residuals_of(model, row, info, limit=limit))


def residuals_of(model: LoadedModel, row: Artifact, info: DatasetInfo, *, limit: int) -> Residuals:
    """The same, of a loaded network."""
    dataset = core().repository.load(info)
    validation, values = dataset.validation, inference().validation(row, model, dataset).values
    if values is None:
        raise ArtifactDamaged(row.path, "it holds no preprocessing of a number to predict")
    targets = np.asarray(validation.labels, np.float64)
    worst = np.argsort(-np.abs(values - targets), kind="stable")[:limit]
    return Residuals(
        info=info, epoch=row.epoch, targets=targets, predictions=values, worst=worst, inputs=validation.inputs[worst]
    )


def _readable(job_id: str, ability: Ability = Ability.CLASSIFY) -> tuple[Job, DatasetInfo]:
    """A job with this ability and its dataset, whose files can be read."""
    job = job_of(job_id, ability)
    info = dataset_of(job)
    require_available(info)
    return job, info


def table_of(job: Job) -> DatasetInfo:
    """The table that a job is trained on.

    Raises:
        Problem: it is trained on images.
    """
    info = dataset_of(job)
    if info.kind is not DatasetKind.TABLE:
        raise Problem("not_found", "the job is trained on images: only columns of a table have an importance")
    return info
