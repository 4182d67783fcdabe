"""The classes of a table: their names and their order, from the distinct texts of its target column."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.importer import MAX_LABEL, UploadRefused
from service.datasets.tables.cells import number
from service.datasets.tables.detection import ColumnType
from service.datasets.tables.plan import MAX_NAME
from service.datasets.tables.values import is_number

MAX_TEXTS: Final = 10_000
"""Maximum number of distinct target values that are tracked, for error messages."""
_MAX_NUMBERS: Final = 20
"""A numeric target with more distinct values than this is a quantity."""
_MIN_ROWS: Final = 5
"""A numeric target of more than two values, with fewer rows for each in the median, is a quantity, too."""
_FEW_VALUES: Final = 30
"""Texts with more distinct values than this, and less than two rows for each on average, are no classes."""
_CODE: Final = re.compile(r"[+-]?0\d+", re.ASCII)
"""An integer with a leading zero: a code, such as a postal code, whose zeros distinguish it."""


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a table.

    Attributes:
        names: in the order of the labels.
        labels: the label of each text.
        notes: for the user, about what to check.
    """

    names: list[str]
    labels: NDArray[np.uint8]
    notes: list[str]


def classes_of(
    texts: Sequence[str],
    counts: Sequence[int],
    requested_type: ColumnType | None,
    *,
    column: str,
    are_stated: bool = False,
) -> Classes:
    """The classes of a target column.

    Numbers are compared as exact decimals, so that 9007199254740993 differs from every other integer. Numbers
    with leading zeros are texts, unless the type is set.

    Args:
        texts: its distinct values.
        counts: the number of rows with each.
        requested_type: the type that the user set.
        are_stated: whether the user said that numbers are classes.

    Raises:
        UploadRefused: the values cannot be classes.
    """
    are_numbers = requested_type is not ColumnType.CATEGORY and all(map(is_number, texts))
    if requested_type is ColumnType.NUMBER and not are_numbers:
        invalid = next(text for text in texts if not is_number(text))
        raise UploadRefused({"types": f"the target's value {invalid[:40]!r} is not a number"})
    notes: list[str] = []
    name_of_text = dict(zip(texts, texts, strict=True))
    if are_numbers:
        values = {text: _to_decimal(text) for text in texts}
        distinct: Counter[Decimal] = Counter()
        for text, count in zip(texts, counts, strict=True):
            distinct[values[text]] += count
        code = next(filter(_CODE.fullmatch, texts), None) if requested_type is None else None
        if code is None and not are_stated:
            _check_quantity(column, list(distinct.values()))
        if len(distinct) > MAX_LABEL + 1:
            raise too_many_classes(column, len(distinct))
        name_of_value = {value: _format_value(value) for value in distinct}
        if code is not None:
            notes.append(
                f"column {column!r}: values such as {code} are classes as they are written, with leading zeros"
            )
        elif len(set(name_of_value.values())) == len(name_of_value):  # two decimals may have the same float
            name_of_text = {text: name_of_value[value] for text, value in values.items()}
            notes += _describe_merged(column, name_of_text)
        names = sorted(set(name_of_text.values()), key=lambda name: (_to_decimal(name), name))
    else:
        names = sorted(texts)
    if len(names) > MAX_LABEL + 1 or (len(names) > _FEW_VALUES and len(names) > sum(counts) / 2):
        raise too_many_classes(column, len(names))
    if long_name := next((name for name in names if len(name) > MAX_NAME), None):
        detail = (
            f"has the value {long_name[:20]!r}... of {len(long_name):,} characters; classes have at most {MAX_NAME}"
        )
        raise UploadRefused({"target": detail})
    if len(names) < 2:
        detail = f"column {column!r} has the value {names[0]!r} in every row"
        raise UploadRefused({"target": f"{detail}; there is nothing to tell apart"})
    labels = {name: label for label, name in enumerate(names)}
    return Classes(names, np.array([labels[name_of_text[text]] for text in texts], np.uint8), notes)


def is_quantity(distinct: int) -> bool:
    """Whether a numeric target is a quantity to predict, such as a price, because it has many different values."""
    return distinct > _MAX_NUMBERS


def _check_quantity(column: str, counts: Sequence[int]) -> None:
    """Check that the numbers of a target are classes.

    Raises:
        UploadRefused: there are too few rows with each.
    """
    median = statistics.median(counts)
    if len(counts) <= 2 or (not is_quantity(len(counts)) and median >= _MIN_ROWS):
        return
    per_number = "1 row" if median == 1 else f"{median:g} rows"
    found = f"column {column!r} has {len(counts):,} different numbers, with {per_number} each in the median"
    advice = "To predict the number, set the task regression; if these numbers are classes, set its type to category"
    raise UploadRefused({"target": f"{found}: it looks like a quantity. {advice}"})


def too_many_classes(column: str, count: int) -> UploadRefused:
    """The error for a target with too many different values."""
    count_text = f"more than {MAX_TEXTS:,}" if count > MAX_TEXTS else f"{count:,}"
    detail = f"column {column!r} has {count_text} different values; at most {MAX_LABEL + 1} classes are supported"
    advice = "Name the column that holds the class as target; a number is predicted with the task regression"
    return UploadRefused({"target": f"{detail}. {advice}"})


def _to_decimal(text: str) -> Decimal:
    if number(text) == 0:  # also for a number that is zero only as a float
        return Decimal(0)
    try:
        return Decimal(text)
    except ArithmeticError:  # the exponent is beyond the range of decimals: zero, as a float
        return Decimal(number(text))


def _format_value(value: Decimal) -> str:
    if not value:
        return "0"
    return f"{value:.0f}" if value == value.to_integral_value() else repr(float(value))


def _describe_merged(column: str, name_of_text: dict[str, str]) -> list[str]:
    """A note if a class has several notations."""
    first_text: dict[str, str] = {}
    for text, name in name_of_text.items():
        if (earlier := first_text.setdefault(name, text)) != text:
            advice = "set the type category to keep them apart"
            return [f"column {column!r}: {earlier[:MAX_NAME]} and {text[:MAX_NAME]} are one class, {name}; {advice}"]
    return []
