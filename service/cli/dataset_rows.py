"""A dataset on one screen: properties, classes and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from service.cli.text import visible
from service.wording import counted, rounded

_BAR_WIDTH: Final = 30
_NAME_WIDTH: Final = 24
_MAX_SHOWN_CLASSES: Final = 40
_PARTS: Final = {"train": "training", "validation": "validation", "test": "test"}


def dataset_rows(item: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Titles and values.

    Args:
        columns: statistics of a table's columns.
    """
    noun = "rows" if item["kind"] == "table" else "images"
    counts = {part: item[f"{part}_count"] for part in _PARTS if item[f"{part}_count"]}
    rows = [
        ("Dataset", item["version"] or item["name"]),
        ("Title", item["title"]),
        ("Kind", _kind(item)),
        ("Content", ", ".join(f"{count:,} {_PARTS[part]} {noun}" for part, count in counts.items()) or "unknown"),
        ("State", f"{item['state']}: {item['state_reason']}" if item["state_reason"] else item["state"]),
        ("Origin", item["source"]),
        ("Licence", item["licence"]),
        ("SHA-256", item["sha256"] or "not known yet"),
    ]
    rows += [("Versions", version) for version in item["versions"][1:]]
    rows += [("Classes", line) for line in _class_lines(item)]
    rows += [("Columns", _column_line(column)) for column in columns]
    return rows


def _kind(item: Mapping[str, Any]) -> str:
    if item["kind"] == "table":
        return f"table of {counted(len(item['columns']), 'column')}"
    shape = item["image_shape"]
    if not shape:
        return "unknown"
    return f"images of {shape[0]} x {shape[1]} pixels" + (", in colour" if len(shape) == 3 else "")


def _class_lines(item: Mapping[str, Any]) -> list[str]:
    """A line with a bar for each class; of many classes, only the first."""
    counts = item["class_counts"]
    if not counts:
        return []
    names = [_on_one_line(name) for name in item["class_names"]]
    totals = [sum(class_counts) for class_counts in zip(*counts.values(), strict=True)]
    width = min(max(map(cell_len, names)), _NAME_WIDTH)
    max_total = max(totals) or 1
    lines = [
        f"{set_cell_size(name, width)} {'█' * round(_BAR_WIDTH * total / max_total):<{_BAR_WIDTH}} {total:,}"
        for name, total in zip(names[:_MAX_SHOWN_CLASSES], totals, strict=False)
    ]
    return [*lines, *([f"and {len(names) - _MAX_SHOWN_CLASSES} more"] if len(names) > _MAX_SHOWN_CLASSES else [])]


def _column_line(column: Mapping[str, Any]) -> str:
    missing = f", {column['missing']:,} missing" if column["missing"] else ""
    name = f"{_on_one_line(column['name'])} ({column['type']}{missing})"
    if column["categories"] is not None:
        shown = ", ".join(f"{_on_one_line(text)} {count:,}" for text, count in column["categories"])
        omitted = column["distinct"] - len(column["categories"])
        return f"{name}: {shown}" + (f", and {omitted:,} more" if omitted > 0 else "")
    if column["low"] is None:
        return f"{name}: no values"
    return f"{name}: {_number(column['low'])} to {_number(column['high'])}, mean {_number(column['mean'])}"


def _on_one_line(text: str) -> str:
    return visible(text).replace("\n", "\N{RETURN SYMBOL}")


def _number(value: Any) -> str:
    return rounded(value) if isinstance(value, float) else str(value)
