"""The commands that talk to a service about its jobs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.cli.errors import Failure
from service.cli.progress import Watched, display_of, explain, follow
from service.cli.target import Target, service_options
from service.client import Client, safe_name
from service.contract.spec import Kind
from service.contract.states import TERMINAL, Status

_ID_WIDTH: Final = 30
_WIDE: Final = 110
"""Columns of a terminal that has room for metrics."""
_LINE_COLUMNS: Final = ("ID", "KIND", "STATUS", "EPOCH", "NAME", "METRICS")


@click.command()
@click.argument("spec", type=click.File("rb"))
@click.option("--watch", is_flag=True, help="Show how it learns, until it has ended.")
@click.option("--dry-run", is_flag=True, help="Only check it: what would be trained, and what it would cost.")
@click.option("--idempotency-key", metavar="KEY", help="Repeat with the same key, and there is still one job.")
@service_options
@click.pass_obj
def train(target: Target, spec: IO[bytes], watch: bool, dry_run: bool, idempotency_key: str | None) -> None:
    """Make a job from SPEC: a JSON file, or - for standard input."""
    document = spec.read()
    with target.client() as client:
        if dry_run:
            click.echo(to_json(client.dry_run(document)))
            return
        job = client.submit(document, idempotency_key=idempotency_key)
    _show_new(target, job, watch=watch)


@click.command()
@click.argument("job_id", metavar="ID")
@service_options
@click.pass_obj
def watch(target: Target, job_id: str) -> None:
    """Show how a job learns, until it has ended; exit code 0 where it succeeded."""
    with target.client() as client:
        job = client.get(find(client, job_id))
    _watch(target, job)


@click.command("jobs")
@click.option("--status", type=click.Choice([status.value for status in Status]), help="Only these.")
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]), help="Only these.")
@click.option("--tag", help="Only jobs with this tag.")
@click.option("-q", "text", metavar="TEXT", help="Only jobs with this in their name or id.")
@click.option(
    "--sort", metavar="ORDER", help="name, duration, val_accuracy, ... as the API has it; - before it: falling."
)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="At most so many.")
@service_options
@click.pass_obj
def list_jobs(
    target: Target,
    status: str | None,
    kind: str | None,
    tag: str | None,
    text: str | None,
    sort: str | None,
    limit: int,
) -> None:
    """List jobs, the newest first."""
    filters = {name: value for name, value in (("status", status), ("kind", kind), ("tag", tag), ("q", text)) if value}
    order = {"sort": sort} if sort else {}
    with target.client() as client:
        found = list(client.list(limit=limit, **filters, **order))
    if target.as_json:
        click.echo(to_json(found))
        return
    console = Console(highlight=False)
    rows = [_row(job) for job in found]
    if not console.is_terminal:
        for row in rows:
            click.echo("\t".join(row))
    elif rows:
        table = Table(box=None, pad_edge=False)
        shown = _LINE_COLUMNS if console.width >= _WIDE else _LINE_COLUMNS[:-1]
        for place, name in enumerate(shown):
            # An id is there to be copied, and a status to be read: only names and metrics may be cut.
            may_be_cut = name in ("NAME", "METRICS")
            whole = None if may_be_cut else max(len(name), *(len(row[place]) for row in rows))
            table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=whole)
        for row in rows:
            table.add_row(*map(escape, row[: len(shown)]))
        console.print(table)
    else:
        click.echo("no jobs yet; make one with: tapeline train SPEC" if not filters else "no such jobs")


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--checkpoint", metavar="best|latest|N", help="Only this checkpoint (N: an epoch), to this folder.")
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to (default: one named after the job's id).",
)
@service_options
@click.pass_obj
def download(target: Target, job_id: str, checkpoint: str | None, to: Path | None) -> None:
    """Fetch a job's files: checkpoints, curves, samples. Each is compared with its SHA-256."""
    with target.client() as client:
        job = client.get(find(client, job_id))
        folder = to or Path(job["id"] if checkpoint is None else ".")
        folder.mkdir(parents=True, exist_ok=True)
        wanted = _files(client, job) if checkpoint is None else [(None, f"{job['urls']['checkpoints']}/{checkpoint}")]
        written = []
        for name, url in wanted:
            path = client.download(url, folder if name is None else folder / name)
            written.append({"path": str(path), "size_bytes": path.stat().st_size})
            if not target.as_json:
                click.echo(f"{path}  {size(path.stat().st_size)}")
    if target.as_json:
        click.echo(to_json(written))
    elif not written and job["status"] in TERMINAL:
        raise Failure(f"job {job['id']} {job['status']} before its first epoch: it has no files")
    elif not written:
        click.echo(f"job {job['id']} has no files yet ({job['status']})")


