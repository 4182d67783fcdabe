"""Parses the cells of a table: numbers, dates and missing values. Used by imports and predictions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

MISSING: Final = frozenset(
    {"", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "?", "-", "--", ".", "k.A.", "k. A."}
)
"""Texts that mean a missing value. Words that may also name a category, such as ``none``, are excluded."""
_EPOCH: Final = datetime(1970, 1, 1).toordinal()  # noqa: DTZ001 - only the date counts

TIME: Final = "time"
"""The format of times of day."""
_TIME: Final = re.compile(
    r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d(?:\.\d{1,9})?))?(?:\s?([aApP])\.?[mM]\.?)?", re.ASCII
)


def is_infinite(text: str) -> bool:
    """Whether a text means infinity, as NumPy and pandas write it: in a column of numbers, it is a missing value."""
    return text.strip().lstrip("+-").lower() in ("inf", "infinity")


def number(text: str, *, decimal_comma: bool = False) -> float:
    """Parse a number.

    Raises:
        ValueError: not a number, or not finite.
    """
    try:
        value = float(text)
    except ValueError:
        if not decimal_comma or "." in text or text.count(",") != 1:
            raise
        value = float(text.replace(",", "."))
    if not math.isfinite(value) or "_" in text:  # 1_000 is a number only in Python
        raise ValueError(f"{text!r} is not a finite number")
    return value


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    try:
        number(text)
    except ValueError:
        return False
    return True


def numbers(texts: Sequence[str], *, decimal_comma: bool = False) -> NDArray[np.float64]:
    """Parse numbers; missing values and infinite ones become NaN.

    Raises:
        ValueError: a text is neither a number nor a missing value.
    """
    try:
        values = np.array(list(map(float, texts)))
        if not np.isinf(values).any() and "_" not in "".join(texts):
            return values
    except ValueError:
        pass
    return parse_all(texts, lambda text: number(text, decimal_comma=decimal_comma))


def parse_all(texts: Sequence[str], parse: Callable[[str], float]) -> NDArray[np.float64]:
    """Parse numbers in a notation; missing values and infinite ones become NaN."""
    stripped = map(str.strip, texts)
    return np.array([math.nan if text in MISSING or is_infinite(text) else parse(text) for text in stripped], float)


def _to_days(moment: datetime) -> float:
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    seconds = 3600 * moment.hour + 60 * moment.minute + moment.second + moment.microsecond / 1e6
    return moment.toordinal() - _EPOCH + seconds / 86_400


def _parse_iso(text: str) -> float:
    if len(text) < 8 or "-" not in text:  # 20240101 is a number
        raise ValueError(f"{text!r} is not a date")
    try:
        return _to_days(datetime.fromisoformat(text))
    except OverflowError as error:  # for years close to 1 and 9999
        raise ValueError(f"{text!r} is out of range") from error


def _parse_time(text: str) -> float:
    match = _TIME.fullmatch(text)
    hour = int(match[1]) if match else -1
    if match is None or (match[4] and not 1 <= hour <= 12):
        raise ValueError(f"{text!r} is not a time of day")
    if match[4]:
        hour = hour % 12 + (12 if match[4] in "pP" else 0)
    return (3600 * hour + 60 * int(match[2]) + float(match[3] or 0)) / 86_400


def _strptime_parser(pattern: str) -> Callable[[str], float]:
    return lambda text: _to_days(datetime.strptime(text, pattern))  # noqa: DTZ007 - days are all that is kept


DATES: Final[Mapping[str, Callable[[str], float]]] = {
    "iso": _parse_iso,
    "%Y/%m/%d": _strptime_parser("%Y/%m/%d"),
    "%d.%m.%Y": _strptime_parser("%d.%m.%Y"),
    "%m/%d/%Y": _strptime_parser("%m/%d/%Y"),
    "%d/%m/%Y": _strptime_parser("%d/%m/%Y"),
    TIME: _parse_time,
}
"""Parsers of date formats, by the name in a column's ``format``; they return days since 1970-01-01. A time of
day is parsed as a time on that date."""


def dates(texts: Sequence[str], form: str) -> NDArray[np.float64]:
    """Parse dates to days since 1970-01-01; missing values become NaN.

    Raises:
        ValueError: a text is not a date in this format.
    """
    parse = DATES[form]
    return np.array([math.nan if text in MISSING else parse(text) for text in map(str.strip, texts)], np.float64)


def format_date(days: float, form: str) -> str:
    """Format a date, or a time of day."""
    seconds = round(days * 86_400)
    moment = datetime.fromordinal(_EPOCH) + timedelta(seconds=min(seconds, 86_399) if form == TIME else seconds)
    if form == TIME:
        return f"{moment:%H:%M:%S}" if moment.second else f"{moment:%H:%M}"
    if form != "iso":
        return moment.strftime(form)
    return moment.isoformat(" ") if moment.time() != time() else moment.date().isoformat()
