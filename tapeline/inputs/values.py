"""Values of Python, NumPy and pandas as JSON. Neither library is imported: attributes identify their
objects."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Final

_MISSING: Final = frozenset({"NAType", "NaTType"})
"""Types of pandas for missing values, for which a comparison returns false or another missing value."""
MAX_SEEDS: Final = 100
"""Maximum number of seeds of a sweep."""
GROUPED_FROM: Final = 1e4
SCIENTIFIC_FROM: Final = 1e7
"""Numbers are shown with an exponent from here on."""


def plain(value: Any) -> Any:
    """Convert an object that ``json`` does not support: arrays and scalars of NumPy become numbers, and dates
    become texts in ISO 8601.

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
        return _format_datetime64(value) if not value.shape else [plain(moment) for moment in value]
    raise TypeError(f"{type(value).__name__} {str(value)[:80]!r} is not a value of JSON")


def as_rows(rows: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """Rows with their cells as JSON; those that are not a number (NaN) or not a time (NaT) are missing."""
    return [{str(name): _cell(value) for name, value in row.items()} for row in rows]


def _cell(value: Any) -> Any:
    """A cell as JSON; what JSON has not, such as ``Decimal`` or an interval of pandas, is the text that ``to_csv``
    writes."""
    if value is not None and not isinstance(value, str | int | float):
        try:
            value = plain(value)
        except TypeError:
            if not _has_text(value):  # a list or an object without a text
                raise
            value = str(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _has_text(value: object) -> bool:
    return any("__str__" in base.__dict__ for base in type(value).__mro__[:-1])


def _format_datetime64(value: Any) -> str | None:
    """The text of a ``datetime64`` of any unit; ``None`` if it is missing."""
    text = str(value)
    return None if text == "NaT" else text


def rounded(value: float) -> str:
    """To four digits, without rounding an integer part: ``0.1235``, ``13,608``, but ``1.2e-05`` and ``1.235e+07``.

    The page's ``dom.js`` rounds in the same way.
    """
    short = f"{value:.4g}"
    return f"{value:,.0f}" if GROUPED_FROM <= abs(float(short)) < SCIENTIFIC_FROM else short


def first_seeds(count: int) -> list[int]:
    """The seeds from 0 on.

    Raises:
        ValueError: there are none, or more than a sweep may have.
    """
    if not 1 <= count <= MAX_SEEDS:
        raise ValueError(f"a sweep has 1 to {MAX_SEEDS} seeds, not {count:,}")
    return list(range(count))


def dotted(pointer: str) -> str:
    """A setting as people read and write it: ``optimizer.learning_rate`` for ``/optimizer/learning_rate``."""
    return ".".join(step.replace("~1", "/").replace("~0", "~") for step in pointer.removeprefix("/").split("/"))


def nested_settings(settings: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Settings with dotted names as a document: ``optimizer.learning_rate`` as ``{"optimizer": {...}}``.

    Raises:
        ValueError: a setting and a part of it are both given.
    """
    document: dict[str, Any] = {}
    for name, value in settings:
        *path, leaf = name.split(".")
        node = document
        for step in path:
            node = node.setdefault(step, {})
            if not isinstance(node, dict):
                raise ValueError(f"{name}: {step} already has a value")
        node[leaf] = value
    return document


def flat_settings(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | bool | str]]:
    """All settings that are not null, with dotted names (``optimizer.learning_rate``, ``layers.0.units``).

    A list of plain values becomes JSON text.
    """
    for name, value in spec.items():
        match value:
            case dict():
                yield from flat_settings(value, f"{prefix}{name}.")
            case list() if value and isinstance(value[0], dict):
                yield from flat_settings(dict(zip(map(str, range(len(value))), value, strict=True)), f"{prefix}{name}.")
            case list():
                yield prefix + name, json.dumps(value)
            case bool() | int() | float() | str():
                yield prefix + name, value