def _action(name: str, what: str) -> click.Command:
    @click.command(name, help=what)
    @click.argument("job_id", metavar="ID")
    @service_options
    @click.pass_obj
    def act(target: Target, job_id: str) -> None:
        with target.client() as client:
            job = getattr(client, name)(find(client, job_id))
        shown = f"{job['status']}, {job['requested']} requested" if job["requested"] else job["status"]
        click.echo(to_json(job) if target.as_json else f"{job['id']}  {shown}")

    return act


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--checkpoint", default="latest", show_default=True, metavar="best|latest|N", help="N: an epoch.")
@click.option("--set", "values", multiple=True, metavar="FIELD=VALUE", help="For example optimizer.learning_rate=0.01.")
@click.option("--watch", is_flag=True, help="Show how it learns, until it has ended.")
@service_options
@click.pass_obj
def fork(target: Target, job_id: str, checkpoint: str, values: tuple[str, ...], watch: bool) -> None:
    """Make a new job that goes on from a checkpoint of this one, with other values from there on."""
    which = int(checkpoint) if checkpoint.isdecimal() else checkpoint
    with target.client() as client:
        job = client.fork(find(client, job_id), _overrides(values), checkpoint=which)
    _show_new(target, job, watch=watch)


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--watch", is_flag=True, help="Wait for its end; exit code 0 where every bit is the same.")
@service_options
@click.pass_obj
def reproduce(target: Target, job_id: str, watch: bool) -> None:
    """Train a job that succeeded once more, and compare every epoch bit for bit."""
    with target.client() as client:
        job = client.reproduce(find(client, job_id))
    _show_new(target, job, watch=watch)
    if watch:
        with target.client() as client:
            found = client.get(job["id"])["reproduction"]
        if not found["match"]:
            differs = ", ".join(found["first_difference"]["differs"])
            raise Failure(f"epoch {found['first_difference']['epoch']} differs from {found['of']}: {differs}", found)
        if not target.as_json:
            click.echo(f"every bit is that of {found['of']}")


@click.command()
@click.argument("job_id", metavar="ID")
@service_options
@click.pass_obj
def delete(target: Target, job_id: str) -> None:
    """Remove a finished job with all its files."""
    with target.client() as client:
        job_id = find(client, job_id)
        client.delete(job_id)
    if not target.as_json:
        click.echo(f"{job_id}  deleted")


COMMANDS: Final = (
    train,
    watch,
    list_jobs,
    download,
    _action("cancel", "End a waiting job now, a running one between two batches."),
    _action("pause", "Stop a running job between two batches; its last checkpoint stays."),
    _action("resume", "Let a paused job go on from its last checkpoint."),
    _action("retry", "Let a failed job go on from its last checkpoint."),
    fork,
    reproduce,
    delete,
)


def find(client: Client, text: str) -> str:
    """The id of the one job that a person means: a whole id, or a part of an id or of a name that no other has.

    Raises:
        Failure: several jobs have it.
    """
    if len(text) == _ID_WIDTH and text.startswith("job_"):
        return text
    found = list(client.list(limit=2, q=text))
    if len(found) > 1:
        raise Failure(f"several jobs have {text!r} in their id or name; see: tapeline jobs -q {text}")
    return str(found[0]["id"]) if found else text


def size(count: int) -> str:
    """Bytes as a person reads them."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def _show_new(target: Target, job: Mapping[str, Any], *, watch: bool) -> None:
    if not watch:
        click.echo(to_json(job) if target.as_json else job["id"])
        return
    if not target.as_json:
        with target.client() as client:
            # Both fit into a line of a file, but hardly of a terminal.
            between = "\n" if sys.stdout.isatty() else "  "
            click.echo(f"{job['id']}{between}{client.server}{job['urls']['page']}")
    _watch(target, job)


def _overrides(values: Sequence[str]) -> dict[str, Any]:
    """``a.b=1`` as ``{"a": {"b": 1}}``; a value that is not JSON is text."""
    made: dict[str, Any] = {}
    for text in values:
        field, equals, value = text.partition("=")
        *path, last = field.split(".")
        if not equals or not all([*path, last]):
            raise click.UsageError(f"--set wants FIELD=VALUE, not {text!r}")
        place = made
        for name in path:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise click.UsageError(f"--set {text!r}: {name} has a value already")
        try:
            place[last] = json.loads(value)
        except ValueError:
            place[last] = value
    return made


def _watch(target: Target, job: Mapping[str, Any]) -> None:
    if target.as_json:
        status, error = job["status"], job.get("error")
        with target.client() as client:
            for event in client.stream(job["id"]):
                click.echo(json.dumps({"seq": event.seq, "type": event.type, "data": event.data}))
                if event.type in ("snapshot", "end"):
                    status, error = event.data["status"], event.data.get("error")
    else:
        watched = Watched.of(job)
        with display_of([watched], Console(highlight=False)) as display:
            follow(target.client, [watched], display)
        status, error = watched.status, watched.error
    if status != Status.SUCCEEDED:
        why = f": {explain(error)}" if error else ""
        raise Failure(f"job {job['id']} {status}{why}", dict(error) if error else None)


def _files(client: Client, job: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    """All files of a job: the names they get on disk, and where they are."""
    results = client.results(job["id"])
    files: list[tuple[str | None, str]] = [
        (safe_name(artifact["name"]), artifact["url"]) for artifact in results["artifacts"]
    ]
    files += [(safe_name(f"{name}.png"), url) for name, url in results["plots"].items()]
    if results["samples"]["film"]:
        files.append(("samples.gif", results["samples"]["film"]))
    return files


def _row(job: Mapping[str, Any]) -> tuple[str, ...]:
    watched = Watched.of(job)
    values = " ".join(f"{name} {value}" for name, value in watched.values())
    if watched.error:
        values = str(watched.error["code"])
    return (
        job["id"],
        job["kind"],
        watched.state,
        f"{watched.epoch}/{watched.epochs}",
        job["name"] or "",
        values,
    )


def to_json(document: Any) -> str:
    """A document for machines, which people can read too."""
    return json.dumps(document, indent=2, ensure_ascii=False, default=dict)
