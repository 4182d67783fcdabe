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

TARGETS = {  # name -> maximum ratio to the floor with one thread, with two
    "classifier step, batch 50": (1.3, 1.5),
    "classifier step, batch 512": (1.15, 1.15),
    "GAN step, batch 100": (1.35, 1.5),
}
PEERS = {"torch_ms": (0.9, 1.0), "jax_ms": (0.95, 1.0)}
"""Maximum ratio to each peer's time with one thread, with two."""
MAX_HANDWRITTEN_RATIO = 1.05
"""Maximum ratio to the hand-written loop, for rows that have one and have targets."""
MAX_MEMORY_RATIO = 1.5
"""Maximum ratio of the peak memory of a step to the memory that it requires."""

Row = dict[str, Any]


def ratios(row: Row) -> list[tuple[float | None, bool]]:
    """The ratios of the engine's time to those of the floor, the hand-written loop, PyTorch and JAX, each with whether
    it misses its target."""
    one_thread, two_threads = TARGETS.get(row["name"], (None, None))
    limits = {
        "floor_ms": one_thread if row["threads"] == 1 else two_threads,
        "handwritten_ms": one_thread and MAX_HANDWRITTEN_RATIO,
    }
    limits |= {key: limit[row["threads"] > 1] for key, limit in PEERS.items()}
    results = []
    for key, limit in limits.items():
        ratio = row["ms"] / row[key] if row.get(key) else None
        results.append((ratio, bool(ratio and limit and ratio > limit)))
    return results


def text(rows: list[Row]) -> str:
    """The rows for a terminal; a figure that misses its target is marked."""
    times = {"engine": "ms", "tape": "tape_ms", "floor": "floor_ms", "by hand": "handwritten_ms"}
    times |= {"PyTorch": "torch_ms", "JAX": "jax_ms"}
    heading = f"\n{'milliseconds':32}{'threads':>8}" + "".join(f"{head:>9}" for head in times)
    lines = [heading + f"{'x floor':>10}{'x hand':>9}{'x PyTorch':>11}{'x JAX':>9}"]
    for row in rows:
        line = f"{row['name']:32}{row['threads']:8}" + "".join(
            f"{_format_number(row.get(key)):>9}" for key in times.values()
        )
        for (ratio, misses), width in zip(ratios(row), (10, 9, 11, 9), strict=True):
            line += f"{_format_number(ratio, 2) + ('!' if misses else ' '):>{width}}"
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
    """The section as Markdown: the machine, the rows, the fraction of products, the memory of a step."""
    versions = f"NumPy {machine['numpy']} with {machine['blas']}, PyTorch {machine['torch']}, JAX {machine.get('jax')}"
    environment = (
        f"Measured on {machine['cpu']}, {machine['cores']} cores, {versions}. A figure in **bold** misses its goal."
    )
    scalars = next(row for row in rows if row.get("scalars_ms"))
    comparison = f"takes {scalars['scalars_ms']:.0f} ms: {scalars['scalars_ms'] / scalars['ms']:.0f} times as long."
    paragraphs = [
        textwrap.fill(environment, PROSE_COLUMNS, break_on_hyphens=False),
        _format_speed(rows),
        f"The last row's step on a graph of scalars, with one Python object per number, {comparison}",
        "Relative to JAX's time (no step here can fall below its floor, the products by NumPy):",
        _format_shares(rows),
        _format_memory(memory),
    ]
    return "\n\n".join(paragraphs)


def _format_speed(rows: list[Row]) -> str:
    ratio_headings = ["x floor", "x by hand", "x PyTorch", "x JAX"]
    threads = sorted({int(row["threads"]) for row in rows})
    words = {1: "one thread", 2: "two threads"}
    table = [["", *(head for count in threads for head in (f"{words.get(count, count)}: ms", *ratio_headings))]]
    for name in dict.fromkeys(row["name"] for row in rows):
        table.append([name])
        for row in sorted((row for row in rows if row["name"] == name), key=lambda row: int(row["threads"])):
            table[-1].append(f"{row['ms']:.2f}")
            table[-1] += [_format_ratio(ratio, misses) for ratio, misses in ratios(row)]
    return _format_table(table)


def _format_shares(rows: list[Row]) -> str:
    """The fraction of JAX's step that the matrix products take, which are a lower bound on this machine."""
    table = [["", "threads", "goal: x JAX", "engine", "by hand", "floor", "PyTorch", "the floor's products by PyTorch"]]
    for row in rows:
        if row.get("jax_ms") and row["floor_ms"]:
            times = [row.get(key) for key in ("ms", "handwritten_ms", "floor_ms", "torch_ms", "torch_floor_ms")]
            shares = [_format_number(time and time / row["jax_ms"], 2) for time in times]
            goal = PEERS["jax_ms"][row["threads"] > 1]
            table.append([row["name"], str(row["threads"]), str(goal), *shares])
    return _format_table(table)


def _format_memory(rows: list[Row]) -> str:
    table = [["megabytes", "parameters, gradients, activations", "peak of a step", "x", "a later step allocates"]]
    for row in rows:
        needed, peak = _needed(row), row["peak"]
        sizes = [f"{size / 1e6:.2f}" for size in (needed, peak)]
        table.append(
            [
                row["name"],
                *sizes,
                _format_ratio(peak / needed, peak > MAX_MEMORY_RATIO * needed),
                f"{row['allocated'] / 1e6:.2f}",
            ]
        )
    return _format_table(table)


def _format_table(rows: list[list[str]]) -> str:
    """Rows of cells as a Markdown table; the first row is the header."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _format_ratio(ratio: float | None, misses: bool) -> str:
    return f"**{_format_number(ratio, 2)}**" if misses else _format_number(ratio, 2)


def stored_table() -> str:
    """The stored results in the form of the document."""
    documents = [
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in ("speed", "memory", "machine")
    ]
    return markdown(*documents)


def update_document() -> None:
    """Write the stored results into the document."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{stored_table()}\n\n{END}{after}", encoding="utf-8")


def _needed(row: Row) -> int:
    return int(row["parameters"] + row["gradients"] + row["activations"])


def _format_number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
