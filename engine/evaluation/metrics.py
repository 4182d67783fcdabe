"""Numbers that say how good predictions are."""

from __future__ import annotations

import numpy as np

from engine.autograd.graph import Array
from engine.errors import DataError, ShapeError


def accuracy(labels: Array, predictions: Array) -> float:
    """Part of the predictions that equal their label; both (n,) integers, n at least 1."""
    _check(labels, predictions)
    return int(np.count_nonzero(np.equal(labels, predictions))) / len(labels)


def confusion_matrix(labels: Array, predictions: Array, classes: int) -> Array:
    """How often each class (row) was taken for each class (column): (classes, classes) int64.

    Raises:
        DataError: a label or prediction is not in [0, classes).
    """
    _check(labels, predictions)
    labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    if min(labels.min(), predictions.min()) < 0 or max(labels.max(), predictions.max()) >= classes:
        raise DataError(f"confusion_matrix: a label or prediction is not one of the {classes} classes")
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def _check(labels: Array, predictions: Array) -> None:
    if np.shape(labels) != np.shape(predictions) or np.ndim(labels) != 1:
        shapes = (np.shape(labels), np.shape(predictions))
        raise ShapeError(f"labels {shapes[0]} and predictions {shapes[1]} must be rows of one length", shapes=shapes)
    if len(labels) == 0:
        raise DataError("no predictions, no metric")
