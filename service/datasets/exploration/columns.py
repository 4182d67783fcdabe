"""Statistics of a table's columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.exploration.cells import cell

MAX_ROWS: Final = 200_000
"""Maximum number of rows for statistics; of longer tables, rows at even distances are used."""
BINS: Final = 20
MAX_CATEGORIES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStatistics:
    """Statistics of one column; ``None`` for those that do not apply to its type, or if it has no values.

    Attributes:
        missing: number of rows without a value, of the rows used.
        low, high: the smallest and the largest value.
        histogram: number of rows in each of equal intervals from ``low`` to ``high``.
        categories: the most frequent categories with their number of rows.
        distinct: number of categories that occur.
    """

    name: str
    type: str
    missing: int
    low: float | int | str | None = None
    high: float | int | str | None = None
    mean: float | str | None = None
    standard_deviation: float | None = None
    histogram: Sequence[int] | None = None
    categories: Sequence[tuple[str, int]] | None = None
    distinct: int | None = None


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """Statistics of all columns, and the number of rows used."""

    rows: int
    columns: Sequence[ColumnStatistics]


def statistics(parts: Sequence[NDArray[Any]], columns: Sequence[Mapping[str, Any]]) -> TableStatistics:
    """Statistics over all parts. Reads one column at a time."""
    step = max(1, -(-sum(map(len, parts)) // MAX_ROWS))
    sampled = [part[::step] for part in parts]
    described = [
        _describe_column(np.concatenate([part[:, index] for part in sampled]), column)
        for index, column in enumerate(columns)
    ]
    return TableStatistics(sum(map(len, sampled)), described)


def _describe_column(values: NDArray[np.float64], column: Mapping[str, Any]) -> ColumnStatistics:
    name, kind = str(column["name"]), str(column["type"])
    present = values[~np.isnan(values)]
    missing = len(values) - len(present)
    if not len(present):
        return ColumnStatistics(name=name, type=kind, missing=missing)
    if "categories" in column:
        texts = column["categories"]
        counts = np.bincount(present.astype(np.int64), minlength=len(texts))[: len(texts)]
        order = np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]
        frequent = [(str(texts[index]), int(counts[index])) for index in order if counts[index]]
        distinct = int(np.count_nonzero(counts))
        return ColumnStatistics(name=name, type=kind, missing=missing, categories=frequent, distinct=distinct)
    low, high = float(present.min()), float(present.max())
    with np.errstate(over="ignore", invalid="ignore"):  # for values near the largest float
        mean, deviation = float(present.mean()), float(present.std())
        spread = high - low
        bins = np.minimum((present - low) / spread * BINS, BINS - 1) if 0 < spread < np.inf else np.zeros(len(present))
    is_date = kind == "date"
    if is_date and np.array_equal(present, np.floor(present)):
        mean = float(np.round(mean))  # of days without a time of day
    return ColumnStatistics(
        name=name,
        type=kind,
        missing=missing,
        low=cell(low, column),
        high=cell(high, column),
        mean=None if not np.isfinite(mean) else str(cell(mean, column)) if is_date else mean,
        standard_deviation=None if is_date or not np.isfinite(deviation) else deviation,
        histogram=np.bincount(bins.astype(np.int64), minlength=BINS).tolist(),
    )
