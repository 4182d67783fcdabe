"""Finds columns that alone predict the class: often a number given out by class, or the result in other words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.tables.analysis.moments import exponent_of, moments, ranks

_MAX_ROWS: Final = 100_000
_MAX_CELLS: Final = 4_000_000
_COPIED: Final = 0.9999
"""A column with a higher correlation is the target in another unit, or under another function."""
_MIN_PAIRS: Final = 10
_MAX_CHANCE: Final = 0.001
"""Probability that any column of a table without a leak is reported."""


def find_leaks(columns: Sequence[Mapping[str, Any]], inputs: NDArray[Any], labels: NDArray[Any]) -> list[str]:
    """The names of the columns whose value determines the class of every row, by a rule too short to be chance.

    Of a large table, evenly spaced rows are examined.

    Args:
        columns: see ``DatasetInfo.columns``.
        inputs: (rows, columns), NaN for missing values; categories as indices.
        labels: the class of each row, or a number to predict: a column that is a linear or monotone function of it is a
            leak.
    """
    count = min(len(inputs), _MAX_ROWS, _MAX_CELLS // len(columns))
    rows = np.linspace(0, len(inputs) - 1, count).astype(np.int64)
    examined = np.asarray(inputs[rows], np.float64)
    if labels.dtype.kind == "f":
        return [
            column["name"]
            for index, column in enumerate(columns)
            if "categories" not in column and _correlation(examined[:, index], np.asarray(labels[rows])) > _COPIED
        ]
    classes = np.asarray(labels[rows], np.int64)
    limit = math.log(_MAX_CHANCE / len(columns))
    return [
        column["name"]
        for index, column in enumerate(columns)
        if _log_chance(examined[:, index], classes, is_ordered="categories" not in column) < limit
    ]


def _correlation(values: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """The absolute correlation with the target, of the numbers or of their ranks, in the rows that have a value; 0 if
    less than half of them do.

    That of the ranks (Spearman 1904) finds the target under any rising or falling function, such as its logarithm; that
    of the numbers finds it with rounded decimals.
    """
    present = ~np.isnan(values)
    if 2 * present.sum() < len(values) or present.sum() < _MIN_PAIRS:
        return 0.0
    values, targets = values[present], np.asarray(targets[present], np.float64)
    return max(_pearson(values, targets), _pearson(ranks(values), ranks(targets)))


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The absolute correlation of two rows of numbers; 0 if those of one are equal."""
    (x, y), (spread_x, spread_y) = zip(*map(_centred, (x, y)), strict=True)
    return float(abs(np.dot(x, y)) / (spread_x * spread_y)) if spread_x > 0 and spread_y > 0 else 0.0


def _centred(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The deviations from the mean, in a unit in which no square overflows, and their length."""
    scaled = np.ldexp(values, -exponent_of(values) - 1)
    distances = scaled - moments(scaled)[0]
    distances = np.ldexp(distances, -exponent_of(distances))
    return distances, float(np.sqrt(np.dot(distances, distances)))


def _log_chance(values: NDArray[np.float64], labels: NDArray[np.int64], *, is_ordered: bool) -> float:
    """An upper bound on the log probability that labels in random order fit as short a rule; 0 without a rule.

    The rule names a class for each category, or for each interval of numbers.
    """
    present = ~np.isnan(values)
    if 2 * present.sum() < len(values):
        return 0.0
    order = np.lexsort((labels[present], values[present]))
    values, labels = values[present][order], labels[present][order]
    counts = np.bincount(labels)
    is_new_value, is_new_label = values[1:] != values[:-1], labels[1:] != labels[:-1]
    if (is_new_label & ~is_new_value).any():  # equal values with different classes
        return 0.0
    distinct, classes = int(is_new_value.sum()) + 1, int((counts > 0).sum())
    rules = distinct * math.log(classes)
    if is_ordered:
        intervals = int(is_new_label.sum()) + 1
        rules = intervals * math.log(classes) + _log_binomial(distinct - 1, intervals - 1)
    arrangements = math.lgamma(len(labels) + 1) - sum(math.lgamma(count + 1) for count in counts.tolist())
    return min(rules - arrangements, 0.0)


def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def leak_text(columns: Sequence[Mapping[str, Any]], inputs: NDArray[Any], labels: NDArray[Any]) -> str | None:
    """What the user should know about the columns that ``find_leaks`` finds; ``None`` if there are none."""
    names = find_leaks(columns, inputs, labels)
    if not names:
        return None
    shown = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    learned = "target" if labels.dtype.kind == "f" else "class"
    subject = f"each of the columns {shown}" if len(names) > 1 else f"column {shown}"
    return f"{subject} alone predicts the {learned}: check for a leak"
