"""The commands that show metrics, and what a job gets wrong."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Column, Table

from service import kinds
from service.cli.derived import Terminal, command, option
from service.cli.target import Failure, Target, checkpoint_option, job_argument, with_target
from service.cli.text import (
    print_table,
    visible,
)
from service.spec.fields import suggest_metric
from service.spec.metric_info import KEY_METRICS, describe, number
from service.wording import GROUPED_FROM, SCIENTIFIC_FROM, counted, value_text
from tapeline.method_types import Which

_MAX_SHOWN_CONFUSIONS: Final = 3


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


def _format_csv(history: Mapping[str, Any], names: Sequence[str]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["epoch", *names, "seconds"])
    series = (["" if value is None else repr(value) for value in history["series"][name]] for name in names)
    writer.writerows(zip(history["epochs"], *series, history["seconds"], strict=True))
    return file.getvalue()
