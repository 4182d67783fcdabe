"""Records as text, where nothing displays HTML: in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tapeline.inputs.values import rounded

_MAX_ROWS: Final = 10
_MAX_WIDTH: Final = 100
_MAX_CELL_WIDTH: Final = 32


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first rows with aligned columns, as many as fit."""
    shown = rows[:_MAX_ROWS]
    lines = [""] * (len(shown) + 1)
    names = list(dict.fromkeys(name for row in shown for name in row))
    for index, name in enumerate(names):
        cells = [str(name), *(cell(row.get(name)) for row in shown)]
        cells = [text if len(text) <= _MAX_CELL_WIDTH else f"{text[: _MAX_CELL_WIDTH - 1]}…" for text in cells]
        width = max(map(len, cells))
        if index and len(lines[0]) + width + 2 > _MAX_WIDTH:
            lines[0] += f"  and {len(names) - index} more columns"
            break
        lines = [f"{line}{'  ' if index else ''}{text:<{width}}" for line, text in zip(lines, cells, strict=True)]
    more = [f"and {len(rows) - _MAX_ROWS:,} more"] if len(rows) > _MAX_ROWS else []
    return "\n".join([*(line.rstrip() for line in lines), *more])


def cell(value: Any) -> str:
    """A value: numbers are rounded."""
    if value is None:
        return "-"
    return rounded(value) if isinstance(value, float) else str(value)
