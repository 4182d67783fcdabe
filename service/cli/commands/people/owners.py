"""The commands about the queue and owners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
from rich.table import Column

from service.cli.derived import Terminal, group, option
from service.cli.target import Target, with_target
from service.cli.text import about, print_table, short_ids
from service.owner_limits import arranged
from service.spec.metric_info import size
from service.wording import counted, ordinal, rounded

if TYPE_CHECKING:
    from tapeline import Client

_LIMITS: Final = {
    limit.name: limit
    for limit in arranged(
        [
            "weight",
            "max_priority",
            "running_jobs",
            "queued_jobs",
            "cpu_seconds",
            "artifact_bytes",
            "dataset_bytes",
            "upload_bytes_per_day",
        ]
    )
}


@click.command()
@click.option("--all", "everybody", is_flag=True, help="Also count the jobs of each owner (scope admin).")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="Maximum number of jobs.")
@with_target
def queue(target: Target, everybody: bool, limit: int) -> None:
    """Show your queued jobs, when they are expected to start, and why they wait.

    Position and start are estimates: owners share the slots, and your place moves as others submit jobs. AHEAD counts
    your own jobs and those of others.
    """
    with target.client() as client:
        queued = client.queue(limit=limit)
        items = client.owners() if everybody else []
    if target.prints(queued):
        return
    jobs = queued["data"]
    if jobs:
        titles = ("ID", "NAME", "POSITION", "AHEAD", "WAITED", "STARTS")
        columns = [Column(title, no_wrap=title != "NAME", overflow="fold") for title in titles]
        ids = short_ids([job["id"] for job in jobs])
        print_table(columns, [(job_id, *_place(job)) for job_id, job in zip(ids, jobs, strict=True)])
    if queued["own"] > len(jobs):
        click.echo(f"and {counted(queued['own'] - len(jobs), 'more job')}; for more: --limit N", err=True)
    if queued["reason_text"]:
        click.echo(queued["reason_text"])
    elif not jobs and not everybody:
        click.echo("none of your jobs waits")
    if everybody:
        _print_counts([item for item in items if item["running"] or item["queued"]])


def _print_counts(items: Sequence[Mapping[str, Any]]) -> None:
    """The jobs of each owner who has any, most queued first."""
    if not items:
        click.echo("no job is queued or running")
        return
    titles = ("OWNER", "NAME", "RUNNING", "QUEUED")
    columns = [
        Column(title, overflow="fold", justify="left" if index < 2 else "right") for index, title in enumerate(titles)
    ]
    rows = sorted(items, key=lambda item: (-item["queued"], -item["running"], item["id"]))
    print_table(
        columns,
        [(item["id"], item["display_name"] or "", f"{item['running']:,}", f"{item['queued']:,}") for item in rows],
    )


def _place(job: Mapping[str, Any]) -> tuple[str, ...]:
    """A queued job as columns, after its id."""
    ahead, start = job["ahead"], job["estimated_start_at"]
    wait_s = (datetime.fromisoformat(start) - datetime.now(UTC)).total_seconds() if start is not None else None
    return (
        job["name"] or job["kind"],
        "-" if job["position"] is None else f"about {ordinal(job['position'])}" if job["position"] > 1 else "next",
        f"own {ahead['own']:,}" + (f", others {ahead['others']:,}" if ahead["others"] is not None else ""),
        about(job["waited_seconds"]),
        "-" if wait_s is None else "soon" if wait_s < 1 else f"in about {about(wait_s)}",
    )


def _id_of(client: Client, owner: str) -> str:
    return "-" if owner == "everybody" else owner


def _rows(item: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    limits, own = item["limits"], item["settings"]
    rows = [
        ("Owner", item["id"] if item["id"] != "-" else "- (everybody without a key)"),
        *([("Name", item["display_name"])] if item["display_name"] else []),
        ("Jobs", f"{item['running']:,} running, {item['queued']:,} queued"),
        *([("Waits", f"its jobs wait: {item['blocked']}")] if item["blocked"] else []),
        ("Share", counted(1, "slot") if item["share"] == 1 else f"{rounded(item['share'])} slots"),
    ]
    for name in dict.fromkeys([*_LIMITS, *limits]):
        title = _LIMITS[name].title if name in _LIMITS else name.replace("_", " ").capitalize()
        value = limits[name]
        text = "no limit" if value is None else size(value) if "bytes" in name else rounded(value)
        rows.append((title, f"{text} (default)" if own[name] is None else text))
    return rows


owners: Final = group(
    Terminal(
        "owners",
        "owners",
        """List owners with their shares, or show or change one (scope admin).

        An owner is known by a key, a job or its own settings. OWNER - (or everybody) is everybody without a key. CAP
        is the most jobs that run at a time (--running-jobs), SHARE the slots that an owner may expect while all others
        wait as they do now.
        """,
        hidden=("limit",),
        columns={
            "OWNER": "id",
            "NAME": lambda item: item["display_name"] or "",
            "WEIGHT": lambda item: rounded(item["limits"]["weight"]),
            "CAP": lambda item: f"{item['limits']['running_jobs'] or '-'}",
            "SHARE": lambda item: rounded(item["share"]),
            "RUNNING": "running",
            "QUEUED": lambda item: f"{item['queued']:,}" + (f" ({item['blocked']})" if item["blocked"] else ""),
        },
        right=("WEIGHT", "CAP", "SHARE", "RUNNING", "QUEUED"),
    ),
    Terminal(
        "show",
        "owner",
        "Show an owner: jobs, share and limits.",
        metavars={"owner_id": "OWNER"},
        find=_id_of,
        rows=_rows,
    ),
    Terminal(
        "set",
        "change_owner",
        """Change an owner. A change takes effect within two seconds, without a restart.

        The value "default" sets the default of the service again; 0 is no limit of a quota. A lower highest priority
        lowers that of unfinished jobs.
        """,
        metavars={"owner_id": "OWNER"},
        options={
            "display_name": option("--name", help="Name for people, in any script."),
            **{name: option(metavar="N", help=limit.help) for name, limit in _LIMITS.items()},
        },
        find=_id_of,
        rows=_rows,
        example="--weight 2",
        default_word="default",
    ),
)
