"""The commands that show metrics and what a classifier gets wrong, and jobs side by side."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from service.cli.target import Target, complete_jobs, job_argument, service_options
from service.cli.text import (
    KEY_METRICS,
    differences,
    duration,
    print_table,
    short_ids,
    state,
    to_json,
    value_text,
    visible,
)
from service.client import Client, Job
from service.spec.fields import metric_instead
from service.spec.metric_info import describe, number
from service.wording import counted

_ABOUT: Final = ("name", "tags", "priority", "reuse")
"""Fields of a spec that do not affect training."""
_MAX_COLUMN: Final = 24
_SHOWN_CELLS: Final = 3


@click.command()
@job_argument
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with all metrics.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file (implies --csv)."
)
@click.option(
    "--metric", "names", multiple=True, metavar="NAME", help="Only this metric, for example val_loss; repeatable."
)
@service_options
@click.pass_obj
def metrics(target: Target, job_text: str, as_csv: bool, output: Path | None, names: tuple[str, ...]) -> None:
    """Show a job's metrics, epoch by epoch. A terminal shows the most important ones; --csv and --json include all."""
    with target.client() as client:
        job = target.find(client, job_text)
        history = job.history()
    series = history["series"]
    unknown = [name for name in names if name not in series]
    if unknown:
        hint = metric_instead(unknown[0], list(series), "it has")
        raise click.UsageError(f"the job has no metric {unknown[0]!r}; {hint}")
    chosen = list(names) or list(series)
    if target.as_json:
        click.echo(to_json(history | {"series": {name: series[name] for name in chosen}}))
        return
    if as_csv or output is not None:
        text = _csv(history, chosen)
        if output is None:
            click.echo(text, nl=False)
        else:
            output.write_text(text, encoding="utf-8")
            click.echo(f"{output}  {counted(len(history['epochs']), 'epoch')}, {counted(len(chosen), 'metric')}")
        return
    if not history["epochs"]:
        click.echo(f"job {job.id} has no completed epoch yet ({job.status})", err=True)
        return
    shown = list(names) or [name for name in KEY_METRICS.get(job.kind, ()) if name in series]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("EPOCH", justify="right")
    for name in shown:
        table.add_column(describe(name).label, justify="right", overflow="fold")
    table.add_column("seconds", justify="right")
    for place, epoch in enumerate(history["epochs"]):
        best = epoch == history["best_epoch"]
        cells = [number(name, series[name][place]) for name in shown]
        row = [f"{epoch}{'*' if best else ''}", *cells, f"{history['seconds'][place]:.1f}"]
        table.add_row(*row, style="bold" if best else None)
    console = Console(highlight=False)
    console.print(table)
    if history["best_epoch"] in history["epochs"]:
        console.print("[dim]* best checkpoint[/]")


@click.command()
@click.argument("job_texts", metavar="JOB JOB...", nargs=-1, required=True, shell_complete=complete_jobs)
@click.option(
    "--metric", metavar="NAME", help="Compare two settings by this metric: each a job, or JOB,JOB,... with other seeds."
)
@click.option("--best", is_flag=True, help="With --metric: the best value of all epochs instead of the last.")
@service_options
@click.pass_obj
def compare(target: Target, job_texts: Sequence[str], metric: str | None, best: bool) -> None:
    """Show jobs side by side: the last metrics with the best values in bold, and the settings that differ.

    With --metric, compare two settings: the difference of the means over their seeds, with its 95% interval. SWEEP:2 is
    a trial of a sweep, and SWEEP its best one; these have a default metric.
    """
    if len(job_texts) < 2:
        raise click.UsageError("name at least two jobs")
    jobs: list[Job] = []
    with target.client() as client:
        are_groups = metric is not None or any("," in text for text in job_texts)
        named = [] if are_groups else [target.find_side(client, text) for text in job_texts]
        jobs += [side for side in named if isinstance(side, Job)]
        if len(jobs) < len(job_texts):  # a trial, which has several jobs
            _compare_groups(target, client, job_texts, metric, best=best)
            return
    settings = _settings(jobs)
    measured = [name for name in KEY_METRICS[jobs[0].kind] if any(name in job.metrics for job in jobs)]
    others = {name: None for job in jobs for name in KEY_METRICS[job.kind] if name in job.metrics}
    measured += [name for name in others if name not in measured]
    if target.as_json:
        document = {
            "jobs": [{"id": job.id, "name": job.name, "status": job.status, "metrics": job.metrics} for job in jobs],
            "settings": {place: list(values) for place, values in settings.items()},
        }
        click.echo(to_json(document))
        return
    rows: list[tuple[str, list[str], int | None]] = [
        ("id", short_ids([job.id for job in jobs]), None),
        ("status", [state(job) for job in jobs], None),
        ("epoch", [f"{job.epoch}/{job.epochs}" for job in jobs], None),
        ("took", [duration(job) for job in jobs], None),
    ]
    rows += [
        (
            describe(name).label,
            [number(name, job.metrics[name]) if name in job.metrics else "-" for job in jobs],
            _best(name, [job.metrics.get(name) for job in jobs]),
        )
        for name in measured
    ]
    shared = {place: values for place, values in settings.items() if sum(_has(job, place) for job in jobs) > 1}
    rows += [(place, [value_text(value) for value in values], None) for place, values in shared.items()]
    _print([visible(job.name or job.kind) for job in jobs], rows)
    if not settings:
        click.echo("all settings are identical", err=True)


