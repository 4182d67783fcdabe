"""Evaluation of a classifier or regressor on validation data: calibration and column importance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine import generator_for, regression_scores
from service.datasets.cache import Dataset
from service.states import Task
from service.statistics import scale_of

BINS: Final = 10
REPEATS: Final = 5
"""Number of shuffles of each column."""
_MAX_PREDICTED_ROWS: Final = 500_000
"""Maximum number of predicted rows over all columns and repeats."""
_MIN_ROWS: Final = 200


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions within an interval of confidence."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """A reliability diagram: confidence against accuracy."""

    bins: tuple[Bin, ...]
    expected_error: float
    """Expected calibration error: mean distance of the two, weighted by count (Naeini et al. 2015)."""


@dataclass(frozen=True, slots=True)
class Importance:
    """The loss of accuracy, or the gain in RMSE, when a column is shuffled: mean and standard deviation over the
    repeats."""

    column: str
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Importances:
    """The importances of all columns, in the order of the columns."""

    accuracy: float | None
    """Of a classifier."""
    rmse: float | None
    """Of a regressor."""
    rows: int
    columns: tuple[Importance, ...]


def calibration(probabilities: NDArray[Any], classes: NDArray[Any], labels: NDArray[Any]) -> Calibration:
    """Confidence in the predicted class against accuracy, in ten bins of equal width.

    Args:
        probabilities: (n, classes).
        classes, labels: (n,), predicted and true.
    """
    sums = np.maximum(probabilities.sum(axis=1), 1e-12)
    confidences = probabilities[np.arange(len(labels)), classes] / sums
    is_correct = classes == labels
    bin_indices = np.minimum((confidences * BINS).astype(np.int64), BINS - 1)
    bins, error = [], 0.0
    for index in range(BINS):
        in_bin = bin_indices == index
        count = int(in_bin.sum())
        confidence = float(confidences[in_bin].mean()) if count else None
        accuracy = float(is_correct[in_bin].mean()) if count else None
        bins.append(Bin(index / BINS, (index + 1) / BINS, count, confidence, accuracy))
        if confidence is not None and accuracy is not None:
            error += count / len(labels) * abs(confidence - accuracy)
    return Calibration(tuple(bins), error)


def importances(predict: Callable[[NDArray[np.float64]], NDArray[Any]], dataset: Dataset, seed: int) -> Importances:
    """Permutation importance (Breiman 2001): the accuracy on validation rows, minus that with a column shuffled; of a
    regressor, the RMSE with a column shuffled, minus that without.

    The shuffles depend on the seed. If there are many rows, evenly spaced ones are used.

    Args:
        predict: rows (n, columns) to classes or values (n,).
    """
    columns, part = dataset.info.columns, dataset.validation
    max_rows = max(_MIN_ROWS, _MAX_PREDICTED_ROWS // (REPEATS * max(1, len(columns))))
    indices = np.linspace(0, len(part) - 1, min(len(part), max_rows)).astype(np.int64)
    inputs, labels = np.array(part.inputs[indices], np.float64), np.asarray(part.labels[indices])

    is_regression = dataset.info.task is Task.REGRESSION

    def score(rows: NDArray[np.float64]) -> float:
        if is_regression:
            return -regression_scores(labels, predict(rows))["rmse"]
        return float((predict(rows) == labels).mean())

    rng, baseline, results = generator_for(seed, "importance"), score(inputs), []
    for index, column in enumerate(columns):
        drops = []
        for _ in range(REPEATS):
            shuffled = inputs.copy()
            shuffled[:, index] = rng.permutation(inputs[:, index])
            drops.append(baseline - score(shuffled))
        results.append(Importance(str(column["name"]), *mean_and_deviation(drops)))
    accuracy, rmse = (None, -baseline) if is_regression else (baseline, None)
    return Importances(accuracy, rmse, len(labels), tuple(results))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the standard deviation (of the population) of values of any size, at least one."""
    if min(values) == max(values):  # the sum of equal decimals is rounded
        return values[0], 0.0
    scale = scale_of(values) or 1.0
    scaled = np.asarray(values) / scale  # by a power of two, which rounds nothing
    return float(scaled.mean()) * scale, float(scaled.std()) * scale
