"""The settings of a spec as a flat list, as experiment trackers have them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def flat_settings(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | bool | str]]:
    """All settings by their dotted names (``optimizer.learning_rate``, ``layers.0.units``), but those that are null.

    A list of plain values is JSON.
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
