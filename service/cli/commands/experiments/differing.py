"""The commands ``why`` (why two jobs differ) and ``bisect`` (the epoch from which a metric is bad)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from service.cli.progress import check_success
from service.cli.target import Target, complete_jobs, job_argument, with_target
from service.cli.text import print_rows, visible
from service.spec.metric_info import describe, number
from tapeline import Client, Job

_MAX_SHOWN_DIFFERENCES: Final = 10


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
    """Say why two jobs have different results: spec, provenance, data, and the first epoch, batch and tensor.

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
    ellipsis = (
        [("", f"and {len(rows) - _MAX_SHOWN_DIFFERENCES} more; --json shows all")]
        if len(rows) > _MAX_SHOWN_DIFFERENCES
        else []
    )
    return [*rows[:_MAX_SHOWN_DIFFERENCES], *ellipsis]
