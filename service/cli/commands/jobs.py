"""The commands that list jobs and workers, and those that open, download and change jobs."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli import COMMANDS
from service.cli.target import (
    Failure,
    Target,
    check_whole,
    complete_datasets,
    confirm_deletion,
    job_argument,
    parse_duration_s,
    with_target,
    yes_option,
)
from service.cli.text import (
    STOPPED,
    duration,
    duration_s,
    join_fitting,
    key_metrics,
    owner_names,
    short_ids,
    state,
    state_style,
    status_text,
    visible,
)
from service.spec.metric_info import KEY_METRICS, METRICS, describe, number, size
from service.states import TERMINAL, ListedStatus, TrialStatus
from service.wording import counted, value_text
from tapeline import Client
from tapeline.operations.lookup import age

_ENDED_TRIALS: Final = (TrialStatus.SUCCEEDED, TrialStatus.STOPPED, TrialStatus.FAILED)
_STATUSES: Final = tuple(status.value for status in ListedStatus)
_MIN_WIDTH_WITH_IDS: Final = 130
"""Minimum terminal width for full ids."""
_MIN_WIDTH_WITH_TIMES: Final = 76
"""Minimum terminal width for age and the time from start to end."""
_COLUMNS: Final = ("ID", "KIND", "STATUS", "EPOCH", "NAME", "LAST EPOCH", "SUBMITTED", "TOOK (S)")
"""Titles of the columns in a pipe."""
_SHOWN_ORDERS: Final = ("created_at", "started_at", "finished_at", "name", "status", "duration", "epoch")
"""Orders whose values are in a column anyway, or of which there is a similar one."""
_MIN_NAME_WIDTH: Final = 10
_MAX_NAME_WIDTH: Final = 32
_MAX_OWNER_WIDTH: Final = 16
_MIN_METRICS_WIDTH: Final = 22
"""Width of the longest label and value of a classifier's first metric."""
_NEEDS_MORE: Final = (
    "\n\nA job that has used its budget needs a larger one: --budget counts the CPU seconds since its first start."
)
_budget_option: Final = click.option(
    "--budget", type=float, metavar="SECONDS", help="Set the budget of CPU seconds first."
)


@click.command("jobs")
@click.option("--status", type=click.Choice(_STATUSES), help="Only jobs in this state; stopped: by their sweeps.")
@click.option("--kind", type=click.Choice(tuple(KEY_METRICS)), help="Only jobs of this kind.")
@click.option("--tag", help="Only jobs with this tag.")
@click.option("--folds", "fold_group", metavar="GROUP", help="Only the jobs of this cross-validation.")
@click.option("--owner", metavar="OWNER", help="Jobs of this owner, or of all with '*' (scope admin).")
@click.option("--dataset", metavar="NAME", shell_complete=complete_datasets, help="Only jobs on this dataset.")
@click.option("--starred", is_flag=True, help="Only starred jobs.")
@click.option("--since", metavar="7d", help="Only jobs that were submitted in this time, such as 7d, 12h or 30m.")
@click.option("-q", metavar="TEXT", help="Only jobs with TEXT in their name, id, tags or note.")
@click.option(
    "--sort",
    metavar="ORDER",
    help="For example created_at, name, duration, val_accuracy (of the last epoch) or best:val_accuracy; prefix - for "
    "descending order.",
)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="Maximum number of jobs.")
@click.option("--all", "everything", is_flag=True, help="Also list every job of a sweep.")
@with_target
def list_jobs(
    target: Target,
    sort: str | None,
    limit: int,
    everything: bool,
    starred: bool,
    since: str | None,
    **options: str | None,
) -> None:
    """List jobs, newest first. A terminal shows the end of each id; every command accepts it.

    In a terminal, a sweep is one line, with the number of ended trials as EPOCH and the best value; with --all, another
    order or a filter, its jobs are listed instead.

    TOOK is the time from the first start to the end, or until now, pauses included; tapeline show also has the time
    in finished epochs. METRICS begins with the findings of a job, such as mode collapse. If the output is not a
    terminal, it has a line of titles and one tab-separated line per job, with the full id, the time of submission,
    and TOOK in seconds. If several owners have jobs in it, a last column has their names.
    """
    with target.client() as client:
        filters = {name: value for name, value in options.items() if value}
        filters |= {"starred": "true"} if starred else {}
        if since is not None:
            start = datetime.now(UTC) - timedelta(seconds=parse_duration_s("--since", since))
            filters["created_since"] = start.isoformat()
        column = (sort or "").removeprefix("-")
        shown = {"columns": column} if column and column not in _SHOWN_ORDERS else {}
        folds_sweeps = not (everything or target.as_json or filters.keys() - {"owner"} or sort) and sys.stdout.isatty()
        folded = {"one_per_sweep": "true"} if folds_sweeps else {}
        jobs: Sequence[Mapping[str, Any]] = list(client.jobs(limit=limit + 1, sort=sort, **filters, **folded, **shown))
        jobs, has_more = jobs[:limit], len(jobs) > limit
        if folds_sweeps:
            jobs = _with_sweeps(client, jobs, owner=filters.get("owner"))
        if target.prints(jobs):
            return
        owners = [visible(name) for name in owner_names(client, jobs)]
    console = Console(highlight=False)
    if not console.is_terminal:
        lines = [_COLUMNS, *map(_line, jobs)] if jobs else []
        if owners:
            lines = [(*line, name) for line, name in zip(lines, ("OWNER", *owners), strict=True)]
        for cells in lines:
            click.echo("\t".join(cells))
    elif jobs:
        console.print(_table(jobs, owners, console.width))
        if has_more:
            console.print(f"[dim]First {limit} jobs; for more: --limit {max(100, 5 * limit)}[/]")
    else:
        click.echo("no jobs match" if filters else "no jobs yet; submit one with: tapeline train --dataset mnist-10k")


