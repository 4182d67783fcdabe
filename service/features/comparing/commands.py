"""The commands that show how jobs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service import kinds
from service.cli.progress import check_success
from service.cli.target import Failure, Target, complete_jobs, job_argument, with_target
from service.cli.text import differences, duration, print_rows, short_ids, state, visible
from service.spec import splits
from service.spec.metric_info import KEY_METRICS, describe, number
from service.wording import value_text
from tapeline import Client, Job

_METADATA_FIELDS: Final = ("name", "tags", "priority", "reuse")
"""Fields of a spec that do not affect training."""
_MAX_COLUMN_WIDTH: Final = 24
_MAX_SHOWN_DIFFERENCES: Final = 10


@click.command()
@click.argument("job_texts", metavar="JOB JOB...", nargs=-1, required=True, shell_complete=complete_jobs)
@click.option(
    "--metric", metavar="NAME", help="Compare two settings by this metric: each a job, or JOB,JOB,... with other seeds."
)
@click.option("--best", is_flag=True, help="With --metric: the best value of all epochs instead of the last.")
@with_target
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
        sides = [] if are_groups else [target.find_side(client, text) for text in job_texts]
        jobs += [side for side in sides if isinstance(side, Job)]
        if len(jobs) < len(job_texts):  # a trial, which has several jobs
            _compare_groups(target, client, job_texts, metric, best=best)
            return
    if predictions := [job.name or job.id for job in jobs if not kinds.of(job.kind).trains]:
        raise Failure(f"a prediction has no metrics or weights to compare: {', '.join(predictions)}")
    settings, why_not = _settings(jobs), splits.why_not_compared(jobs)
    named = (name for job in jobs for name in KEY_METRICS.get(job.kind, ()))
    metric_names = [name for name in dict.fromkeys(named) if any(name in job.metrics for job in jobs)]
    document = {
        "jobs": [{"id": job.id, "name": job.name, "status": job.status, "metrics": job.metrics} for job in jobs],
        "settings": settings,
        "why_not_compared": why_not,
    }
    if target.prints(document):
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
            None if why_not else _best(name, [job.metrics.get(name) for job in jobs]),
        )
        for name in metric_names
    ]
    shared = {path: values for path, values in settings.items() if sum(_has_setting(job, path) for job in jobs) > 1}
    rows += [(path, [value_text(value) for value in values], None) for path, values in shared.items()]
    _print([visible(job.name or job.kind) for job in jobs], rows)
    if why_not or not settings:
        click.echo(why_not or "all settings are identical", err=True)


def _compare_groups(target: Target, client: Client, sides: Sequence[str], metric: str | None, *, best: bool) -> None:
    if len(sides) != 2:
        raise click.UsageError("two settings are compared; join the seeds of one with commas: A1,A2 B1,B2")
    a, b = ([target.find_side(client, text) for text in side.split(",") if text] for side in sides)
    comparison = client.compare(a, b, metric=metric, of="best" if best else "last")
    names = {job["job"]: short_ids([job["job"]])[0] for side in "ab" for job in comparison[side]["jobs"]}
    names |= {side.id: _short_name(side) for side in (*a, *b) if isinstance(side, Job)}
    if target.prints(comparison):
        return
    click.echo(comparison["sentence"])
    for note in comparison["notes"]:
        for job_id, name in names.items():
            note = note.replace(job_id, name)
        click.echo(f"note: {note}", err=True)


def _short_name(job: Job) -> str:
    """The name of a job and the end of its id, since several seeds may have one name."""
    (id_suffix,) = short_ids([job.id])
    return f"{visible(job.name)} ({id_suffix})" if job.name else id_suffix


def _settings(jobs: Sequence[Job]) -> dict[str, list[Any]]:
    """The settings in which the jobs differ, by dotted path, with the value of each job."""
    paths: dict[str, None] = {}
    for job in jobs[1:]:
        paths |= dict.fromkeys(differences(jobs[0].resolved, job.resolved))
    return {path: [_value_at(job.resolved, path) for job in jobs] for path in paths if path not in _METADATA_FIELDS}


def _has_setting(job: Job, path: str) -> bool:
    """Whether a spec has a setting, which another kind of job may not have."""
    *parents, name = path.split(".")
    return name in (_value_at(job.resolved, ".".join(parents)) or {} if parents else job.resolved)


def _value_at(spec: Mapping[str, Any], path: str) -> Any:
    value: Any = spec
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _best(name: str, values: Sequence[float | None]) -> int | None:
    """The index of the best value; ``None`` if the metric has no direction."""
    better = describe(name).better
    candidates = [(value, index) for index, value in enumerate(values) if value is not None]
    if better is None or len(candidates) < 2:
        return None
    chosen = max(candidates) if better == "max" else min(candidates)
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
        min(max(len(titles[index]), *(len(cells[index]) for _, cells, _ in rows)), _MAX_COLUMN_WIDTH) + 2
        for index in range(len(titles))
    ]
    start = 0
    while start < len(titles):
        end, used_width = start, label_width
        while end < len(titles) and (end == start or used_width + widths[end] <= console.width):
            used_width += widths[end]
            end += 1
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("", no_wrap=True, style="dim")
        for title in titles[start:end]:
            table.add_column(Text(title), overflow="fold", max_width=_MAX_COLUMN_WIDTH)
        for label, cells, best in rows:
            if all(cell == "-" for cell in cells[start:end]):  # a setting or metric of the jobs in another table
                continue
            styled_cells = [
                Text(cell, "bold green" if index == best else "") for index, cell in enumerate(cells[start:end], start)
            ]
            table.add_row(label, *styled_cells)
        if start:
            console.print()
        console.print(table)
        start = end


@click.command()
@click.argument("a", shell_complete=complete_jobs)
@click.argument("b", shell_complete=complete_jobs)
@click.option(
    "--replay/--no-replay",
    default=None,
    help="Retrain both side by side to find the first difference (default: only if specs and data are equal).",
)
@with_target
def why(target: Target, a: str, b: str, replay: bool | None) -> None:
    """Compare two jobs: differences in spec, provenance and data, and the first different epoch, batch and tensor.

    SWEEP:2 is a trial of a sweep, and SWEEP its best one: of several seeds, the job with the first seed of both.
    """
    with target.client() as client:
        side_a, side_b = (target.find_side(client, text) for text in (a, b))
        differences = client.why(side_a, side_b)
        job_a, job_b = (
            side if isinstance(side, Job) else client.job(differences[key])
            for side, key in ((side_a, "a"), (side_b, "b"))
        )
        for text, side, job in ((a, side_a, job_a), (b, side_b, job_b)):
            if isinstance(side, str) and not target.as_json:
                click.echo(f"{visible(text)}: the job {visible(job.name or job.id)}", err=True)
        results_differ = differences["epoch"] is not None or differences["checkpoint"] is not None
        is_explained = bool(differences["spec"] or differences["data_differ"])
        investigation = None
        if results_differ and job_a.ended and job_b.ended and (replay if replay is not None else not is_explained):
            investigation = _replay(target, client, job_a, job_b)
    if target.prints(differences | {"replay": investigation}):
        return
    click.echo(visible(differences["sentence"]))
    rows = [(f"spec {item['label']}", text) for item in differences["spec"] for text in _values(item)]
    others = [*differences["provenance"], *([differences["dataset"]] if differences["dataset"] else [])]
    rows += [(item["label"], text) for item in others for text in _values(item)]
    if differences["checkpoint"] is not None and not differences["data_differ"]:
        checkpoint = differences["checkpoint"]
        rows.append((f"checkpoint of epoch {checkpoint['epoch']}", _element(checkpoint["first"])))
    print_rows(_limited(rows))
    if investigation is not None:
        click.echo(visible(investigation["sentence"]))


@click.command()
@job_argument
@click.option("--metric", required=True, metavar="NAME", help="For example val_accuracy.")
@click.option("--below", type=float, help="Values below this are bad.")
@click.option("--above", type=float, help="Values above this are bad.")
@with_target
def bisect(target: Target, job_text: str, metric: str, below: float | None, above: float | None) -> None:
    """Find the epoch from which a metric is too low or too high."""
    if (below is None) == (above is None):
        raise click.UsageError("name exactly one of --below and --above")
    with target.client() as client:
        job = target.find(client, job_text)
        bisection = client.bisect(job, metric, below=below, above=above)
    if target.prints(asdict(bisection)):
        return
    label = describe(metric).label
    for epoch, value in bisection.probes:
        click.echo(f"probe  epoch {epoch:>4}  {label} {'not finite' if value is None else number(metric, value)}")
    click.echo(visible(bisection.sentence))
    if bisection.times > 1:
        click.echo(f"all values: tapeline metrics {job.id[-6:]}", err=True)
    if bisection.checkpoint is not None:
        click.echo(f"to continue from before it: tapeline fork {job.id[-6:]} --checkpoint {bisection.checkpoint}")


def _replay(target: Target, client: Client, a: Job, b: Job) -> dict[str, Any]:
    job = client.investigate(a, b)
    if not target.as_json:
        click.echo(f"training both again ({job.id})", err=True)
    job.wait()
    check_success(f"job {job.id}", job.status, job.error)
    investigation: dict[str, Any] = job["investigation"]
    return investigation


def _values(item: Mapping[str, Any]) -> list[str]:
    """Both values on one line; lists, such as layers, on a line each."""
    texts = [item["text_a"], item["text_b"]]
    return texts if any(", " in text for text in texts) else [" and ".join(texts)]


def _element(item: Mapping[str, Any]) -> str:
    if not item["element"]:
        return f"{item['tensor']} has another shape"
    return f"{item['tensor']}[{', '.join(map(str, item['element']))}] is {item['a']!r} and {item['b']!r}"


def _limited(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    more = len(rows) - _MAX_SHOWN_DIFFERENCES
    return [*rows[:_MAX_SHOWN_DIFFERENCES], *([("", f"and {more} more; --json shows all")] if more > 0 else [])]
