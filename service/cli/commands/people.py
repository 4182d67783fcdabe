"""The commands about the queue, owners, share links and webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click
from rich.table import Column

from service.cli.target import (
    Command,
    Target,
    confirm_deletion,
    job_argument,
    parse_duration_s,
    service_options,
    with_target,
    yes_option,
)
from service.cli.text import about, owner_names, print_rows, print_table, short_ids, with_owners
from service.spec.metric_info import size
from service.wording import counted, ordinal, rounded

_DEFAULT: Final = "default"
_LIMITS: Final = {
    "weight": ("Weight", "Share of the slots, relative to other owners: 2 is twice as many as 1."),
    "max_priority": ("Highest priority", "Highest priority of jobs, 0 to 9; from 6 on they go before everybody's."),
    "running_jobs": ("Running jobs", "The most jobs that run at a time."),
    "queued_jobs": ("Queued jobs", "Quota: queued jobs."),
    "cpu_seconds": ("CPU seconds in 30 days", "Quota: CPU seconds of all jobs in 30 days."),
    "artifact_bytes": ("Files of jobs", "Quota: bytes of the files of all jobs."),
    "dataset_bytes": ("Datasets", "Quota: bytes of all datasets."),
    "upload_bytes_per_day": ("Uploads per day", "Quota: uploaded bytes per day."),
    "requests_per_minute": ("Requests per minute", "Quota: requests per minute."),
    "streams": ("Open streams", "Quota: open streams per web process."),
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


@click.group(invoke_without_command=True)
@service_options
@click.pass_context
def owners(context: click.Context) -> None:
    """List owners with their shares, or show or change one (scope admin).

    An owner is known by a key, a job or its own settings. OWNER - (or everybody) is everybody without a key. CAP is
    the most jobs that run at a time (--running-jobs), SHARE the slots that an owner may expect while all others wait
    as they do now.
    """
    if context.invoked_subcommand is not None:
        return
    target = context.ensure_object(Target)
    with target.client() as client:
        items = client.owners()
    if target.prints(items):
        return
    titles = ("OWNER", "NAME", "WEIGHT", "CAP", "SHARE", "RUNNING", "QUEUED")
    columns = [
        Column(title, overflow="fold", justify="left" if index < 2 else "right") for index, title in enumerate(titles)
    ]
    print_table(
        columns,
        [
            (
                item["id"],
                item["display_name"] or "",
                rounded(item["limits"]["weight"]),
                f"{item['limits']['running_jobs'] or '-'}",
                rounded(item["share"]),
                f"{item['running']:,}",
                f"{item['queued']:,}" + (f" ({item['blocked']})" if item["blocked"] else ""),
            )
            for item in items
        ],
    )


@owners.command("show")
@click.argument("owner")
@with_target
def show_owner(target: Target, owner: str) -> None:
    """Show an owner: jobs, share and limits."""
    with target.client() as client:
        item = client.owner(_id_of(owner))
    _show_owner(target, item)


def _limit_options(command: Command) -> Command:
    for name, (_, meaning) in reversed(_LIMITS.items()):
        command = click.option(f"--{name.replace('_', '-')}", metavar="N", help=meaning)(command)
    return command


@owners.command("set")
@click.argument("owner")
@click.option("--name", "display_name", help="Name for people, in any script.")
@_limit_options
@with_target
def set_owner(target: Target, owner: str, **options: str | None) -> None:
    """Change an owner. A change takes effect within two seconds, without a restart.

    The value "default" sets the default of the service again; 0 is no limit of a quota. A lower highest priority lowers
    that of unfinished jobs.
    """
    changes: dict[str, Any] = {name: _value(name, text) for name, text in options.items() if text is not None}
    if not changes:
        raise click.UsageError("nothing to change: give an option, such as --weight 2")
    with target.client() as client:
        item = client.change_owner(_id_of(owner), **changes)
    _show_owner(target, item)


def _show_owner(target: Target, item: Mapping[str, Any]) -> None:
    if target.prints(item):
        return
    limits, own = item["limits"], item["settings"]
    rows = [
        ("Owner", item["id"] if item["id"] != "-" else "- (everybody without a key)"),
        *([("Name", item["display_name"])] if item["display_name"] else []),
        ("Jobs", f"{item['running']:,} running, {item['queued']:,} queued"),
        *([("Waits", f"its jobs wait: {item['blocked']}")] if item["blocked"] else []),
        ("Share", counted(1, "slot") if item["share"] == 1 else f"{rounded(item['share'])} slots"),
    ]
    for name, (title, _) in _LIMITS.items():
        value = limits[name]
        text = "no limit" if value is None else size(value) if "bytes" in name else rounded(value)
        rows.append((title, f"{text} (default)" if own[name] is None else text))
    print_rows(rows)


def _value(name: str, text: str) -> str | float | int | None:
    """The value of an option, which the service checks further."""
    if text == _DEFAULT:
        return None
    if name == "display_name":
        return text
    try:
        return float(text) if name == "weight" else int(text)
    except ValueError:
        option, kind = f"--{name.replace('_', '-')}", "number" if name == "weight" else "whole number"
        raise click.UsageError(f"{option} is {text!r}: give a {kind}, or {_DEFAULT!r}") from None


def _id_of(owner: str) -> str:
    return "-" if owner == "everybody" else owner


@click.command()
@job_argument
@click.argument("other", metavar="[JOB]", required=False)
@click.option("--expires", metavar="TIME", help="When the link stops working, for example 30d, 12h or 30m.")
@with_target
def share(target: Target, job_text: str, other: str | None, expires: str | None) -> None:
    """Print a link with which anybody may read a job or a sweep, or the comparison of two, without a key.

    It shows metrics, plots, settings and files of the model, but no examples of the dataset, and permits no change.
    `tapeline shares` lists the links, `tapeline shares revoke ID` revokes one.
    """
    lifetime_s = parse_duration_s("--expires", expires) if expires is not None else None
    end = datetime.now(UTC) + timedelta(seconds=lifetime_s) if lifetime_s is not None else None
    with target.client() as client:
        sides = [target.find_side(client, text) for text in (job_text, other) if text is not None]
        shared = client.share(*sides, expires_at=end)
    target.echo(shared, shared["url"])


@click.group(invoke_without_command=True)
@click.option("--owner", metavar="OWNER", help="Links of this owner, or of all with '*' (scope admin).")
@service_options
@click.pass_context
def shares(context: click.Context, owner: str | None) -> None:
    """List your share links, newest first, or revoke one."""
    if context.invoked_subcommand is not None:
        return
    target = context.ensure_object(Target)
    with target.client() as client:
        links = client.shares(owner=owner)
        if target.prints(links):
            return
        owner_of = owner_names(client, links)
    columns = [Column(title, overflow="fold", no_wrap=title == "ID") for title in ("ID", "SHOWS", "CREATED", "EXPIRES")]
    rows = [(link["id"], link["path"], link["created_at"][:10], (link["expires_at"] or "never")[:10]) for link in links]
    if rows:
        print_table(*with_owners(columns, rows, owner_of))
    else:
        click.echo("no links; create one with: tapeline share JOB", err=True)


@shares.command("revoke")
@click.argument("share_id", metavar="ID")
@with_target
def revoke_share(target: Target, share_id: str) -> None:
    """Revoke a share link. It stops working at once."""
    with target.client() as client:
        client.revoke_share(share_id)
    target.echo({"id": share_id, "revoked": True}, f"{share_id}  revoked")


@click.group(invoke_without_command=True)
@click.option("--owner", metavar="OWNER", help="Webhooks of this owner, or of all with '*' (scope admin).")
@service_options
@click.pass_context
def webhooks(context: click.Context, owner: str | None) -> None:
    """List your webhooks, or create, test, change or delete one.

    A webhook is a URL to which Tapeline posts a signed message when a job or sweep ends, a job pauses, an alias moves,
    a quota is exceeded or a worker is lost.
    """
    if context.invoked_subcommand is not None:
        return
    target = context.ensure_object(Target)
    with target.client() as client:
        items = client.webhooks(owner=owner)
        if target.prints(items):
            return
        owner_of = owner_names(client, items)
    columns = [Column(title, overflow="fold", no_wrap=title == "ID") for title in ("ID", "URL", "STATE", "EVENTS")]
    rows = [(item["id"], item["url"], _state(item), ", ".join(item["events"])) for item in items]
    if rows:
        print_table(*with_owners(columns, rows, owner_of))
    else:
        click.echo("no webhooks; create one with: tapeline webhooks create URL", err=True)


def _state(item: Mapping[str, Any]) -> str:
    if not item["enabled"]:
        return f"disabled: {item['disabled_reason']}"
    return f"failing: {item['failures']} attempts in a row" if item["held_until"] else "enabled"


@webhooks.command("create")
@click.argument("url")
@click.option(
    "--on",
    "events",
    metavar="TYPE",
    multiple=True,
    default=("job.failed", "sweep.ended"),
    show_default=True,
    help="Type of event to send, such as job.succeeded; repeatable.",
)
@click.option("--description", help="Free text.")
@with_target
def create_webhook(target: Target, url: str, events: tuple[str, ...], description: str | None) -> None:
    """Create a webhook, and print its secret, which is shown once."""
    with target.client() as client:
        created = client.create_webhook(url, events, description=description)
    _print_secret(target, created)


@webhooks.command("rotate")
@click.argument("webhook_id", metavar="ID")
@with_target
def rotate_webhook(target: Target, webhook_id: str) -> None:
    """Replace the secret of a webhook, and print the new one. For 24 hours, messages have the signatures of both."""
    with target.client() as client:
        rotated = client.rotate_webhook(webhook_id)
    _print_secret(target, rotated)


def _print_secret(target: Target, item: Mapping[str, Any]) -> None:
    if not target.prints(item):
        rows = [("Webhook", item["id"]), ("URL", item["url"]), ("Secret", item["secret"])]
        print_rows([*rows, ("Public key", item["public_key"])])
        click.echo("The secret is shown once: store it where the messages are received.", err=True)


@webhooks.command("deliveries")
@click.argument("webhook_id", metavar="ID")
@click.option("--status", type=click.Choice(["pending", "delivered", "failed"]), help="Only such messages.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 200), help="Maximum number of messages.")
@with_target
def show_deliveries(target: Target, webhook_id: str, **options: Any) -> None:
    """List the messages to a webhook, newest first, with the last response to each."""
    with target.client() as client:
        messages = client.webhook_deliveries(webhook_id, **options)
    if target.prints(messages):
        return
    titles = ("ID", "TYPE", "ABOUT", "CREATED", "STATUS", "ATTEMPTS", "LAST RESPONSE")
    columns = [Column(title, overflow="fold", no_wrap=title == "ID") for title in titles]
    if messages:
        print_table(columns, [_message(item) for item in messages])
    else:
        click.echo("no messages; to send one: tapeline webhooks test ID", err=True)


def _message(item: Mapping[str, Any]) -> tuple[str, ...]:
    """A message as a row of a table."""
    data, attempts = item["payload"]["data"], item["attempts"]
    created = item["created_at"][:19].replace("T", " ")
    about_it = data["name"] or data["id"]
    return item["id"], item["type"], about_it, created, item["status"], str(len(attempts)), _last_answer(item)


def _last_answer(item: Mapping[str, Any]) -> str:
    if not item["attempts"]:
        return "-"
    last = item["attempts"][-1]
    return str(last["error"] or last["status"])


@webhooks.command("test")
@click.argument("webhook_id", metavar="ID")
@with_target
def test_webhook(target: Target, webhook_id: str) -> None:
    """Send a message of the type webhook.test, and wait up to half a minute for the response."""
    with target.client() as client:
        sent = client.test_webhook(webhook_id, timeout_s=30)
    answer = (
        _last_answer(sent)
        if sent["attempts"]
        else "not sent within 30 s: check the scheduler with `tapeline doctor` on the server"
    )
    target.echo(sent, f"{sent['id']}  {sent['status']}: {answer}")
    if sent["status"] != "delivered":
        raise click.exceptions.Exit(1)


@webhooks.command("redeliver")
@click.argument("webhook_id", metavar="ID")
@click.argument("delivery_id", metavar="DELIVERY")
@with_target
def redeliver(target: Target, webhook_id: str, delivery_id: str) -> None:
    """Send a message again, or at once if it waits."""
    with target.client() as client:
        item = client.redeliver(webhook_id, delivery_id)
    target.echo(item, f"{item['id']}  {item['status']}")


@webhooks.command("set")
@click.argument("webhook_id", metavar="ID")
@click.option("--url", help="Where messages are sent.")
@click.option(
    "--on",
    "events",
    metavar="TYPE",
    multiple=True,
    help="Types of events to send, in place of the present ones; repeatable.",
)
@click.option("--description", help="Free text.")
@click.option("--enable/--disable", "enabled", default=None, help="Enable (pending messages are sent) or disable it.")
@with_target
def set_webhook(target: Target, webhook_id: str, **options: Any) -> None:
    """Change a webhook, disable it, or enable it again."""
    changes = {name: value for name, value in options.items() if value not in (None, ())}
    if not changes:
        raise click.UsageError("nothing to change: give an option, such as --on job.failed")
    with target.client() as client:
        item = client.change_webhook(webhook_id, **changes)
    target.echo(item, f"{item['id']}  {_state(item)}")


@webhooks.command("delete")
@click.argument("webhook_id", metavar="ID")
@yes_option
@with_target
def delete_webhook(target: Target, webhook_id: str, yes: bool) -> None:
    """Delete a webhook with its messages, also those that were not delivered."""
    with target.client() as client:
        confirm_deletion(f"the webhook {webhook_id} with its messages", yes=yes)
        client.delete_webhook(webhook_id)
    target.echo({"id": webhook_id, "deleted": True}, f"{webhook_id}  deleted")
