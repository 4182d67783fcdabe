"""The CSV file of a prediction: the examples of a dataset with what a model predicts for them.

For a table, it has the columns of the dataset, the target, and the columns that ``POST /jobs/{id}/predict`` adds to a
file, in the same format. Rows of this file, sent there again, get the same predictions. For images, it has ``index``
and ``part``, which name the image on the page of the dataset, ``class``, and the same added columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.cache import Dataset, Examples
from service.datasets.info import DatasetInfo, PartName
from service.datasets.tables.prediction_files import added_cells, added_names
from service.datasets.tables.rows import display_value
from service.models.kinds import Predictions
from service.spec.schema import PredictedPart
from service.states import DatasetKind, Task

Parts = Sequence[tuple[PartName, Examples]]
Piece = tuple[PartName, int, Examples]
"""Consecutive examples of a part, and the index of the first."""

_IMAGE_COLUMNS: Final = ("index", "part", "class")
_GROUPED: Final = re.compile(r"-?[1-9]\d{0,2}\.\d{3}")


def parts_of(dataset: Dataset, part: PredictedPart) -> Parts:
    """The parts to predict, in the order of the file."""
    parts = [(PartName.TRAIN, dataset.train), (PartName.VALIDATION, dataset.validation)]
    if dataset.test is not None:
        parts.append((PartName.TEST, dataset.test))
    return [item for item in parts if part in (PredictedPart.ALL, item[0].value)]


def slices_of(parts: Parts, start: int, end: int) -> Iterator[Piece]:
    """The examples of the rows ``start`` to ``end`` of the file."""
    first = 0
    for name, part in parts:
        low, high = max(start - first, 0), min(end - first, len(part))
        if low < high:
            yield name, low, Examples(part.inputs[low:high], part.labels[low:high])
        first += len(part)


class PredictionCsv:
    """Writes the file in pieces.

    Args:
        info: the dataset.
        class_names: of the model; empty for a regressor.
    """

    def __init__(self, info: DatasetInfo, class_names: Sequence[str]) -> None:
        self._info, self._class_names = info, class_names
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._content = io.BytesIO()
        if info.kind is DatasetKind.TABLE:
            names = [*(str(column["name"]) for column in info.columns), *([info.target] if info.target else [])]
        else:
            names = list(_IMAGE_COLUMNS)
        self._writer.writerow([*names, *added_names(names, class_names)])

    def write(self, pieces: Sequence[Piece], predictions: Predictions) -> None:
        """Append the next examples, and their predictions."""
        results = predictions.probabilities if predictions.values is None else predictions.values
        added = added_cells(predictions.classes.astype(np.int64), results.astype(np.float64), self._class_names)
        rows = chain.from_iterable(self._cells(*piece) for piece in pieces)
        for cells, new in zip(rows, added, strict=True):
            self._writer.writerow([*cells, *new])
        self._flush()

    def content(self) -> bytes:
        """The whole file."""
        self._flush()
        return self._content.getvalue()

    def _flush(self) -> None:
        self._content.write(self._text.getvalue().encode())
        self._text.seek(0)
        self._text.truncate()

    def _cells(self, name: PartName, start: int, examples: Examples) -> Iterator[list[Any]]:
        labels = examples.labels.tolist()
        if self._info.kind is not DatasetKind.TABLE:
            for index, label in enumerate(labels, start):
                yield [index, name.value, self._info.class_names[label]]
            return
        columns = self._info.columns
        for row, label in zip(examples.inputs.tolist(), labels, strict=True):
            target = [self._target(label)] if self._info.target else []
            yield [*(cell_of(value, column) for value, column in zip(row, columns, strict=True)), *target]

    def _target(self, label: Any) -> Any:
        """The text of a class, or the number to predict."""
        if self._info.task is Task.REGRESSION:
            return display_value(float(label), {"name": self._info.target, "type": "number"})
        return self._info.class_names[label]


def in_order_of(
    columns: Sequence[Mapping[str, Any]], data: Sequence[Mapping[str, Any]]
) -> tuple[list[int], list[Mapping[str, Any]]]:
    """Where the columns of a model are in a table, and how the table describes them."""
    indices = {str(column["name"]): index for index, column in enumerate(data)}
    found = [indices[str(column["name"])] for column in columns]
    return found, [data[index] for index in found]


def cell_of(value: float, column: Mapping[str, Any]) -> Any:
    """A cell of the file, which means the same number if the file is read again for the model."""
    shown = display_value(value, column)
    if column.get("group") == "." and isinstance(shown, float):
        text = repr(shown)  # 1.234 would be 1234 in this notation, which groups three digits
        return text + "0" if _GROUPED.fullmatch(text) else shown
    return "" if shown is None else shown


def inputs_of(pieces: Sequence[Piece], indices: Sequence[int] | None) -> NDArray[Any]:
    """The inputs of consecutive pieces; of a table, the columns with these indices."""
    arrays = [examples.inputs if indices is None else examples.inputs[:, indices] for _, _, examples in pieces]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
