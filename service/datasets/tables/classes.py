"""The classes of a table: their names and their order, from the distinct texts of its target column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.importer import MAX_LABEL, UploadRefused
from service.datasets.tables.detection import ColumnType
from service.datasets.tables.plan import MAX_NAME
from service.datasets.tables.values import is_number, number

MAX_TEXTS: Final = 100_000
"""Maximum number of distinct target values that are tracked, for error messages."""
_FEW: Final = 30
"""A numeric target with fractions and more distinct values than this is a regression target."""
_CODE: Final = re.compile(r"[+-]?0\d+", re.ASCII)
"""An integer with a leading zero: a code, such as a postal code, whose zeros distinguish it."""


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a table.

    Attributes:
        names: in the order of the labels.
        labels: the label of each text.
        notes: what a person should check.
    """

    names: list[str]
    labels: NDArray[np.uint8]
    notes: list[str]


def classes_of(texts: Sequence[str], wanted: ColumnType | None, *, column: str, rows: int) -> Classes:
    """The classes of a target column.

    Numbers are compared as exact decimals, so that 9007199254740993 is no other integer. Those with leading zeros
    are texts, unless the type is set.

    Args:
        texts: its distinct values.
        wanted: the type that the user set.
        rows: the number of rows with a value.

    Raises:
        UploadRefused: they are no classes.
    """
    are_numbers = wanted is not ColumnType.CATEGORY and all(map(is_number, texts))
    if wanted is ColumnType.NUMBER and not are_numbers:
        wrong = next(text for text in texts if not is_number(text))
        raise UploadRefused({"types": f"the target's value {wrong[:40]!r} is not a number"})
    notes: list[str] = []
    named = dict(zip(texts, texts, strict=True))
    if are_numbers:
        values = {text: _exact(text) for text in texts}
        distinct = set(values.values())
        has_fractions = not all(map(_is_whole, distinct))
        is_regression = (has_fractions and len(distinct) > _FEW) or len(distinct) > max(2, rows / 2)
        code = next(filter(_CODE.fullmatch, texts), None) if wanted is None else None
        if len(distinct) > MAX_LABEL + 1 or (is_regression and code is None):
            raise too_many_classes(column, len(distinct), are_numbers=code is None)
        shown = {value: _shown(value) for value in distinct}
        if code is not None:
            notes.append(
                f"column {column!r}: values such as {code} are classes as they are written, with leading zeros"
            )
        elif len(set(shown.values())) == len(shown):  # a float may show two decimals alike
            named = {text: shown[value] for text, value in values.items()}
            notes += _merged(column, named)
        names = sorted(set(named.values()), key=lambda name: (_exact(name), name))
    else:
        names = sorted(texts)
    if len(names) > MAX_LABEL + 1 or (len(names) > _FEW and len(names) > rows / 2):
        raise too_many_classes(column, len(names), are_numbers=False)
    if long := next((name for name in names if len(name) > MAX_NAME), None):
        detail = f"has the value {long[:20]!r}... of {len(long):,} characters; classes have at most {MAX_NAME}"
        raise UploadRefused({"target": detail})
    if len(names) < 2:
        detail = f"column {column!r} has the value {names[0]!r} in every row"
        raise UploadRefused({"target": f"{detail}; there is nothing to tell apart"})
    labels = {name: label for label, name in enumerate(names)}
    return Classes(names, np.array([labels[named[text]] for text in texts], np.uint8), notes)


def too_many_classes(column: str, count: int, *, are_numbers: bool) -> UploadRefused:
    """The error for a target with too many different values."""
    shown = f"more than {MAX_TEXTS:,}" if count > MAX_TEXTS else f"{count:,}"
    if are_numbers:
        detail = f"column {column!r} has {shown} different numbers: this is regression, which is not supported"
    else:
        detail = f"column {column!r} has {shown} different values; at most {MAX_LABEL + 1} classes are supported"
    return UploadRefused({"target": f"{detail}. Name the column that holds the class as target"})


def _exact(text: str) -> Decimal:
    if number(text) == 0:  # also of a number that is zero as a float only
        return Decimal(0)
    try:
        return Decimal(text)
    except ArithmeticError:  # an exponent beyond those of decimals: zero, as a float
        return Decimal(number(text))


def _is_whole(value: Decimal) -> bool:
    return value == value.to_integral_value()


def _shown(value: Decimal) -> str:
    if not value:
        return "0"
    return f"{value:.0f}" if _is_whole(value) else repr(float(value))


def _merged(column: str, named: dict[str, str]) -> list[str]:
    """A note if a class has several notations."""
    first: dict[str, str] = {}
    for text, name in named.items():
        if (other := first.setdefault(name, text)) != text:
            advice = "set the type category to keep them apart"
            return [f"column {column!r}: {other[:MAX_NAME]} and {text[:MAX_NAME]} are one class, {name}; {advice}"]
    return []
