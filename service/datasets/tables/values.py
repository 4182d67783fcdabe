"""Parses columns of texts by the rules of ``cells``, and formats dates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.datasets.tables.cells import MISSING, TIME, date_parser, is_missing_number, number


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
        if np.isfinite(values).all() and "_" not in "".join(texts):
            return values
    except ValueError:
        pass
    return parse_all(texts, lambda text: number(text, decimal_comma=decimal_comma))


def parse_all(texts: Sequence[str], parse: Callable[[str], float]) -> NDArray[np.float64]:
    """Parse numbers in a notation; missing values and infinite ones become NaN."""
    stripped = map(str.strip, texts)
    return np.array([math.nan if is_missing_number(text) else parse(text) for text in stripped], float)


DATES: Final[Mapping[str, Callable[[str], float]]] = {
    form: date_parser(form) for form in ("iso", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", TIME)
}
"""Parsers of date formats, by the name in a column's ``format``; they return days since 1970-01-01. A time of
day is parsed as a time on that date."""
_EPOCH: Final = datetime(1970, 1, 1).toordinal()  # noqa: DTZ001 - only the date counts


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
