"""Formatting of ids, metrics, sizes and times for the terminal."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from service import kinds
from service.spec import metric_info
from service.spec.metric_info import describe, number
from service.wording import counted, value_text
from tapeline.errors import ApiError

if TYPE_CHECKING:
    from tapeline import Client

SHORT_ID: Final = 6
"""Length of a shortened id: its last characters, since the first ones are a timestamp and similar for jobs of a day."""
STYLES: Final = {"succeeded": "green", "failed": "red", "cancelled": "red", "running": "cyan"}
_INVISIBLE: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters except the newline (C0 and C1), line separators, and direction marks."""
_REQUESTED: Final = {"cancel": "cancelling", "pause": "pausing"}


def visible(text: str) -> str:
    """User-written text for a terminal: control characters and direction marks become boxes."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", text)


def key_metrics(metrics: Mapping[str, float | None], names: Sequence[str]) -> list[tuple[str, str]]:
    """Label and value of these metrics of a job, as text; without those that it does not have."""
    return [(describe(name).label, number(name, metrics[name])) for name in names if name in metrics]


def join_fitting(pairs: Iterable[tuple[str, str]], width: int) -> str:
    """As many of the pairs as fit, but at least the first."""
    text = ""
    for label, value in pairs:
        extended = f"{text}  {label} {value}" if text else f"{label} {value}"
        if text and len(extended) > width:
            break
        text = extended
    return text


STOPPED: Final = "stopped by sweep"


def state(job: Mapping[str, Any]) -> str:
    """A job's status in a few words; for a running job with a pending request, the request."""
    if job.get("stopped_by_sweep"):
        return STOPPED
    return _REQUESTED.get(job["requested"] or "", str(job["status"]))


def status_text(status: str, requested: str | None) -> str:
    """A status, and a pending request."""
    return f"{status}, {requested} requested" if requested else status


def state_style(job: Mapping[str, Any]) -> str:
    """The style of ``state``."""
    if job["requested"]:
        return "yellow"
    return "" if job.get("stopped_by_sweep") else STYLES.get(str(job["status"]), "")


def short_ids(ids: Sequence[str]) -> list[str]:
    """The shortest distinct end of each id; every command accepts it."""
    length = SHORT_ID
    while len({job_id[-length:] for job_id in ids}) < len(set(ids)):
        length += 1
    return [job_id[-length:] for job_id in ids]


def duration_s(job: Mapping[str, Any]) -> float | None:
    """Seconds from a job's first start to its end, or until now; ``None`` if it has not started, or waits."""
    if job["started_at"] is None or job.get("status") in ("queued", "paused"):
        return None
    return elapsed_s(job)


def elapsed_s(job: Mapping[str, Any]) -> float:
    """Seconds from the first start of a job, which has started, to its end or until now."""
    started = datetime.fromisoformat(job["started_at"])
    finished = datetime.fromisoformat(job["finished_at"]) if job["finished_at"] else datetime.now(UTC)
    return max((finished - started).total_seconds(), 0.0)


def duration(job: Mapping[str, Any]) -> str:
    """The time from start to end as text, such as ``1:05``; ``-`` if the job has not started, or waits."""
    seconds = duration_s(job)
    return "-" if seconds is None else clock(seconds)


def clock(seconds: float) -> str:
    """Seconds as ``0:07``, ``12:05`` or ``1:02:03``."""
    minutes, remainder = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{remainder:02d}" if hours else f"{minutes}:{remainder:02d}"


def about(seconds: float) -> str:
    """An estimate: ``7 s``, ``2 min``, ``1.5 h``; at least a second."""
    return metric_info.duration(max(seconds, 1.0))


def print_rows(rows: Iterable[tuple[str, str | Text]]) -> None:
    """Print titles and values in rows: aligned in a terminal, tab-separated in a pipe."""
    texts = [(title, value if isinstance(value, Text) else Text(visible(value))) for title, value in rows]
    console = Console(highlight=False)
    if not console.is_terminal:
        for title, text in texts:
            click.echo(f"{title}\t{text.plain}")
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    previous_title = ""
    for title, text in texts:
        table.add_row("" if title == previous_title else title, text)
        previous_title = title
    console.print(table)


