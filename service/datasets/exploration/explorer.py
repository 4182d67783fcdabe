"""Exploration of datasets for the web process. Counts and statistics are cached: they need a pass over the data."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.datasets.cache import Dataset, Examples
from service.datasets.exploration import selection
from service.datasets.exploration.cells import cell
from service.datasets.exploration.columns import TableStatistics, statistics
from service.datasets.info import DatasetInfo, PartName
from service.datasets.repository import DatasetRepository

_MAX_CACHED: Final = 64


@dataclass(frozen=True, slots=True)
class ShownExample:
    """One example of a part."""

    index: int
    label: int
    input: Any
    """An image, or the values of a row by column name."""


@dataclass(frozen=True, slots=True)
class ExamplePage:
    """A page of examples, and the start of the next page."""

    examples: Sequence[ShownExample]
    next_index: int | None


class DatasetExplorer:
    """Reads examples, counts and statistics of datasets."""

    def __init__(self, repository: DatasetRepository) -> None:
        self._repository = repository
        self._counts = functools.lru_cache(_MAX_CACHED)(self._count)
        self._statistics = functools.lru_cache(_MAX_CACHED)(self._measure)

    def class_counts(self, info: DatasetInfo) -> Mapping[PartName, Sequence[int]]:
        """Number of examples of each class, for each part of the dataset.

        Raises:
            DatasetError: its files cannot be read.
        """
        return self._counts(info)

    def column_statistics(self, info: DatasetInfo) -> TableStatistics:
        """Column statistics of a table, over the training and validation rows.

        Raises:
            DatasetError: its files cannot be read.
        """
        return self._statistics(info)

    def images(
        self, info: DatasetInfo, part: PartName, label: int | None, *, start: int, limit: int, mixed: bool = False
    ) -> ExamplePage:
        """Images of one class, or of all, in the order of the data or with the classes mixed.

        Raises:
            DatasetError: its files cannot be read.
        """
        return self._page(info, part, label, start, limit, lambda image: image, mixed=mixed)

    def rows(self, info: DatasetInfo, part: PartName, label: int | None, *, start: int, limit: int) -> ExamplePage:
        """Rows of a table, with values for display.

        Raises:
            DatasetError: its files cannot be read.
        """

        def values(row: Any) -> dict[str, float | int | str | None]:
            return {
                str(column["name"]): cell(float(value), column) for column, value in zip(info.columns, row, strict=True)
            }

        return self._page(info, part, label, start, limit, values)

    def _page(
        self,
        info: DatasetInfo,
        part: PartName,
        label: int | None,
        start: int,
        limit: int,
        show: Any,
        *,
        mixed: bool = False,
    ) -> ExamplePage:
        examples = _parts(self._repository.load(info)).get(part)
        if examples is None:
            return ExamplePage((), None)
        indices, following = selection.page_indices(examples.labels, label, start=start, limit=limit, mixed=mixed)
        return ExamplePage(
            [ShownExample(index, int(examples.labels[index]), show(examples.inputs[index])) for index in indices],
            following,
        )

    def _count(self, info: DatasetInfo) -> Mapping[PartName, Sequence[int]]:
        parts = _parts(self._repository.load(info))
        return {name: selection.class_counts(part.labels, info.classes) for name, part in parts.items()}

    def _measure(self, info: DatasetInfo) -> TableStatistics:
        dataset = self._repository.load(info)
        return statistics([dataset.train.inputs, dataset.validation.inputs], info.columns)


def _parts(dataset: Dataset) -> dict[PartName, Examples]:
    parts = {PartName.TRAIN: dataset.train, PartName.VALIDATION: dataset.validation}
    return parts | ({PartName.TEST: dataset.test} if dataset.test is not None else {})
