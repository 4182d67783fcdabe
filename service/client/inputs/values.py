"""Values of Python, NumPy and pandas as JSON. Neither library is imported: objects are known by their attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

_MISSING: Final = frozenset({"NAType", "NaTType"})
"""Types of pandas for missing values, which equal nothing, or say that it is not known whether they do."""


def plain(value: Any) -> Any:
    """What ``json`` writes instead of an object that it does not know: arrays and scalars of NumPy become numbers, and
    dates texts in ISO 8601.

    Raises:
        TypeError: JSON has no such value.
    """
    if type(value).__name__ in _MISSING:
        return None
    if isinstance(value, date):  # also a datetime, and a timestamp of pandas
        return value.isoformat()
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        if value.dtype.kind != "M":
            return value.tolist()
        return _moment(value) if not value.shape else [plain(moment) for moment in value]
    raise TypeError(f"{type(value).__name__} {str(value)[:80]!r} is not a value of JSON")


def as_rows(rows: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """Rows with their cells as JSON; those that are not a number (NaN) or not a time (NaT) are missing."""
    return [{str(name): _cell(value) for name, value in row.items()} for row in rows]


def _cell(value: Any) -> Any:
    if value is not None and not isinstance(value, str | int | float):
        value = plain(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _moment(value: Any) -> str | None:
    """A ``datetime64``, of any unit."""
    text = str(value)
    return None if text == "NaT" else text
