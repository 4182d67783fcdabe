"""The commands that submit jobs and follow them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

import click
from rich.console import Console
from rich.text import Text

from service.cli.errors import Failure
from service.cli.progress import FollowedJob, display_of, explain, follow
from service.cli.target import Target, job_argument, service_options
from service.cli.text import about, changed_settings, fold_means, print_rows, to_json
from service.client import Client, Job
from service.spec.metric_info import size
from service.states import Status


@click.command()
@click.argument("spec", type=click.File("rb"))
@click.option("--watch", is_flag=True, help="Follow the job until it ends.")
@click.option("--dry-run", is_flag=True, help="Check the spec and estimate its cost; submit nothing.")
@click.option(
    "--folds", type=click.IntRange(2), metavar="N", help="Cross-validate: submit N jobs, one for each fold of the data."
)
@click.option("--idempotency-key", metavar="KEY", help="A repeated submission with the same key creates no second job.")
@service_options
@click.pass_obj
def train(
    target: Target, spec: IO[bytes], watch: bool, dry_run: bool, folds: int | None, idempotency_key: str | None
) -> None:
    """Submit a job from SPEC, a JSON file (-: standard input), and print its id.

    A spec with dataset.folds, or --folds, submits a job for each fold and prints all of their ids.
    """
    document = _with_folds(spec.read(), folds)
    with target.client() as client:
        if dry_run:
            _show_cost(target, client, client.dry_run(document))
            return
        job = client.submit(document, idempotency_key=idempotency_key)
        others = [client.get(job_id) for job_id in job.get("fold_jobs", [])[1:]]
    if others:
        _show_folds(target, [job, *others], watch=watch)
    else:
        _show_new(target, job, watch=watch)


@click.command()
@job_argument
@service_options
@click.pass_obj
def watch(target: Target, job_text: str) -> None:
    """Follow a job until it ends. The exit code is 0 if it succeeded."""
    with target.client() as client:
        job = target.find(client, job_text)
    _watch(target, job)


@click.command()
@job_argument
@click.option(
    "--checkpoint", default="latest", show_default=True, metavar="best|latest|N", help="N is an epoch number."
)
@click.option(
    "--set",
    "values",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Change a setting, for example optimizer.learning_rate=0.01; repeatable.",
)
@click.option("--watch", is_flag=True, help="Follow the new job until it ends.")
@service_options
@click.pass_obj
def fork(target: Target, job_text: str, checkpoint: str, values: tuple[str, ...], watch: bool) -> None:
    """Submit a job that continues from a checkpoint of another job, optionally with other settings.

    By default, the fork of "first" is named "first-2"; change it with --set name=...
    """
    which = int(checkpoint) if checkpoint.isdecimal() else checkpoint
    with target.client() as client:
        job = target.find(client, job_text).fork(_overrides(values), checkpoint=which)
    _show_new(target, job, watch=watch)


@click.command()
@job_argument
@click.option(
    "--watch",
    is_flag=True,
    help="Follow the new job until it ends. The exit code is 0 if its results are bit-identical.",
)
@service_options
@click.pass_obj
def reproduce(target: Target, job_text: str, watch: bool) -> None:
    """Train a succeeded job again and compare the results bit for bit, epoch by epoch."""
    with target.client() as client:
        job = target.find(client, job_text).reproduce()
    _show_new(target, job, watch=watch)
    if watch:
        with target.client() as client:
            result = client.get(job).reproduction or {}
        if not result["match"]:
            differs = ", ".join(result["first_difference"]["differs"])
            raise Failure(f"epoch {result['first_difference']['epoch']} differs from {result['of']}: {differs}", result)
        if not target.as_json:
            click.echo(f"bit-identical to {result['of']}")


COMMANDS: Final = (train, watch, fork, reproduce)


def _with_folds(document: bytes, folds: int | None) -> bytes:
    """The spec with ``dataset.folds``; an invalid document is returned unchanged, for the service to reject."""
    if folds is None:
        return document
    try:
        spec = json.loads(document)
    except ValueError:
        return document
    if not isinstance(spec, dict):
        return document
    data = spec.get("dataset", {})
    data = {"name": data} if isinstance(data, str) else data
    return json.dumps(spec | {"dataset": data | {"folds": folds}}).encode() if isinstance(data, dict) else document


def _show_folds(target: Target, jobs: Sequence[Job], *, watch: bool) -> None:
    """Print the ids of the jobs of a cross-validation, or follow all jobs and print the means of their metrics."""
    if not watch or target.as_json:
        click.echo(to_json(jobs[0]) if target.as_json else "\n".join(job.id for job in jobs))
        return
    watched = [FollowedJob.of(job) for job in jobs]
    with display_of(watched, Console(highlight=False)) as display:
        follow(target.client, watched, display)
    with target.client() as client:
        found = client.folds(jobs[0])
    for line in fold_means(found):
        click.echo(line)
    if found["finished"] < len(jobs):
        raise Failure(f"{len(jobs) - found['finished']} of {len(jobs)} folds did not succeed")


def _show_new(target: Target, job: Job, *, watch: bool) -> None:
    if not watch:
        click.echo(to_json(job) if target.as_json else job.id)
        return
    if not target.as_json:
        # On separate lines in a terminal, where both do not fit.
        separator = "\n" if sys.stdout.isatty() else "  "
        click.echo(f"{job.id}{separator}{job.page}")
    _watch(target, job)


def _watch(target: Target, job: Job) -> None:
    if target.as_json:
        status, error = job.status, job.error
        with target.client() as client:
            for event in client.stream(job):
                click.echo(json.dumps({"seq": event.seq, "type": event.type, "data": event.data}))
                if event.type in ("snapshot", "end"):
                    status, error = event.data["status"], event.data.get("error")
    else:
        watched = FollowedJob.of(job)
        try:
            with display_of([watched], Console(highlight=False)) as display:
                follow(target.client, [watched], display)
        except KeyboardInterrupt:
            if watched.status not in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED):
                click.echo(f"job {job.id} continues; stop it with: tapeline cancel {job.id}", err=True)
            raise
        status, error = watched.status, dict(watched.error) if watched.error else None
    if status != Status.SUCCEEDED:
        why = f": {explain(error)}" if error else ""
        raise Failure(f"job {job.id} {status}{why}", error)


def _overrides(values: Sequence[str]) -> dict[str, Any]:
    """Parse ``a.b=1`` to ``{"a": {"b": 1}}``; a value that is not JSON is a string."""
    overrides: dict[str, Any] = {}
    for text in values:
        field, equals, value = text.partition("=")
        *path, last = field.split(".")
        if not equals or not all([*path, last]):
            raise click.UsageError(f"--set expects FIELD=VALUE, for example epochs=9; got {text!r}")
        place = overrides
        for name in path:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise click.UsageError(f"--set {text!r}: {name} already has a value")
        try:
            place[last] = json.loads(value)
        except ValueError:
            place[last] = value
    return overrides


def _show_cost(target: Target, client: Client, cost: Mapping[str, Any]) -> None:
    """Print the estimated cost of a spec, and the settings that differ from its preset."""
    if target.as_json:
        click.echo(to_json(cost))
        return
    spec = cost["resolved"]
    rows = [
        ("Job", f"{spec['kind']}, preset {spec['preset']}, dataset {spec['dataset']['name']}"),
        ("Parameters", f"{cost['parameters']:,}"),
        ("Steps", f"{cost['steps']:,} in {spec['epochs']} epochs, batches of {spec['batch_size']}"),
        ("Memory", size(cost["estimated_bytes"])),
        ("Checkpoint size", size(cost["checkpoint_bytes"])),
        ("Estimated time", _estimate(cost)),
        *(("Settings", f"{name}: {value}") for name, value in changed_settings(client, spec).items()),
    ]
    shown = [(name, Text(value)) for name, value in rows]
    shown += [("Notes", Text(note, "yellow")) for note in cost["notes"]]
    print_rows(shown)
    if sys.stdout.isatty():
        click.echo("Nothing was submitted. To submit the job, omit --dry-run.")


def _estimate(cost: Mapping[str, Any]) -> str:
    """The estimated time, as a range if there is one, and what it is based on."""
    low, high = cost["estimated_seconds_low"], cost["estimated_seconds_high"]
    if low is None or high is None:
        return "unknown until a job of this kind has ended"
    text = about(low) if about(low) == about(high) else f"{about(low)} to {about(high)}"
    return f"{text} (based on {cost['estimate_basis']})"
