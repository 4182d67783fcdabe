"""The commands that show metrics, what a classifier gets wrong, and how jobs differ."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from service import kinds
from service.cli.derived import Terminal, command, option
from service.cli.progress import check_success
from service.cli.target import Failure, Target, checkpoint_option, complete_jobs, job_argument, with_target
from service.cli.text import (
    differences,
    duration,
    print_rows,
    print_table,
    short_ids,
    state,
    visible,
)
from service.spec import splits
from service.spec.fields import suggest_metric
from service.spec.metric_info import KEY_METRICS, describe, number
from service.wording import GROUPED_FROM, SCIENTIFIC_FROM, counted, value_text
from tapeline import Client, Job
from tapeline.method_types import Which

_METADATA_FIELDS: Final = ("name", "tags", "priority", "reuse")
"""Fields of a spec that do not affect training."""
_MAX_COLUMN_WIDTH: Final = 24
_MAX_SHOWN_CONFUSIONS: Final = 3
_MAX_SHOWN_DIFFERENCES: Final = 10


@click.command()
@job_argument
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with all metrics.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file (implies --csv)."
)
@click.option(
    "--metric", "names", multiple=True, metavar="NAME", help="Only this metric, for example val_loss; repeatable."
)
@with_target
def metrics(target: Target, job_text: str, as_csv: bool, output: Path | None, names: tuple[str, ...]) -> None:
    """Show a job's metrics, epoch by epoch. A terminal shows the most important ones; --csv and --json include all."""
    with target.job(job_text) as job:
        history = job.history().document
    series = history["series"]
    unknown = [name for name in names if name not in series]
    if unknown:
        hint = suggest_metric(unknown[0], list(series), "it has")
        raise click.UsageError(f"the job has no metric {unknown[0]!r}; {hint}")
    chosen = list(names) or list(series)
    if target.prints(history | {"series": {name: series[name] for name in chosen}}):
        return
    if as_csv or output is not None:
        text = _format_csv(history, chosen)
        if output is None:
            click.echo(text, nl=False)
        else:
            output.write_text(text, encoding="utf-8")
            click.echo(f"{output}  {counted(len(history['epochs']), 'epoch')}, {counted(len(chosen), 'metric')}")
        return
    if not kinds.of(job.kind).trains:
        raise Failure(f"{job.id} is a {job.kind} job: it has no metrics")
    if not history["epochs"]:
        click.echo(f"job {job.id} has no completed epoch yet ({job.status})", err=True)
        return
    shown = list(names) or [name for name in KEY_METRICS.get(job.kind, ()) if name in series]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("EPOCH", justify="right")
    for name in shown:
        table.add_column(describe(name).label, justify="right", overflow="fold")
    table.add_column("seconds", justify="right")
    for index, epoch in enumerate(history["epochs"]):
        best = epoch == history["best_epoch"]
        cells = [number(name, series[name][index]) for name in shown]
        row = [f"{epoch}{'*' if best else ''}", *cells, f"{history['seconds'][index]:.1f}"]
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


def _print_mistakes(result: Mapping[str, Any]) -> None:
    names = result["class_names"]
    titles = ["ROW", "CLASS", "PREDICTED", "CONFIDENCE"]
    if any(item["row"] for item in result["data"]):
        titles.append("CELLS")
    lines = [
        [
            str(item["index"]),
            names[item["true_class"]],
            names[item["predicted_class"]],
            f"{item['confidence']:.1%}",
            ", ".join(f"{name} {value_text(value)}" for name, value in (item["row"] or {}).items()),
        ][: len(titles)]
        for item in result["data"]
    ]
    print_table(_columns(*titles), lines)
    click.echo(
        f"{result['count']:,} of {result['validation_count']:,} are wrong, in epoch {result['checkpoint']}; "
        f"shown: {len(lines)}",
        err=True,
    )


mistakes: Final = command(
    Terminal(
        "mistakes",
        "Job.mistakes",
        """Show what a classifier gets wrong on its validation data, most confident first.

        ROW is the index in the validation data, from 0; of a table, the cells follow.
        """,
        options={
            "limit": option(
                type=click.IntRange(1, 256), default=20, show_default=True, help="Maximum number of mistakes."
            )
        },
        show=_print_mistakes,
    ),
    "mistakes",
)


