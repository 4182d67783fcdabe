"""What the cells of a table say: numbers, dates, or nothing. Used by the import and by predictions alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

MISSING: Final = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL", "?", "-"})
"""Texts that stand for a missing value."""
_EPOCH: Final = datetime(1970, 1, 1).toordinal()  # noqa: DTZ001 - only the date counts


def number(text: str, *, decimal_comma: bool = False) -> float:
    """The number that a text says.

    Raises:
        ValueError: it says none, or none that is finite.
    """
    try:
        found = float(text)
    except ValueError:
        if not decimal_comma or "." in text or text.count(",") != 1:
            raise
        found = float(text.replace(",", "."))
    if not math.isfinite(found) or "_" in text:  # 1_000 is a number of Python only
        raise ValueError(f"{text!r} is not a finite number")
    return found


def is_number(text: str) -> bool:
    """Whether a text says a number."""
    try:
        number(text)
    except ValueError:
        return False
    return True


def numbers(texts: Sequence[str], *, decimal_comma: bool = False) -> NDArray[np.float64]:
    """Numbers, NaN for missing values.

    Raises:
        ValueError: a text says neither.
    """
    try:
        found = np.array(list(map(float, texts)))
        if not np.isinf(found).any() and "_" not in "".join(texts):
            return found
    except ValueError:
        pass
    stripped = (text.strip() for text in texts)
    return np.array(
        [math.nan if text in MISSING else number(text, decimal_comma=decimal_comma) for text in stripped], np.float64
    )


def _days(moment: datetime) -> float:
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    seconds = 3600 * moment.hour + 60 * moment.minute + moment.second + moment.microsecond / 1e6
    return moment.toordinal() - _EPOCH + seconds / 86_400


def _iso(text: str) -> float:
    if len(text) < 8 or "-" not in text:  # 20240101 is a number
        raise ValueError(f"{text!r} is not a date")
    try:
        return _days(datetime.fromisoformat(text))
    except OverflowError as error:  # of years around 1 and 9999
        raise ValueError(f"{text!r} is out of range") from error


def _formatted(pattern: str) -> Callable[[str], float]:
    return lambda text: _days(datetime.strptime(text, pattern))  # noqa: DTZ007 - days are all that is kept


DATES: Final[Mapping[str, Callable[[str], float]]] = {
    "iso": _iso,
    "%Y/%m/%d": _formatted("%Y/%m/%d"),
    "%d.%m.%Y": _formatted("%d.%m.%Y"),
    "%m/%d/%Y": _formatted("%m/%d/%Y"),
    "%d/%m/%Y": _formatted("%d/%m/%Y"),
}
"""Formats of dates, by their names in a column's ``format``; days since 1970-01-01."""


def dates(texts: Sequence[str], form: str) -> NDArray[np.float64]:
    """Days since 1970-01-01, NaN for missing values.

    Raises:
        ValueError: a text is no date of this format.
    """
    parse = DATES[form]
    return np.array([math.nan if text in MISSING else parse(text) for text in map(str.strip, texts)], np.float64)


def written(days: float, form: str) -> str:
    """A date as a text of this format."""
    moment = datetime.fromordinal(_EPOCH) + timedelta(seconds=round(days * 86_400))
    if form != "iso":
        return moment.strftime(form)
    return moment.isoformat() if moment.time() != time() else moment.date().isoformat()
