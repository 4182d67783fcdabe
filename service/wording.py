"""Numbers, counts, times, lists and settings as text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tapeline.inputs.values import GROUPED_FROM as GROUPED_FROM
from tapeline.inputs.values import SCIENTIFIC_FROM as SCIENTIFIC_FROM
from tapeline.inputs.values import rounded as rounded


def counted(number: int, noun: str) -> str:
    """``1 job``, ``2,000 jobs``, ``2 entries``."""
    plural = f"{noun.removesuffix('y')}ies" if noun.endswith("try") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def ordinal(number: int) -> str:
    """``1st``, ``12th``, ``1,023rd``."""
    suffix = "th" if 10 < number % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{suffix}"


def at_time(milliseconds: int) -> str:
    """A stored time as RFC 3339 in UTC, with milliseconds."""
    seconds, remainder_ms = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{remainder_ms:03d}Z"


def listed(items: Iterable[str], word: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``; empty parts are left out."""
    *others, last = [item for item in items if item] or [""]
    return f"{', '.join(others)} {word} {last}" if others else last


def value_text(value: Any) -> str:
    """The value of a setting as text: layers as ``dense 128 relu, dropout 0.2, dense 10``."""
    match value:
        case None:
            return "-"
        case str():
            return value
        case list() if all(isinstance(item, dict) for item in value) and value:
            return _joined(_layer_text(item) for item in value)
        case list() if value:
            return _joined(value_text(item) for item in value)
        case dict() if "type" in value:
            return _layer_text(value)
        case dict():
            inner = {name: item for name, item in value.items() if item is not None and name != "name"}
            fields = ", ".join(f"{name} {value_text(item)}" for name, item in inner.items())
            return f"{value['name']} ({fields})" if "name" in value and fields else str(value.get("name", fields))
        case _:
            return json.dumps(value, ensure_ascii=False)


def _joined(texts: Iterable[str]) -> str:
    """A list in which a run of equal items is one: ``13 x number``."""
    runs = [(text, len(list(run))) for text, run in itertools.groupby(texts)]
    return ", ".join(text if count == 1 else f"{count} x {text}" for text, count in runs)


def _layer_text(layer: Mapping[str, Any]) -> str:
    kind = layer.get("type", "dense")
    size = layer.get("units", layer.get("filters", layer.get("rate", layer.get("size"))))
    activation = layer.get("activation")
    return " ".join(str(item) for item in (kind, size, activation) if item not in (None, "linear"))