@click.command("open")
@job_argument
@with_target
def open_page(target: Target, job_text: str) -> None:
    """Open the page of a job in the browser, and print its URL."""
    with target.job(job_text) as job:
        page = job.page
    if target.prints({"id": job.id, "url": page}):
        return
    click.echo(page)
    if sys.stdout.isatty() and _has_desktop():
        webbrowser.open(page)


@click.command()
@job_argument
@click.option("--checkpoint", metavar="best|latest|N", help="Only this checkpoint (N is an epoch number).")
@click.option(
    "--to",
    type=click.Path(file_okay=False, path_type=Path),
    help="Target folder (default: one named after the job's id; with --checkpoint the current folder).",
)
@with_target
def download(target: Target, job_text: str, checkpoint: str | None, to: Path | None) -> None:
    """Download a job's files: checkpoints, curves, samples. SHA-256 checksums are verified."""
    with target.client() as client:
        job = target.find(client, job_text)
        folder = to or Path(job.id if checkpoint is None else ".")
        files: Sequence[tuple[str | None, str]] = [(None, f"{job['urls']['checkpoints']}/{checkpoint}")]
        if checkpoint is None:
            files = job.files()
        if files:
            folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, url in files:
            path = client.download(url, folder if name is None else folder / name)
            written.append({"path": str(path), "size_bytes": path.stat().st_size})
            if not target.as_json:
                click.echo(f"{path}  {size(path.stat().st_size)}")
    if not written and job.status in TERMINAL:
        raise Failure(f"job {job.id} {job.status} before its first epoch: it has no files")
    if not target.prints(written) and not written:
        remedy = f"wait for its first epoch with: tapeline watch {job.id}"
        click.echo(f"job {job.id} has no files yet ({job.status}); {remedy}", err=True)


def _with_sweeps(
    client: Client, jobs: Sequence[Mapping[str, Any]], *, owner: str | None
) -> Sequence[Mapping[str, Any]]:
    """The list with a line for a sweep in place of each job of one; both are sorted by time."""
    wanted = {job["sweep_id"]: job for job in jobs if job["sweep_id"]}
    sweeps: dict[str, Mapping[str, Any]] = {}
    for sweep in client.sweeps(owner=owner) if wanted else ():
        if sweep.id in wanted:
            sweeps[sweep.id] = {**wanted[sweep.id], **_sweep_line(sweep)}
        if len(sweeps) == len(wanted):
            break
    return [sweeps.get(job["sweep_id"], job) for job in jobs]