def print_table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str | Text]],
    *,
    best: int | None = None,
    gaps: Collection[int] = (),
) -> None:
    """Print rows below the headers of their columns: as a table in a terminal, tab-separated in a pipe.

    Args:
        best: index of the row to highlight in a terminal.
        gaps: indices of rows above which a terminal has an empty line.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        for cells in ([str(column.header) for column in columns], *rows):
            click.echo("\t".join(visible(str(cell)).replace("\n", " ") for cell in cells))
        return
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for index, cells in enumerate(rows):
        if index in gaps:
            table.add_row()
        shown = (cell if isinstance(cell, Text) else Text(visible(cell)) for cell in cells)
        table.add_row(*shown, style="bold green" if index == best else None)
    console.print(table)


def owner_names(client: Client, documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """The display name of the owner of each document; empty if all have the same owner."""
    ids = [document["owner"] or "-" for document in documents]
    if len(set(ids)) < 2:
        return []
    names = {item["id"]: item["display_name"] for item in client.owners()}
    return [names.get(owner) or owner for owner in ids]


def with_owners(
    columns: Sequence[Column], rows: Sequence[Sequence[str | Text]], names: Sequence[str]
) -> tuple[Sequence[Column], Sequence[Sequence[str | Text]]]:
    """A table with a last column of these names, if there are any."""
    if not names:
        return columns, rows
    return (*columns, Column("OWNER", overflow="fold")), [(*row, name) for row, name in zip(rows, names, strict=True)]


def spec_text(spec: Mapping[str, Any]) -> str:
    """A resolved spec in a few words."""
    return kinds.of(spec["kind"]).summary.format_map(spec)


def fold_means(folds: Mapping[str, Any]) -> list[str]:
    """The means over the folds of a cross-validation, one line per metric: ``val accuracy 97.10% (mean of ...)``."""
    lines = []
    for name, mean in folds["means"].items():
        metric = name.removeprefix("best:")
        bounds = [number(metric, mean[bound]) for bound in ("low", "high")]
        interval = "" if mean["high"] is None else f", 95% CI over folds {bounds[0]} to {bounds[1]}"
        basis = counted(mean["count"], "fold")
        lines.append(f"{mean['label']} {number(metric, mean['mean'])} (mean of {basis}{interval})")
    return lines


def differences(before: Any, after: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """The differences of two specs: dotted path to the values before and after.

    A list counts as one value, and so does a variant of an object, such as another optimizer.
    """
    both = isinstance(before, dict) and isinstance(after, dict)
    if not both or (path and before.get("name") != after.get("name")):  # the name of a spec is that of its job
        return {} if before == after else {path: (before, after)}
    result: dict[str, tuple[Any, Any]] = {}
    for name in [*before, *(name for name in after if name not in before)]:
        inner_path = f"{path}.{name}" if path else name
        result |= differences(before.get(name), after.get(name), inner_path)
    return result


def is_set(spec: Mapping[str, Any], path: str) -> bool:
    """Whether a spec, as sent, sets what is at a dotted path, or all that the path is part of."""
    value: Any = spec
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return True
        if name not in value:
            return False
        value = value[name]
    return True


def changed_settings(client: Client, spec: Mapping[str, Any]) -> dict[str, str]:
    """Settings of a resolved spec that differ from its preset: ``epochs`` to ``9 (preset: 3)``.

    The dataset, and the layers that a preset adapts to it, do not count as changes.
    """
    if not kinds.of(spec["kind"]).trains:
        return {}
    unrelated = ("preset", "name", "tags", "priority")  # fields that do not affect training
    preset = _preset_for(client, spec)
    changes = differences(preset, dict(spec)) if preset is not None else {}
    return {
        path: f"{value_text(after)} (preset: {value_text(before)})"
        for path, (before, after) in changes.items()
        if path not in unrelated
    }


def _preset_for(client: Client, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The preset of a spec, resolved for its dataset; the preset as listed if the dataset is deleted or the
    key is read-only."""
    try:
        minimal_spec = {"kind": spec["kind"], "preset": spec["preset"], "dataset": {"name": spec["dataset"]["name"]}}
        return dict(client.dry_run(minimal_spec)["resolved"])
    except ApiError:
        specs = [
            item["spec"] for item in client.presets() if (item["kind"], item["name"]) == (spec["kind"], spec["preset"])
        ]
        return dict(specs[0]) if specs else None
