"""Exploration of datasets: classes, examples, rows, and statistics of columns.

Counts and statistics are cached: they need a pass over the data.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from service.datasets.cache import Dataset, Examples
from service.datasets.info import DatasetInfo, PartName
from service.datasets.repository import DatasetRepository
from service.datasets.tables.analysis.moments import exponent_of, moments
from service.datasets.tables.rows import display_value, named_row
from service.states import DatasetKind, Task

_MAX_CACHED: Final = 64
_MAX_ROWS: Final = 200_000
"""Maximum number of rows for statistics; of longer tables, rows at even distances are used."""
_BINS: Final = 20
_MAX_CATEGORIES: Final = 10


@dataclass(frozen=True, slots=True)
class ShownExample:
    """One example of a part."""

    index: int
    label: float
    """The number of its class, or the number to predict."""
    input: Any
    """An image, or the values of a row by column name."""


@dataclass(frozen=True, slots=True)
class ExamplePage:
    """A page of examples, and the start of the next page."""

    examples: Sequence[ShownExample]
    next_index: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableColumnItem:
    """Statistics of a column; null if they do not apply to its type."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    name: str
    type: str
    missing: int
    """Rows without a value."""
    low: float | int | str | None
    high: float | int | str | None
    mean: float | str | None
    median: float | int | str | None
    """A value of the column: of an even number, the lower one of the middle."""
    standard_deviation: float | None
    histogram: list[int] | None
    """Rows in each of 20 equal intervals from `low` to `high`."""
    categories: list[list[str | int]] | None
    """The most frequent categories with their number of rows."""
    distinct: int | None
    """Number of categories that occur."""


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """Statistics of all columns, and the number of rows used."""

    rows: int
    columns: Sequence[TableColumnItem]


class DatasetExplorer:
    """Reads examples, counts and statistics of datasets.

    All methods raise DatasetError if the files cannot be read.
    """

    def __init__(self, repository: DatasetRepository) -> None:
        self._repository = repository
        self.class_counts = functools.lru_cache(_MAX_CACHED)(self._class_counts)
        """Number of examples of each class, for each part of a dataset."""
        self.column_statistics = functools.lru_cache(_MAX_CACHED)(self._column_statistics)
        """Column statistics of a table, over the training and validation rows; first, of a number to predict."""

    def page(
        self, info: DatasetInfo, part: PartName, label: int | None, *, start: int, limit: int, mixed: bool = False
    ) -> ExamplePage:
        """Images, or rows of a table with values for display, of one class or of all.

        Args:
            mixed: with the classes mixed, instead of the order of the data.
        """
        examples = _parts(self._repository.load(info)).get(part)
        if examples is None:
            return ExamplePage((), None)
        indices, following = _page_indices(examples.labels, label, start=start, limit=limit, mixed=mixed)
        shown = [examples.inputs[index] for index in indices]
        if info.kind is DatasetKind.TABLE:
            shown = [named_row(row, info.columns) for row in shown]
        labels = examples.labels[indices].tolist()
        return ExamplePage([ShownExample(*item) for item in zip(indices, labels, shown, strict=True)], following)

    def _class_counts(self, info: DatasetInfo) -> Mapping[PartName, Sequence[int]]:
        parts = _parts(self._repository.load(info))
        if info.task is Task.REGRESSION:
            return {name: [] for name in parts}
        return {name: np.bincount(part.labels, minlength=info.classes).tolist() for name, part in parts.items()}

    def _column_statistics(self, info: DatasetInfo) -> TableStatistics:
        dataset = self._repository.load(info)
        found = statistics([dataset.train.inputs, dataset.validation.inputs], info.columns)
        if info.task is Task.CLASSIFICATION:
            return found
        targets = [dataset.train.labels[:, None], dataset.validation.labels[:, None]]
        target = statistics(targets, [{"name": info.target, "type": "number"}])
        return replace(found, columns=[*target.columns, *found.columns])


def _parts(dataset: Dataset) -> dict[PartName, Examples]:
    parts = {PartName.TRAIN: dataset.train, PartName.VALIDATION: dataset.validation}
    return parts | ({PartName.TEST: dataset.test} if dataset.test is not None else {})


def _page_indices(
    labels: NDArray[Any], label: int | None, *, start: int, limit: int, mixed: bool
) -> tuple[list[int], int | None]:
    """The first indices from ``start`` on with this label, and the start of the next page.

    Args:
        label: ``None`` for any label.
        mixed: for any label, alternate between the classes; ``start`` is then a position in this order.
    """
    shown: list[int]
    if label is None and mixed and labels.dtype.kind in "ui":
        shown = _mixed_order(labels)[start : start + limit].tolist()
        return shown, start + limit if start + limit < len(labels) else None
    if label is None:
        indices = np.arange(start, min(start + limit + 1, len(labels)))
    else:
        indices = start + np.flatnonzero(labels[start:] == label)[: limit + 1]
    shown = indices[:limit].tolist()
    return shown, int(indices[limit]) if len(indices) > limit else None


def _mixed_order(labels: NDArray[Any]) -> NDArray[np.intp]:
    """All indices: the first example of each class, then the second ones, and so on."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    nth = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return by_class[np.argsort(nth, kind="stable")]


def statistics(parts: Sequence[NDArray[Any]], columns: Sequence[Mapping[str, Any]]) -> TableStatistics:
    """Statistics over all parts. Reads one column at a time."""
    step = max(1, -(-sum(map(len, parts)) // _MAX_ROWS))
    sampled = [part[::step] for part in parts]
    described = [
        _describe_column(np.concatenate([part[:, index] for part in sampled]), column)
        for index, column in enumerate(columns)
    ]
    return TableStatistics(sum(map(len, sampled)), described)


def _describe_column(values: NDArray[np.float64], column: Mapping[str, Any]) -> TableColumnItem:
    name, kind = str(column["name"]), str(column["type"])
    present = values[~np.isnan(values)]
    empty = TableColumnItem(
        name=name,
        type=kind,
        missing=len(values) - len(present),
        low=None,
        high=None,
        mean=None,
        median=None,
        standard_deviation=None,
        histogram=None,
        categories=None,
        distinct=None,
    )
    if not len(present):
        return empty
    if "categories" in column:
        texts = column["categories"]
        counts = np.bincount(present.astype(np.int64), minlength=len(texts))[: len(texts)]
        order = np.argsort(-counts, kind="stable")[:_MAX_CATEGORIES]
        frequent: list[list[str | int]] = [[str(texts[index]), int(counts[index])] for index in order if counts[index]]
        distinct = int(np.count_nonzero(counts))
        return replace(empty, categories=frequent, distinct=distinct)
    low, high = float(present.min()), float(present.max())
    mean, deviation = moments(present)
    scaled = np.ldexp(present, -exponent_of(present) - 1)  # the difference of two floats may be too large for one
    spread = scaled.max() - scaled.min()
    bins = np.minimum((scaled - scaled.min()) / spread * _BINS, _BINS - 1) if spread > 0 else np.zeros(len(present))
    is_date = kind == "date"
    if is_date and np.array_equal(present, np.floor(present)):
        mean = float(np.round(mean))  # of days without a time of day
    return replace(
        empty,
        low=display_value(low, column),
        high=display_value(high, column),
        mean=str(display_value(mean, column)) if is_date else mean,
        median=display_value(float(np.quantile(present, 0.5, method="lower")), column),
        standard_deviation=None if is_date else deviation,
        histogram=np.bincount(bins.astype(np.int64), minlength=_BINS).tolist(),
    )