def _sweep_line(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """What the line of a sweep shows in place of the fields of its first job."""
    trials = sweep["trials"]
    best = {sweep["objective"]["metric"]: sweep["best_value"]} if sweep["best_trial"] is not None else {}
    return {
        **{name: sweep[name] for name in ("id", "status", "created_at", "finished_at")},
        "name": f"{sweep['name'] or 'sweep'}, {counted(trials['total'], 'trial')}",
        "progress": {"epoch": sum(trials[name] for name in _ENDED_TRIALS), "epochs": trials["total"]},
        "kind": "sweep",
        "metrics": best,
        "started_at": sweep["created_at"],
        "requested": None,
        "stopped_by_sweep": False,
        "starred": False,
        "error": sweep["error"],
        "health": [],
    }


def _table(jobs: Sequence[Mapping[str, Any]], owners: Sequence[str], width: int) -> Table:
    """Jobs as a table that shows at least one metric at 80 columns."""
    ids, id_style = [str(job["id"]) for job in jobs], ""
    if width < _MIN_WIDTH_WITH_IDS:
        ids, id_style = short_ids(ids), "dim"
    columns: dict[str, list[Text]] = {
        "ID": [Text(text, id_style) for text in ids],
        "NAME": [],
        "OWNER": [Text(name) for name in owners],
        "STATUS": [Text(state(job), state_style(job)) for job in jobs],
        "EPOCH": [Text(f"{job['progress']['epoch']}/{job['progress']['epochs']}") for job in jobs],
        "LAST EPOCH": [],
        "AGE": [Text(age(job)) for job in jobs],
        "TOOK": [Text(duration(job)) for job in jobs],
    }
    for owner in columns["OWNER"]:
        owner.truncate(_MAX_OWNER_WIDTH, overflow="ellipsis")
    if not owners:
        del columns["OWNER"]
    if width < _MIN_WIDTH_WITH_TIMES + (_MAX_OWNER_WIDTH if owners else 0):
        del columns["AGE"], columns["TOOK"]
    names = [visible(str(job["name"] or job["kind"])) for job in jobs]
    widths = {title: max(len(title), *(text.cell_len for text in cells)) for title, cells in columns.items() if cells}
    available_width = width - sum(column_width + 2 for column_width in widths.values()) - 2  # for names and metrics
    longest_name = max(map(cell_len, names))
    widths["NAME"] = max(min(longest_name, _MAX_NAME_WIDTH, available_width - _MIN_METRICS_WIDTH), _MIN_NAME_WIDTH)
    for job, name in zip(jobs, names, strict=True):
        columns["NAME"].append(Text(("* " if job["starred"] else "") + name, "" if job["name"] else "dim"))
        values = _metrics(job)
        mark, metrics_width = Text(_mark(job), "red" if job["error"] else "yellow"), available_width - widths["NAME"]
        metrics = "" if job["error"] else join_fitting(values, metrics_width - len(mark) - 2 * bool(mark))
        fits = not mark or len(mark) + 2 + len(metrics) <= metrics_width
        columns["LAST EPOCH"].append(Text("  ").join([part for part in (mark, Text(metrics if fits else "")) if part]))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        justify: Any = "right" if title in ("EPOCH", "AGE", "TOOK") else "left"
        max_width = widths["NAME"] if title == "NAME" else None
        table.add_column(
            title, no_wrap=True, overflow="ellipsis", min_width=widths.get(title), max_width=max_width, justify=justify
        )
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*cells)
    return table


