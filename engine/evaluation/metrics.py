"""Metrics of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.autograd.graph import Array
from engine.errors import DataError, ShapeError

__all__ = ["accuracy", "confusion_matrix", "regression_scores"]


def accuracy(labels: Array, predictions: Array) -> float:
    """Fraction of the predictions that equal their labels; both integers (n,), n at least 1."""
    _check(labels, predictions)
    return int(np.count_nonzero(np.equal(labels, predictions))) / len(labels)


def confusion_matrix(labels: Array, predictions: Array, classes: int) -> Array:
    """Counts of true classes (rows) and predicted classes (columns): int64 (classes, classes).

    Raises:
        DataError: a label or prediction is not in [0, classes).
    """
    _check(labels, predictions)
    labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    if min(labels.min(), predictions.min()) < 0 or max(labels.max(), predictions.max()) >= classes:
        raise DataError(f"confusion_matrix: a label or prediction is not one of the {classes} classes")
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def balanced_accuracy(matrix: Array) -> float:
    """Mean recall of the classes that are present, from a confusion matrix."""
    present = matrix.sum(axis=1)
    return float(np.mean(np.diag(matrix)[present > 0] / present[present > 0]))


def macro_f1(matrix: Array) -> float:
    """Mean F1 of the classes that are present or predicted, from a confusion matrix."""
    sums = matrix.sum(axis=0) + matrix.sum(axis=1)
    return float(np.mean(2 * np.diag(matrix)[sums > 0] / sums[sums > 0]))


def log_likelihoods(labels: Array, probabilities: Array) -> Array:
    """The logarithm of the probability of each label, float64 (n,). The log loss is minus their mean.

    Args:
        labels: integers (n,).
        probabilities: (n, classes), not negative. Each row is divided by its sum, and values are clipped to at least
            1e-15.
    """
    _check(labels, np.asarray(probabilities)[:, 0])
    shares = np.asarray(probabilities, np.float64)
    chosen = shares[np.arange(len(labels)), labels] / np.maximum(shares.sum(axis=1), 1e-300)
    return np.asarray(np.log(np.maximum(chosen, 1e-15)))


def roc_auc(labels: Array, scores: Array) -> float:
    """Probability that an example of class 1 has a higher score than one of class 0, with ties counted half
    (Mann-Whitney); NaN if one of the classes is absent.

    Args:
        labels: 0 or 1, (n,).
        scores: (n,).
    """
    _check(labels, scores)
    positive = np.asarray(labels) == 1
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return float("nan")
    _, indices, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # the mean rank of equal scores, from 1
    return float((ranks[indices[positive]].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def regression_scores(targets: Array, predictions: Array) -> dict[str, float]:
    """``rmse``, ``mae`` and ``r2`` of predictions, both (n,), in the unit of the targets, and the standard errors
    ``rmse_error`` and ``mae_error``.

    ``r2`` is the coefficient of determination, ``1 - sum (t - p)^2 / sum (t - mean t)^2``: 1 is exact, 0 no better than
    the mean of these targets; NaN if all targets are equal. The standard error of the RMSE is that of the mean squared
    error, divided by twice the RMSE (delta method). Both are NaN for a single row.
    """
    _check(targets, predictions)
    targets, predictions, exponent = _scaled(np.asarray(targets, np.float64), np.asarray(predictions, np.float64))
    errors = predictions - targets
    distances, rmse = np.abs(errors), _root_mean_square(errors)
    has_spread = targets.min() < targets.max()  # that of equal decimals is not exactly 0
    ratio = rmse / _root_mean_square(targets - targets.mean()) if has_spread else float("nan")
    scores = {"rmse": rmse, "mae": float(np.mean(distances)), "rmse_error": float("nan"), "mae_error": float("nan")}
    if len(targets) > 1:
        unit, root = rmse or 1.0, float(np.sqrt(len(targets)))
        squares_error, distances_error = (
            unit * float(np.std((distances / unit) ** power, ddof=1)) / root for power in (2, 1)
        )
        scores |= {"rmse_error": squares_error / 2, "mae_error": distances_error}
    with np.errstate(over="ignore"):  # an error may be up to twice the largest float
        in_unit = {name: float(np.ldexp(value, exponent)) for name, value in scores.items()}
    return in_unit | {"r2": 1 - ratio * ratio}


def _scaled(*arrays: Array) -> Any:
    """The arrays divided by a power of two, which rounds nothing, so that their differences are at most 1; and its
    exponent."""
    exponent = int(np.frexp(max(float(np.abs(array).max()) for array in arrays))[1]) + 1
    return *(np.ldexp(array, -exponent) for array in arrays), exponent


def _root_mean_square(values: Array) -> float:
    largest = float(np.abs(values).max()) or 1.0
    return largest * float(np.sqrt(np.mean((values / largest) ** 2)))  # relative, so that no square overflows


def _check(labels: Array, predictions: Array) -> None:
    if np.shape(labels) != np.shape(predictions) or np.ndim(labels) != 1:
        shapes = (np.shape(labels), np.shape(predictions))
        raise ShapeError(f"labels {shapes[0]} and predictions {shapes[1]} must be rows of one length", shapes=shapes)
    if len(labels) == 0:
        raise DataError("there are no predictions")
