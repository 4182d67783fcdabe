"""The results as tables: text for the terminal, and the section between two comments in docs/performance.md."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
PROSE_COLUMNS = 110
BEGIN, END = "<!-- make bench: the table -->", "<!-- make bench: the end -->"

TARGETS = {  # name -> maximum ratio to the floor with one thread and with two, and to PyTorch
    "classifier step, batch 50": (1.3, 1.5, 0.55),
    "classifier step, batch 512": (1.15, 1.15, None),
    "GAN step, batch 100": (1.35, 1.5, 0.45),
}
BY_HAND = 1.05
"""Maximum ratio to the hand-written loop, for rows that have one and have targets."""
NEEDED = 1.5
"""Maximum ratio of the peak memory of a step to the memory that it requires."""

Row = dict[str, Any]


def ratios(row: Row) -> list[tuple[float | None, bool]]:
    """The engine's time relative to floor, hand-written loop and PyTorch, each with whether it misses its target."""
    one, two, torch = TARGETS.get(row["name"], (None, None, None))
    limits = {"floor_ms": one if row["threads"] == 1 else two, "handwritten_ms": one and BY_HAND, "torch_ms": torch}
    found = []
    for key, limit in limits.items():
        ratio = row["ms"] / row[key] if row.get(key) else None
        found.append((ratio, bool(ratio and limit and ratio > limit)))
    return found


def text(rows: list[Row]) -> str:
    """The rows for a terminal; a figure that misses its target is marked."""
    times = {"engine": "ms", "tape": "tape_ms", "floor": "floor_ms", "by hand": "handwritten_ms", "PyTorch": "torch_ms"}
    heading = f"\n{'milliseconds':32}{'threads':>8}" + "".join(f"{head:>9}" for head in times)
    lines = [heading + f"{'x floor':>10}{'x hand':>9}{'x PyTorch':>11}"]
    for row in rows:
        line = f"{row['name']:32}{row['threads']:8}" + "".join(f"{_number(row.get(key)):>9}" for key in times.values())
        for (ratio, misses), width in zip(ratios(row), (10, 9, 11), strict=True):
            line += f"{_number(ratio, 2) + ('!' if misses else ' '):>{width}}"
        lines.append(line.rstrip())
    return "\n".join(lines) + "\n! misses its target"


def memory_text(rows: list[Row]) -> str:
    """Memory for a terminal."""
    heading = f"\n{'megabytes':32}{'needed':>8}{'peak':>8}{'x needed':>10}{'a step allocates':>18}{'tape: peak':>12}"
    return "\n".join(
        [heading]
        + [
            f"{row['name']:32}{_needed(row) / 1e6:8.2f}{row['peak'] / 1e6:8.2f}{row['peak'] / _needed(row):10.2f}"
            f"{row['allocated'] / 1e6:18.3f}{row['tape_peak'] / 1e6:12.2f}"
            for row in rows
        ]
    )


def markdown(rows: list[Row], memory: list[Row], machine: dict[str, Any]) -> str:
    """The section as Markdown: where it was measured, the rows, PyTorch's share of products, the memory of a step."""
    versions = f"NumPy {machine['numpy']} with {machine['blas']}, PyTorch {machine['torch']}"
    where = f"Measured on {machine['cpu']}, {machine['cores']} cores, {versions}. A figure in **bold** misses its goal."
    scalars = next(row for row in rows if row.get("scalars_ms"))
    lesson = f"takes {scalars['scalars_ms']:.0f} ms: {scalars['scalars_ms'] / scalars['ms']:.0f} times as long."
    parts = [
        textwrap.fill(where, PROSE_COLUMNS, break_on_hyphens=False),
        _speed(rows),
        f"The last row's step on a graph of scalars, with one Python object per number, {lesson}",
        "Relative to PyTorch's time (a goal below the floor's share cannot be reached on this machine):",
        _shares(rows),
        _memory(memory),
    ]
    return "\n\n".join(parts)


def _speed(rows: list[Row]) -> str:
    beside = ["x floor", "x by hand", "x PyTorch"]
    found = [["", "one thread: ms", *beside, "two threads: ms", *beside]]
    for name in dict.fromkeys(row["name"] for row in rows):
        found.append([name])
        for row in sorted((row for row in rows if row["name"] == name), key=lambda row: int(row["threads"])):
            found[-1].append(f"{row['ms']:.2f}")
            found[-1] += [_marked(ratio, misses) for ratio, misses in ratios(row)]
    return _table(found)


def _shares(rows: list[Row]) -> str:
    """The share of PyTorch's step that matrix products take, which is a lower bound on this machine."""
    found = [["", "threads", "goal: x PyTorch", "engine", "floor", "the floor's products by PyTorch"]]
    for row in rows:
        goal = TARGETS.get(row["name"], (None, None, None))[2]
        if goal and row["torch_ms"]:
            times = [row.get(key) for key in ("ms", "floor_ms", "torch_floor_ms")]
            shares = [_number(time and time / row["torch_ms"], 2) for time in times]
            found.append([row["name"], str(row["threads"]), str(goal), *shares])
    return _table(found)


def _memory(rows: list[Row]) -> str:
    found = [["megabytes", "parameters, gradients, activations", "peak of a step", "x", "a later step allocates"]]
    for row in rows:
        needed, peak = _needed(row), row["peak"]
        sizes = [f"{size / 1e6:.2f}" for size in (needed, peak)]
        found.append(
            [row["name"], *sizes, _marked(peak / needed, peak > NEEDED * needed), f"{row['allocated'] / 1e6:.2f}"]
        )
    return _table(found)


def _table(rows: list[list[str]]) -> str:
    """Rows of cells as a Markdown table; the first row is the header."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _marked(ratio: float | None, misses: bool) -> str:
    return f"**{_number(ratio, 2)}**" if misses else _number(ratio, 2)


def kept() -> str:
    """The stored results in the form of the document."""
    read = [
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("speed", "memory", "machine")
    ]
    return markdown(*read)


def update_document() -> None:
    """Write the stored results into the document."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{kept()}\n\n{END}{after}", encoding="utf-8")


def _needed(row: Row) -> int:
    return int(row["parameters"] + row["gradients"] + row["activations"])


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