def _metrics(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Labels and values: of the column that the list is sorted by, and of the key metrics of the last epoch."""
    sorted_by = []
    for name, value in job.get("columns", {}).items():
        prefix, colon, metric = name.rpartition(":")
        label = f"{prefix} {describe(metric).label}" if colon else describe(name).label if name in METRICS else name
        text = number(metric, value) if isinstance(value, float) or value is None else value_text(value)
        sorted_by.append((label, text))
    names = [name for name in KEY_METRICS.get(job["kind"], tuple(job["metrics"])) if name not in job.get("columns", {})]
    return sorted_by + key_metrics(job["metrics"], names)


def _mark(job: Mapping[str, Any]) -> str:
    """The error of a job or, as on the page, its findings: ``mode collapse, diverging``."""
    codes = [job["error"]["code"]] if job["error"] else [finding["code"] for finding in job["health"]]
    return ", ".join(str(code).replace("_", " ") for code in codes)


def _line(job: Mapping[str, Any]) -> tuple[str, ...]:
    """A job as tab-separated columns."""
    values = "  ".join(f"{label} {value}" for label, value in _metrics(job))
    seconds = duration_s(job)
    return (
        job["id"],
        job["kind"],
        f"{job['status']}, {STOPPED}" if job["stopped_by_sweep"] else status_text(job["status"], job["requested"]),
        f"{job['progress']['epoch']}/{job['progress']['epochs']}",
        visible(job["name"] or ""),
        str(job["error"]["code"]) if job["error"] else "  ".join(filter(None, (_mark(job), values))),
        job["created_at"],
        "" if seconds is None else f"{seconds:.1f}",
    )


def _has_desktop() -> bool:
    """Whether a graphical browser is available, not just a text browser that would occupy the terminal."""
    return sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME")
    )


def _action(name: str, *, continues: bool = False) -> click.Command:
    """The command of an action on a job; one that continues it can set its budget first."""

    @with_target
    def act(target: Target, job_text: str, budget: float | None = None) -> None:
        with target.job(job_text) as job:
            if budget is not None:
                job.change(budget={"seconds": budget})
            getattr(job, name)()
        target.echo(job, f"{job.id}  {status_text(job.status, job['requested'])}")

    text = f"{COMMANDS[name][1]}{_NEEDS_MORE if continues else ''}"
    return click.command(name, help=text)(job_argument(_budget_option(act) if continues else act))


@click.command()
@job_argument
@click.option("--remove", is_flag=True, help="Remove the star.")
@with_target
def star(target: Target, job_text: str, remove: bool) -> None:
    """Star a job. Lists mark starred jobs."""
    with target.job(job_text) as job:
        job.change(starred=not remove)
    target.echo(job, f"{job.id}  {'star removed' if remove else 'starred'}")


@click.command()
@job_argument
@click.argument("text", required=False)
@click.option("--remove", is_flag=True, help="Remove the note.")
@with_target
def note(target: Target, job_text: str, text: str | None, remove: bool) -> None:
    """Set or show the note of a job: with TEXT, set it; without TEXT, print it."""
    if text is not None and remove:
        raise click.UsageError("give TEXT or --remove, not both")
    with target.job(job_text) as job:
        if text is None and not remove:
            target.echo({"id": job.id, "note": job.get("note")}, job.get("note") or "")
            return
        job.change(note=text)
    target.echo(job, f"{job.id}  {'note removed' if remove else 'note saved'}")


@click.command()
@job_argument
@yes_option
@with_target
def delete(target: Target, job_text: str, yes: bool) -> None:
    """Delete an ended job with all its files. JOB is its whole id or name."""
    with target.client() as client:
        match = client.look_up(job_text)
        job = match.job
        check_whole("job", job_text, job.id, job.name)
        if match.namesakes > 1:
            raise click.UsageError(
                f"{match.namesakes} jobs are named {job_text!r}: give the id, of the newest {job.id}"
            )
        named = f"{job.id} ({job.name})" if job.name else job.id
        confirm_deletion(f"the job {named} with all its files", yes=yes)
        job.delete()
    target.echo({"id": job.id, "deleted": True}, f"{job.id}  deleted")


cancel = _action("cancel")
pause = _action("pause")
resume = _action("resume", continues=True)
retry = _action("retry", continues=True)