_checkpoint: Final = click.option(
    "--checkpoint", default="best", show_default=True, metavar="best|latest|N", help="N is an epoch number."
)


@click.command()
@job_argument
@_checkpoint
@click.option("--limit", type=click.IntRange(1, 256), default=20, show_default=True, help="Maximum number of mistakes.")
@service_options
@click.pass_obj
def mistakes(target: Target, job_text: str, checkpoint: str, limit: int) -> None:
    """Show what a classifier gets wrong on its validation data, most confident first.

    ROW is the index in the validation data, from 0; of a table, the cells follow.
    """
    with target.client() as client:
        found = target.find(client, job_text).mistakes(checkpoint=_which(checkpoint), limit=limit)
    if target.as_json:
        click.echo(to_json(found))
        return
    names = found["class_names"]
    titles = ["ROW", "CLASS", "PREDICTED", "CONFIDENCE"]
    if any(item["row"] for item in found["data"]):
        titles.append("CELLS")
    lines = [
        [
            str(item["index"]),
            names[item["true_class"]],
            names[item["predicted_class"]],
            f"{item['confidence']:.1%}",
            ", ".join(f"{name} {value_text(value)}" for name, value in (item["row"] or {}).items()),
        ][: len(titles)]
        for item in found["data"]
    ]
    print_table(_columns(*titles), lines)
    click.echo(
        f"{found['count']:,} of {found['validation_count']:,} are wrong, in epoch {found['checkpoint']}; "
        f"shown: {len(lines)}",
        err=True,
    )


@click.command()
@job_argument
@click.option("--epoch", type=click.IntRange(1), help="Default: the last one.")
@service_options
@click.pass_obj
def confusion(target: Target, job_text: str, epoch: int | None) -> None:
    """Show the scores of each class on the validation data, and what it is confused with; --json has the matrix."""
    with target.client() as client:
        found = target.find(client, job_text).confusion(epoch=epoch)
    if target.as_json:
        click.echo(to_json(found))
        return
    names, lines = found["class_names"], []
    for place, (row, item) in enumerate(zip(found["matrix"], found["per_class"], strict=True)):
        wrong = sorted(((count, names[to]) for to, count in enumerate(row) if to != place and count), reverse=True)
        scores = ["-" if item[score] is None else f"{item[score]:.1%}" for score in ("precision", "recall", "f1")]
        confusions = ", ".join(f"{name} {count:,}" for count, name in wrong[:_SHOWN_CELLS])
        lines.append(
            [names[place], f"{item['support']:,}", *scores, confusions + (", ..." * (len(wrong) > _SHOWN_CELLS))]
        )
    print_table(_columns("CLASS", "COUNT", "PRECISION", "RECALL", "F1", "CONFUSED WITH"), lines)


@click.command()
@job_argument
@_checkpoint
@service_options
@click.pass_obj
def importance(target: Target, job_text: str, checkpoint: str) -> None:
    """Show which columns of a table a classifier uses: the accuracy that is lost when a column is shuffled."""
    with target.client() as client:
        found = target.find(client, job_text).importance(checkpoint=_which(checkpoint))
    if target.as_json:
        click.echo(to_json(found))
        return
    columns = sorted(found["columns"], key=lambda item: -item["mean"])
    lines = [[item["column"], f"{100 * item['mean']:.2f}", f"{100 * item['deviation']:.2f}"] for item in columns]
    print_table(_columns("COLUMN", "LOSS (POINTS)", "DEVIATION"), lines)
    click.echo(f"accuracy {found['accuracy']:.2%} on {found['rows']:,} rows, in epoch {found['checkpoint']}", err=True)


