"""Converts the stored numbers of a table back to the values that users see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from service.datasets.tables.values import TIME, format_date

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def cell(value: float, column: Mapping[str, Any]) -> float | int | str | None:
    """The value of a cell: a number, a category, or a date as text; ``None`` if missing."""
    if math.isnan(value):
        return None
    if "categories" in column:
        categories = column["categories"]
        return str(categories[int(value)]) if 0 <= value < len(categories) else None
    if column["type"] == "date":
        return format_date(value, TIME) if column.get("format") == TIME else date(value)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def date(days: float) -> str:
    """Days since 1970-01-01 as an ISO date, with the time of day if it is not midnight."""
    moment = _EPOCH + timedelta(days=days)
    moment = (moment + timedelta(microseconds=500)).replace(microsecond=0)
    return f"{moment:%Y-%m-%d}" if moment.hour == moment.minute == moment.second == 0 else f"{moment:%Y-%m-%d %H:%M:%S}"
