"""The results as text: a line per row for the terminal, a short table of all presets, and a table of all rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.presets.independent import METRIC
from benchmarks.presets.rows import PLAN

GOALS = {  # (preset, dataset) -> the accuracy that every seed should reach at its last epoch
    ("fast", "mnist"): 0.983,
    ("best", "mnist"): 0.990,
    ("conv", "mnist"): 0.993,
    ("digits", "mnist"): 0.994,
    ("best", "fashion-mnist"): 0.900,
    ("conv", "fashion-mnist"): 0.915,
}
MIN_CLASS_SHARE = 0.03
"""The minimum fraction of the rarest digit in a GAN's samples."""
DOCUMENT = "docs/results.md"
"""The document with the short table, between two marks."""
BEGIN, END = "<!-- make results: begin -->\n", "<!-- make results: end -->\n"

Measured = dict[str, Any]


def summary_line(row: Measured) -> str:
    """A finished row as one line."""
    duration = f"{row['seconds']:8.1f} s ({row['cpu_seconds']:.1f} s of the processor)"
    if "accuracy" in row:
        return f"{row['accuracy']:.2%}{duration}"
    text = f"distance {row['frechet_distance']:.1f}, rarest digit {row['min_class_share']:.1%}{duration}"
    return text + "".join(f", {code} in epoch {epoch}" for code, epoch in row["findings"].items())


def short_table(content: Measured) -> str:
    """The short table: a line for each preset and dataset."""
    return "\n".join([*_classifiers(content["rows"]), "", *_gans(content["rows"])])


def full_table(content: Measured) -> str:
    """A line for each training."""
    lines = [
        (
            "| kind | preset | dataset | seed | result | rarest digit | KL | independent distance | found | seconds "
            "| processor seconds | load |"
        ),
        "|---|---|---|--:|--:|--:|--:|--:|---|--:|--:|--:|",
    ]
    for row in content["rows"]:
        findings = ", ".join(f"`{code}` ({epoch})" for code, epoch in row["findings"].items())
        if "accuracy" in row:
            scores = (f"{row['accuracy']:.2%}", "", "", "")
        else:
            scores = (
                f"{row['frechet_distance']:.1f}",
                f"{row['min_class_share']:.1%}",
                f"{row['kl_to_uniform']:.3f}",
                f"{row[METRIC]:.1f}" if METRIC in row else "",
            )
        identity = (row["kind"], f"`{row['preset']}`", f"`{row['dataset']}`", row["seed"])
        lines.append(_line(*identity, *scores, findings, row["seconds"], row["cpu_seconds"], row["load"]))
    return "\n".join(lines)


def write(content: Measured, results: Path, root: Path) -> list[Path]:
    """Write the Markdown file next to the JSON, and the short table into the document."""
    classifier = content["independent"]
    header = ["# What the presets reach", "", "Made by `make results`; docs/results.md explains it.", ""]
    for machine, kinds in _kinds_by_machine(content["rows"]).items():
        header += [f"{machine}: {', '.join(kinds)}.", ""]
    if classifier:
        real = ", ".join(
            f"of {count} test digits {distance:.1f}" for count, distance in classifier["test digits"].items()
        )
        header += [
            (
                f"The independent reference classifier names {classifier['accuracy']:.2%} of the test digits. "
                f"The independent Fréchet distance is {real}."
            ),
            "",
        ]
    page = results / "presets.md"
    text = "\n".join([*header, short_table(content), "", "## Every row", "", full_table(content), ""])
    page.write_text(text, encoding="utf-8")
    document = root / DOCUMENT
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return [results / "presets.json", page]
    document.write_text(f"{before}{begin}\n{short_table(content)}\n\n{end}{after}", encoding="utf-8")
    return [results / "presets.json", page, document]


def _kinds_by_machine(rows: list[Measured]) -> dict[str, list[str]]:
    """The kinds of rows that were measured on each machine."""
    kinds_by_machine: dict[str, list[str]] = {}
    for row in rows:
        machine = ", ".join(f"{name}: {value}" for name, value in row["machine"].items())
        kind = f"{row['kind']} `{row['preset']}`"
        if kind not in kinds_by_machine.setdefault(machine, []):
            kinds_by_machine[machine].append(kind)
    return kinds_by_machine


def _classifiers(rows: list[Measured]) -> list[str]:
    lines = [
        "| classifier | dataset | median accuracy at the last epoch (worst seed) | goal | reached | time | size |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for preset, dataset, seeds, measured in _groups(rows, "classifier"):
        goal = GOALS.get((preset, dataset))
        accuracies = [row["accuracy"] for row in measured]
        reached = sum(accuracy >= goal for accuracy in accuracies) if goal else len(accuracies)
        lines.append(
            _line(
                f"`{preset}`",
                f"`{dataset}`",
                f"{median(accuracies):.2%} ({min(accuracies):.2%})",
                f"{goal:.1%}" if goal else "",
                _format_count(reached, len(accuracies), seeds) if goal else f"{len(accuracies)} seeds",
                _format_seconds(measured),
                f"{measured[0]['parameters']:,}",
            )
        )
    return lines


def _gans(rows: list[Measured]) -> list[str]:
    lines = [
        (
            "| GAN | dataset | seeds | median Fréchet distance (worst seed) | KL | rarest digit | ten digits "
            "| collapse | time | size |"
        ),
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for preset, dataset, seeds, measured in _groups(rows, "gan"):
        distances = [row["frechet_distance"] for row in measured]
        covered = sum(row["min_class_share"] >= MIN_CLASS_SHARE for row in measured)
        collapses = [row["findings"]["mode_collapse"] for row in measured if "mode_collapse" in row["findings"]]
        lines.append(
            _line(
                f"`{preset}`",
                f"`{dataset}`",
                _format_measured(len(measured), seeds),
                f"{median(distances):.0f} ({max(distances):.0f})",
                f"{max(row['kl_to_uniform'] for row in measured):.3f}",
                f"{min(row['min_class_share'] for row in measured):.1%}",
                f"{covered} of {len(measured)}",
                f"epoch {max(collapses)}, {len(collapses)} of {len(measured)}" if collapses else "never",
                _format_seconds(measured),
                f"{measured[0]['parameters']:,}",
            )
        )
    return lines


def _groups(rows: list[Measured], kind: str) -> Iterator[tuple[str, str, int, list[Measured]]]:
    for planned_kind, preset, dataset, seeds in PLAN:
        key = {"kind": kind, "preset": preset, "dataset": dataset}
        measured = [row for row in rows if key.items() <= row.items()]
        if planned_kind == kind and measured:
            yield preset, dataset, seeds, measured


def _format_count(count: int, measured: int, planned: int) -> str:
    """``count`` of the measured seeds, and the number of seeds that are still missing."""
    return f"{count} of {_format_measured(measured, planned)}"


def _format_measured(measured: int, planned: int) -> str:
    return f"{measured}" + ("" if measured >= planned else f" ({planned - measured} to come)")


def _format_seconds(rows: list[Measured]) -> str:
    return f"{median(row['cpu_seconds'] for row in rows):.1f}"


def _line(*cells: Any) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