COMMANDS: Final = (metrics, compare, mistakes, confusion, importance)


def _which(checkpoint: str) -> Any:
    return int(checkpoint) if checkpoint.isdecimal() else checkpoint


def _columns(*titles: str) -> list[Column]:
    """Columns of text, and of numbers, which are not folded."""
    text = ("CLASS", "PREDICTED", "CELLS", "CONFUSED WITH", "COLUMN")
    return [
        Column(title, overflow="fold") if title in text else Column(title, justify="right", no_wrap=True)
        for title in titles
    ]


def _compare_groups(target: Target, client: Client, sides: Sequence[str], metric: str | None, *, best: bool) -> None:
    if len(sides) != 2:
        raise click.UsageError("two settings are compared; join the seeds of one with commas: A1,A2 B1,B2")
    a, b = ([target.find_side(client, text) for text in side.split(",") if text] for side in sides)
    found = client.compare(a, b, metric=metric, of="best" if best else "last")
    names = {job["job"]: short_ids([job["job"]])[0] for side in "ab" for job in found[side]["jobs"]}
    names |= {side.id: _short_name(side) for side in (*a, *b) if isinstance(side, Job)}
    if target.as_json:
        click.echo(to_json(found))
        return
    click.echo(found["sentence"])
    for note in found["notes"]:
        for job_id, name in names.items():
            note = note.replace(job_id, name)
        click.echo(f"note: {note}", err=True)


def _short_name(job: Job) -> str:
    """The name of a job and the end of its id, since several seeds may have one name."""
    (end,) = short_ids([job.id])
    return f"{visible(job.name)} ({end})" if job.name else end


def _settings(jobs: Sequence[Job]) -> dict[str, list[Any]]:
    """The settings in which the jobs differ, by dotted path, with the value of each job."""
    places: dict[str, None] = {}
    for job in jobs[1:]:
        places |= dict.fromkeys(differences(jobs[0].resolved, job.resolved))
    return {place: [_at(job.resolved, place) for job in jobs] for place in places if place not in _ABOUT}


def _has(job: Job, place: str) -> bool:
    """Whether a spec has a setting, which another kind of job may not have."""
    *path, last = place.split(".")
    return last in (_at(job.resolved, ".".join(path)) or {} if path else job.resolved)


def _at(spec: Mapping[str, Any], place: str) -> Any:
    value: Any = spec
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _best(name: str, values: Sequence[float | None]) -> int | None:
    """The index of the best value; ``None`` if the metric has no direction."""
    better = describe(name).better
    known = [(value, place) for place, value in enumerate(values) if value is not None]
    if better is None or len(known) < 2:
        return None
    chosen = max(known) if better == "max" else min(known)
    return chosen[1]


def _print(titles: Sequence[str], rows: Sequence[tuple[str, list[str], int | None]]) -> None:
    """Print the rows: in a terminal as tables of as many jobs as fit, in a pipe as tab-separated columns."""
    console = Console(highlight=False)
    if not console.is_terminal:
        click.echo("\t".join(["", *titles]))
        for label, cells, _ in rows:
            click.echo("\t".join([label, *cells]))
        return
    label_width = max(len(label) for label, _, _ in rows)
    widths = [
        min(max(len(titles[place]), *(len(cells[place]) for _, cells, _ in rows)), _MAX_COLUMN) + 2
        for place in range(len(titles))
    ]
    start = 0
    while start < len(titles):
        end, used = start, label_width
        while end < len(titles) and (end == start or used + widths[end] <= console.width):
            used += widths[end]
            end += 1
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("", no_wrap=True, style="dim")
        for title in titles[start:end]:
            table.add_column(Text(title), overflow="fold", max_width=_MAX_COLUMN)
        for label, cells, best in rows:
            if all(cell == "-" for cell in cells[start:end]):  # a setting or metric of the jobs in another table
                continue
            marked = [
                Text(cell, "bold green" if place == best else "") for place, cell in enumerate(cells[start:end], start)
            ]
            table.add_row(label, *marked)
        if start:
            console.print()
        console.print(table)
        start = end


def _csv(history: Mapping[str, Any], names: Sequence[str]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["epoch", *names, "seconds"])
    columns = [history["series"][name] for name in names]
    for place, epoch in enumerate(history["epochs"]):
        cells = ("" if column[place] is None else repr(column[place]) for column in columns)
        writer.writerow([epoch, *cells, history["seconds"][place]])
    return file.getvalue()
