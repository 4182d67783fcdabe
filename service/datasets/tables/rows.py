"""Converts rows with values by column name, as sent for prediction, to the array that a preprocessing takes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.errors import closest
from service.datasets.tables.numerals import Numerals
from service.datasets.tables.values import DATES, MISSING, TIME, is_infinite, number, written

MAX_FAULTS: Final = 100
_EXAMPLE: Final = 20_088
"""31 December 2024: day and month cannot be confused."""


@dataclass(slots=True)
class NamedRows:
    """The result of reading rows.

    Attributes:
        inputs: float64 (rows, columns), NaN for missing values; categories as indices of the preprocessing.
        unknown: unknown categories, which count as missing: (row, column, value).
        absent: columns that are left out, with the number of rows without them.
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
    read = NamedRows(np.full((len(rows), len(columns)), math.nan))
    places = {column["name"]: place for place, column in enumerate(columns)}
    codes = [{text: place for place, text in enumerate(column.get("categories", ()))} for column in columns]
    for index, row in enumerate(rows):
        if len(read.faults) >= MAX_FAULTS:
            break
        if not row.keys() & places.keys():
            read.faults.append((index, None, f"has none of the columns: {_listed(places)}", None))
        for name, value in row.items():
            if name not in places:
                if name not in ignored:
                    read.faults.append((index, name, *_unknown_column(name, list(places))))
                continue
            place = places[name]
            try:
                found = _value(value, columns[place], codes[place])
            except ValueError as error:
                read.faults.append((index, name, str(error), None))
                continue
            if found is None:
                read.unknown.append((index, name, str(value)[:100]))
            else:
                read.inputs[index, place] = found
        for name in places:
            if name not in row:
                read.absent[name] = read.absent.get(name, 0) + 1
    return read


def named_row(values: NDArray[np.float64], columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The inverse: a stored row as values by column name, ``None`` for missing ones; dates in ISO 8601."""
    return {column["name"]: _shown(float(value), column) for value, column in zip(values, columns, strict=True)}


def _shown(value: float, column: Mapping[str, Any]) -> Any:
    if math.isnan(value):
        return None
    if "categories" in column:
        return column["categories"][int(value)]
    if column["type"] == "date":
        return written(value, TIME if column["format"] == TIME else "iso")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _code_of(value: Any, codes: Mapping[str, int]) -> int | None:
    """The category that an integer means: programs read codes with leading zeros as numbers."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    same = [code for text, code in codes.items() if text.isdecimal() and int(text) == value]
    return same[0] if len(same) == 1 else None


def _value(value: Any, column: Mapping[str, Any], codes: Mapping[str, int]) -> float | None:
    """The stored number of a value: NaN if missing, ``None`` for an unknown category.

    Raises:
        ValueError: it does not have the column's type.
    """
    text = _text(value)
    if "categories" in column and text in codes:  # a stored dataset may have a category that is now a missing value
        return codes[text]
    if text in MISSING or (column["type"] == "number" and is_infinite(text)):
        return math.nan
    if "categories" in column:
        return _code_of(value, codes)
    if column["type"] == "number":
        notation = Numerals.of(column)
        if notation is not None and isinstance(value, str):
            with suppress(ValueError):
                return notation.number(text)
        try:
            return number(text, decimal_comma=column.get("decimal") == ",")
        except ValueError:
            raise ValueError(f"must be a number, not {text[:40]!r}") from None
    form = column["format"]
    for parse in [DATES[form]] if form == TIME else [DATES[form], DATES["iso"]]:
        with suppress(ValueError):
            return parse(text)
    examples = " or ".join(dict.fromkeys([written(_EXAMPLE, form), written(_EXAMPLE, "iso")]))
    wanted = "time of day such as 14:30" if form == TIME else f"date such as {examples}"
    raise ValueError(f"must be a {wanted}, not {text[:40]!r}")


def _text(value: Any) -> str:
    """A value as it would appear in a file."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return f"{value:.0f}"
    return str(value).strip()


def _unknown_column(name: str, names: Sequence[str]) -> tuple[str, str | None]:
    found = closest(name, names)
    if found is None:
        return f"is not a column; the columns are {_listed(names)}", None
    return f"is not a column; did you mean {found!r}?", found


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(map(repr, list(names)[:20]))
    return f"{shown} and {len(names) - 20:,} more" if len(names) > 20 else shown
