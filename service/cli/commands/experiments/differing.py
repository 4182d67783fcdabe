"""The commands ``why`` (why two jobs differ) and ``bisect`` (the epoch from which a metric is bad)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import click
from rich.text import Text

from service.cli.errors import Failure
from service.cli.target import Target, complete_jobs, job_argument, service_options
from service.cli.text import print_rows, to_json, value_text, visible
from service.client import Client, Job
from service.spec.metric_info import describe, number

_SHOWN: Final = 10


@click.command()
@click.argument("a", shell_complete=complete_jobs)
@click.argument("b", shell_complete=complete_jobs)
@click.option(
    "--replay/--no-replay",
    default=None,
    help="Retrain both side by side to find the first difference (default: only if specs and data are equal).",
)
@service_options
@click.pass_obj
def why(target: Target, a: str, b: str, replay: bool | None) -> None:
    """Say why two jobs have different results: spec, provenance, data, and the first epoch, batch and tensor.

    SWEEP:2 is a trial of a sweep, and SWEEP its best one: of several seeds, the job with the first seed of both.
    """
    with target.client() as client:
        one, other = (target.find_side(client, text) for text in (a, b))
        found = client.why(one, other)
        first, second = (
            side if isinstance(side, Job) else client.job(found[key]) for side, key in ((one, "a"), (other, "b"))
        )
        for text, side, job in ((a, one, first), (b, other, second)):
            if isinstance(side, str) and not target.as_json:
                click.echo(f"{visible(text)}: the job {visible(job.name or job.id)}", err=True)
        parted = found["epoch"] is not None or found["checkpoint"] is not None
        explained = bool(found["spec"] or found["dataset"])
        replayed = None
        if parted and first.ended and second.ended and (replay if replay is not None else not explained):
            replayed = _replay(target, client, first, second)
    if target.as_json:
        click.echo(to_json(found | {"replay": replayed}))
        return
    click.echo(visible(found["sentence"]))
    rows = [(f"spec {_name(item)}", _values(item)) for item in found["spec"]]
    rows += [(item["name"], _values(item)) for item in found["provenance"]]
    rows += [("data", _values(found["dataset"]))] if found["dataset"] else []
    if found["checkpoint"] is not None:
        kept = found["checkpoint"]
        rows.append((f"checkpoint of epoch {kept['epoch']}", _element(kept["first"])))
    print_rows([(title, Text(visible(text))) for title, text in _limited(rows)])
    if replayed is not None:
        click.echo(visible(replayed["sentence"]))


@click.command()
@job_argument
@click.option("--metric", required=True, metavar="NAME", help="For example val_accuracy.")
@click.option("--below", type=float, help="Values below this are bad.")
@click.option("--above", type=float, help="Values above this are bad.")
@service_options
@click.pass_obj
def bisect(target: Target, job_text: str, metric: str, below: float | None, above: float | None) -> None:
    """Find the epoch from which a metric is too low or too high."""
    if (below is None) == (above is None):
        raise click.UsageError("name exactly one of --below and --above")
    with target.client() as client:
        job = target.find(client, job_text)
        found = client.bisect(job, metric, below=below, above=above)
    if target.as_json:
        click.echo(to_json(asdict(found)))
        return
    label = describe(metric).label
    for epoch, value in found.probes:
        click.echo(f"probe  epoch {epoch:>4}  {label} {'not finite' if value is None else number(metric, value)}")
    click.echo(visible(found.sentence))
    if found.times > 1:
        click.echo(f"all values: tapeline metrics {job.id[-6:]}", err=True)
    if found.checkpoint is not None:
        click.echo(f"to continue from before it: tapeline fork {job.id[-6:]} --checkpoint {found.checkpoint}")


COMMANDS: Final = (why, bisect)


def _replay(target: Target, client: Client, a: Job, b: Job) -> dict[str, Any]:
    job = client.investigate(a, b)
    if not target.as_json:
        click.echo(f"training both again ({job.id})", err=True)
    job.wait()
    if job.status != "succeeded":
        why_not = f": {job.error['message']}" if job.error else ""
        raise Failure(f"job {job.id} {job.status}{why_not}", job.error)
    replayed: dict[str, Any] = job["investigation"]
    return replayed


def _name(item: Mapping[str, Any]) -> str:
    return str(item["name"]).removeprefix("/").replace("/", ".")


def _values(item: Mapping[str, Any]) -> str:
    return f"{value_text(item['a'])} and {value_text(item['b'])}"


def _element(first: Mapping[str, Any]) -> str:
    if not first["element"]:
        return f"{first['tensor']} has another shape"
    return f"{first['tensor']}[{', '.join(map(str, first['element']))}] is {first['a']!r} and {first['b']!r}"


def _limited(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    more = [("", f"and {len(rows) - _SHOWN} more; --json shows all")] if len(rows) > _SHOWN else []
    return [*rows[:_SHOWN], *more]
