"""Converts rows with values by column name, as sent for prediction, to the input array of a preprocessing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.errors import closest, column_hint, quoted
from service.datasets.tables.cells import TIME, read_cell
from service.datasets.tables.values import format_date
from service.wording import counted

MAX_FAULTS: Final = 100


@dataclass(slots=True)
class NamedRows:
    """The result of reading rows.

    Attributes:
        inputs: float64 (rows, columns), NaN for missing values; categories as indices of the preprocessing.
        unknown: unknown categories, which count as missing: (row, column, value).
        absent: missing columns, with the number of rows that lack them.
        faults: errors: (row, column or None, detail, suggestion).
    """

    inputs: NDArray[np.float64]
    unknown: list[tuple[int, str, str]] = field(default_factory=list)
    absent: dict[str, int] = field(default_factory=dict)
    faults: list[tuple[int, str | None, str, str | None]] = field(default_factory=list)


def read_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, Any]], *, ignored: Collection[str]
) -> NamedRows:
    """Convert rows of values by column name to an array.

    Args:
        columns: of the preprocessing.
        ignored: columns of the dataset that are not used for training.
    """
    result = NamedRows(np.full((len(rows), len(columns)), math.nan))
    index_of_column = {column["name"]: column_index for column_index, column in enumerate(columns)}
    codes = [{text: code for code, text in enumerate(column.get("categories", ()))} for column in columns]
    for index, row in enumerate(rows):
        if len(result.faults) >= MAX_FAULTS:
            break
        if not row.keys() & index_of_column.keys():
            result.faults.append((index, None, f"has none of the columns: {quoted(index_of_column)}", None))
        for name, value in row.items():
            if name not in index_of_column:
                if name not in ignored:
                    result.faults.append(
                        (
                            index,
                            name,
                            f"is not a column{column_hint(name, index_of_column)}",
                            closest(name, list(index_of_column)) or "",
                        )
                    )
                continue
            column_index = index_of_column[name]
            try:
                stored_value = read_cell(value, columns[column_index], codes[column_index])
            except ValueError as error:
                result.faults.append((index, name, str(error), None))
                continue
            if stored_value is None:
                result.unknown.append((index, name, str(value)[:100]))
            else:
                result.inputs[index, column_index] = stored_value
        for name in index_of_column:
            if name not in row:
                result.absent[name] = result.absent.get(name, 0) + 1
    return result


def missing_values(result: NamedRows, columns: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """The number of rows whose cell of a column is there, but empty."""
    counts = Counter(
        dict(zip((column["name"] for column in columns), np.isnan(result.inputs).sum(axis=0).tolist(), strict=True))
    )
    counts.subtract(Counter(column for _, column, _ in result.unknown))
    counts.subtract(result.absent)
    return +counts


def missing_notes(missing: Mapping[str, int]) -> Iterator[str]:
    """A sentence for each column with empty cells."""
    for name, count in missing.items():
        yield f"column {name!r} is empty in {counted(count, 'row')}, treated as a missing value"


def range_notes(
    inputs: NDArray[np.float64], columns: Sequence[Mapping[str, Any]], data_columns: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """A sentence for each column with values that the data of the model do not reach.

    Args:
        inputs: (rows, columns).
        data_columns: descriptions of the dataset, which have the range of each column.
    """
    described = {column["name"]: column for column in data_columns}
    for index, column in enumerate(columns):
        data_column = described.get(column["name"], {})
        if "min" not in data_column or "categories" in column:
            continue
        low, high, values = data_column["min"], data_column["max"], inputs[:, index]
        outside = values[(values < low) | (values > high)]
        if outside.size:
            distances = np.maximum(low / 2 - outside / 2, outside / 2 - high / 2)  # the whole may be above any float
            furthest = outside[np.argmax(distances)]
            value, low, high = (_limit_text(number, column) for number in (furthest, low, high))
            where = f" in {counted(int(outside.size), 'row')}, such as {value}" if len(inputs) > 1 else f": {value}"
            yield f"column {column['name']!r} is outside the range of the dataset ({low} to {high}){where}"


def _limit_text(value: float, column: Mapping[str, Any]) -> str:
    shown = display_value(float(value), column)
    return shown if isinstance(shown, str) else f"{float(value):.7g}"


def named_row(values: NDArray[np.float64], columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The inverse: a stored row as values by column name, ``None`` for missing ones; dates in ISO 8601."""
    return {column["name"]: display_value(float(value), column) for value, column in zip(values, columns, strict=True)}


def display_value(value: float, column: Mapping[str, Any]) -> float | int | str | None:
    """The stored number of a cell as users see it: a number, a category, or a date as text; ``None`` if missing."""
    if math.isnan(value):
        return None
    if "categories" in column:
        return str(column["categories"][int(value)])
    if column["type"] == "date":
        return format_date(value, TIME if column.get("format") == TIME else "iso")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
