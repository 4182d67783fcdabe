"""What a classifier's validation predictions say of it: how sure it may be believed to be, and which columns matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine import generator_for
from service.datasets import Dataset

BINS: Final = 10
REPEATS: Final = 5
"""Times that each column is shuffled."""
_PREDICTED_ROWS: Final = 500_000
"""The most rows that are predicted for the importance of all columns."""
_FEWEST_ROWS: Final = 200


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions of about the same confidence."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How confidence and accuracy go together."""

    bins: tuple[Bin, ...]
    expected_error: float
    """Mean distance of the two, each bin by its count (Naeini et al. 2015)."""


@dataclass(frozen=True, slots=True)
class Importance:
    """How much accuracy is lost without what a column says: mean and standard deviation over the repeats."""

    column: str
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Importances:
    """Of all columns, in their order."""

    accuracy: float
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
    right = classes == labels
    places = np.minimum((confidences * BINS).astype(np.int64), BINS - 1)
    bins, error = [], 0.0
    for number in range(BINS):
        inside = places == number
        count = int(inside.sum())
        sure = float(confidences[inside].mean()) if count else None
        share = float(right[inside].mean()) if count else None
        bins.append(Bin(number / BINS, (number + 1) / BINS, count, sure, share))
        if sure is not None and share is not None:
            error += count / len(labels) * abs(sure - share)
    return Calibration(tuple(bins), error)


def importances(predict: Callable[[NDArray[np.float64]], NDArray[Any]], dataset: Dataset, seed: int) -> Importances:
    """Permutation importance (Breiman 2001): the accuracy on validation rows, less that with a column shuffled.

    The seed decides how; of many rows, evenly spaced ones are used.

    Args:
        predict: rows (n, columns) to classes (n,).
    """
    columns, part = dataset.info.columns, dataset.validation
    most = max(_FEWEST_ROWS, _PREDICTED_ROWS // (REPEATS * max(1, len(columns))))
    chosen = np.linspace(0, len(part) - 1, min(len(part), most)).astype(np.int64)
    inputs, labels = np.array(part.inputs[chosen], np.float64), np.asarray(part.labels[chosen])

    def accuracy(rows: NDArray[np.float64]) -> float:
        return float((predict(rows) == labels).mean())

    rng, whole, measured = generator_for(seed, "importance"), accuracy(inputs), []
    for place, column in enumerate(columns):
        drops = []
        for _ in range(REPEATS):
            shuffled = inputs.copy()
            shuffled[:, place] = rng.permutation(inputs[:, place])
            drops.append(whole - accuracy(shuffled))
        measured.append(Importance(str(column["name"]), float(np.mean(drops)), float(np.std(drops))))
    return Importances(whole, len(labels), tuple(measured))