@click.command()
@job_argument
@checkpoint_option("best", "--epoch", "checkpoint")
@with_target
def confusion(target: Target, job_text: str, checkpoint: Which) -> None:
    """Show the scores of each class on the validation data, and what it is confused with; --json has the matrix."""
    with target.job(job_text) as job:
        result = job.confusion(checkpoint=checkpoint)
    if target.prints(result):
        return
    names, lines = result["class_names"], []
    for index, (row, item) in enumerate(zip(result["matrix"], result["per_class"], strict=True)):
        wrong = sorted(
            ((count, names[predicted]) for predicted, count in enumerate(row) if predicted != index and count),
            reverse=True,
        )
        scores = ["-" if item[score] is None else f"{item[score]:.1%}" for score in ("precision", "recall", "f1")]
        confusions = ", ".join(f"{name}: {counted(count, 'time')}" for count, name in wrong[:_MAX_SHOWN_CONFUSIONS])
        confusions += ", ..." * (len(wrong) > _MAX_SHOWN_CONFUSIONS)
        lines.append([names[index], f"{item['support']:,}", *scores, confusions])
    print_table(_columns("CLASS", "COUNT", "PRECISION", "RECALL", "F1", "CONFUSED WITH"), lines)
    click.echo(f"in epoch {result['epoch']}", err=True)


def _print_importance(result: Mapping[str, Any]) -> None:
    columns = sorted(result["columns"], key=lambda item: -item["mean"])
    if (rmse := result.get("rmse")) is not None:
        title, score = "RMSE GAINED", f"RMSE {number('val_rmse', rmse)}"
        texts = [[number("val_rmse", item[name]) for name in ("mean", "deviation")] for item in columns]
    else:
        title, score = "ACCURACY LOST (POINTS)", f"accuracy {result['accuracy']:.2%}"
        texts = [[f"{100 * item[name]:.2f}" for name in ("mean", "deviation")] for item in columns]
    lines = [[item["column"], *pair] for item, pair in zip(columns, texts, strict=True)]
    print_table(_columns("COLUMN", title, "DEVIATION"), lines)
    click.echo(f"{score} on {result['rows']:,} rows, in epoch {result['checkpoint']}", err=True)


importance: Final = command(
    Terminal(
        "importance",
        "Job.importance",
        "Show which columns of a table a network uses: the accuracy that is lost when a column is shuffled, or the "
        "RMSE that a regressor gains.",
        show=_print_importance,
    ),
    "columns",
)


@click.command()
@job_argument
@checkpoint_option("best")
@click.option("--limit", type=click.IntRange(1, 256), default=20, show_default=True, help="Number of rows.")
@with_target
def residuals(target: Target, job_text: str, checkpoint: Which, limit: int) -> None:
    """Show the validation rows for which a regressor is furthest from the target.

    ROW is the number in the validation data, from 1, as on the page of the dataset. --json also has target and
    prediction of the other rows.
    """
    with target.job(job_text) as job:
        result = job.residuals(checkpoint=checkpoint, limit=limit)
    document = result.document
    if target.prints(document):
        return
    is_grouped = any(GROUPED_FROM <= abs(item["target"]) < SCIENTIFIC_FROM for item in document["worst"])
    lines = [
        [
            str(item["index"] + 1),
            *(
                f"{value:,.0f}" if is_grouped else number("val_rmse", value)
                for value in (residual[name] for name in ("target", "prediction", "residual"))
            ),
            ", ".join(f"{name} {value_text(value)}" for name, value in item["row"].items()),
        ]
        for item, residual in zip(document["worst"], result, strict=True)
    ]
    print_table(_columns("ROW", visible(document["target"]), "PREDICTION", "RESIDUAL", "CELLS"), lines)
    click.echo(
        f"{len(lines)} of {document['validation_count']:,} rows, target {visible(document['target'])}, in epoch "
        f"{document['checkpoint']}",
        err=True,
    )


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


def _format_csv(history: Mapping[str, Any], names: Sequence[str]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["epoch", *names, "seconds"])
    series = (["" if value is None else repr(value) for value in history["series"][name]] for name in names)
    writer.writerows(zip(history["epochs"], *series, history["seconds"], strict=True))
    return file.getvalue()


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
