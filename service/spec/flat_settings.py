"""The settings of a spec as a flat list, for experiment trackers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


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
