"""The rules by which a cell of a table is read: the one home of them.

Imports, predictions, prediction files and exports read by these functions. The text of this module is part of the
programs that are exported, so it needs the standard library only, and names nothing of the service.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

MISSING = frozenset(
    {"", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "?", "-", "--", ".", "k.A.", "k. A."}
)
"""Texts that mean a missing value. Words that may also name a category, such as ``none``, are excluded."""
SPACES, APOSTROPHES = " \u00a0\u2009\u202f", "'\u2019"
GROUPS = {",": ",", ".": r"\.", " ": f"[{SPACES}]", "'": f"[{APOSTROPHES}]"}
"""The thousands separators, each with a pattern of the characters that are used for it."""
TIME = "time"
"""The format of times of day."""
TIME_PATTERN = re.compile(
    r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d(?:\.\d{1,9})?))?(?:\s?([aApP])\.?[mM]\.?)?", re.ASCII
)
FIRST_DAY, LAST_DAY = -719_162, 2_932_896
"""The years 1 and 9999, in days since 1970-01-01."""


def is_infinite(text: str) -> bool:
    """Whether a text means infinity, as NumPy and pandas write it: in a column of numbers, it is a missing value."""
    return text.strip().lstrip("+-").lower() in ("inf", "infinity")


def is_missing_number(text: str) -> bool:
    """Whether a stripped text is a missing value in a column of numbers: also infinity, and any spelling of NaN."""
    return text in MISSING or is_infinite(text) or text.lstrip("+-").lower() == "nan"


def number(text: str, *, decimal_comma: bool = False) -> float:
    """A plain number, such as 12.5 or 1e-3.

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


@lru_cache
def notation_pattern(decimal: str, group: str, percent: bool = False, currency: str = "") -> re.Pattern[str]:
    """Numbers with thousands separators, a percent sign or a currency sign: 5.537,45 and 91,6% and $1,234.50."""
    integer = rf"(?:[1-9]\d{{0,2}}(?:{GROUPS[group]}\d{{3}})+|\d+)"
    value = rf"(?:{integer}(?:{re.escape(decimal)}\d*)?|{re.escape(decimal)}\d+)(?:[eE][+-]?\d+)?"
    if currency:
        sign = f"[{re.escape(currency)}]"
        before = rf"(?P<sign>[+-]?){sign}[{SPACES}]?(?P<value>[+-]?{value})"
        return re.compile(rf"{before}|(?P<first>[+-]?{value})[{SPACES}]?{sign}", re.ASCII)
    return re.compile(rf"(?P<first>[+-]?{value})" + (f"[{SPACES}]?%" if percent else ""), re.ASCII)


def notation_number(text: str, decimal: str, group: str, percent: bool = False, currency: str = "") -> float:
    """A number in a notation.

    Raises:
        ValueError: it is not written in this notation, or not finite.
    """
    match = notation_pattern(decimal, group, percent, currency).fullmatch(text)
    value = math.inf
    if match is not None:
        digits = match["first"] or match["sign"] + match["value"]
        for sign in {" ": SPACES, "'": APOSTROPHES}.get(group, group):
            digits = digits.replace(sign, "")
        value = float(digits.replace(decimal, "."))
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number")
    return value


def to_days(moment: datetime) -> float:
    """Days since 1970-01-01, in UTC if the moment has a time zone."""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    seconds = 3600 * moment.hour + 60 * moment.minute + moment.second + moment.microsecond / 1e6
    return moment.toordinal() + FIRST_DAY - 1 + seconds / 86_400


def iso_date(text: str) -> float:
    """The days of a date in ISO 8601, with or without a time."""
    if len(text) < 8 or "-" not in text:  # 20240101 is a number
        raise ValueError(f"{text!r} is not a date")
    try:
        return to_days(datetime.fromisoformat(text))
    except OverflowError as error:  # for years close to 1 and 9999
        raise ValueError(f"{text!r} is out of range") from error


def time_of_day(text: str) -> float:
    """A time such as 14:30 or 2:30 pm, as a fraction of a day."""
    match = TIME_PATTERN.fullmatch(text)
    hour = int(match[1]) if match else -1
    if match is None or (match[4] and not 1 <= hour <= 12):
        raise ValueError(f"{text!r} is not a time of day")
    if match[4]:
        hour = hour % 12 + (12 if match[4] in "pP" else 0)
    return (3600 * hour + 60 * int(match[2]) + float(match[3] or 0)) / 86_400


def date_parser(form: str) -> Callable[[str], float]:
    """The function that reads dates in a format, to days since 1970-01-01; times of day are those of that date."""
    if form in ("iso", TIME):
        return iso_date if form == "iso" else time_of_day
    return lambda text: to_days(datetime.strptime(text, form))  # noqa: DTZ007 - days are all that is kept


def to_text(value: Any) -> str:
    """A value as it would appear in a file: None, NaN and NaT as the empty text."""
    if value is None or value != value or (str(value) in ("NaT", "<NA>") and not isinstance(value, str)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(value).strip()


def code_of(value: Any, codes: Mapping[str, int]) -> int | None:
    """The category that an integer or a boolean denotes: some programs read codes with leading zeros as numbers, and
    write ``True`` where others write ``true``."""
    if isinstance(value, bool):
        matches = [code for text, code in codes.items() if text.lower() == str(value).lower()]
    elif isinstance(value, int):
        matches = [code for text, code in codes.items() if text.isdecimal() and int(text) == value]
    else:
        return None
    return matches[0] if len(matches) == 1 else None


def read_cell(value: Any, column: Mapping[str, Any], codes: Mapping[str, int]) -> float | None:
    """The number that stands for a cell: NaN if it is missing, ``None`` for an unknown category.

    Args:
        column: an entry of the preprocessing.
        codes: the index of each of its categories.

    Raises:
        ValueError: the cell does not have the column's type.
    """
    text = to_text(value)
    if "categories" in column:
        if text in codes:  # a stored dataset may have a category that is now a missing value
            return codes[text]
        return math.nan if text in MISSING else code_of(value, codes)
    if text in MISSING:
        return math.nan
    if column["type"] == "number":
        return read_number(text, column, in_notation=isinstance(value, str))
    for form in dict.fromkeys([column["format"]] if column["format"] == TIME else [column["format"], "iso"]):
        try:
            return date_parser(form)(text)
        except ValueError:
            pass
    examples = {"iso": "2024-12-31", "%Y/%m/%d": "2024/12/31", "%d.%m.%Y": "31.12.2024"}
    examples |= {"%m/%d/%Y": "12/31/2024", "%d/%m/%Y": "31/12/2024"}
    shown = " or ".join(dict.fromkeys([examples.get(column["format"], "2024-12-31"), "2024-12-31"]))
    expected = "time of day such as 14:30" if column["format"] == TIME else f"date such as {shown}"
    raise ValueError(f"must be a {expected}, not {text[:40]!r}")


def read_number(text: str, column: Mapping[str, Any], *, in_notation: bool = True) -> float:
    """The number of a stripped text; NaN if it is missing.

    Args:
        in_notation: whether the text may have the notation of the column, and is not that of a Python number.
    """
    if is_missing_number(text):
        return math.nan
    if "group" in column and in_notation:
        decimal, group = column["decimal"], column["group"]
        try:
            return notation_number(text, decimal, group, column.get("percent", False), column.get("currency", ""))
        except ValueError:  # plain numbers are read in each column
            pass
    try:
        return number(text, decimal_comma=column.get("decimal") == ",")
    except ValueError:
        raise ValueError(f"must be a number, not {text[:40]!r}") from None
