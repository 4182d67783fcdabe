"""``tapeline audit``: reads the audit log directly from the database."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import click
from rich.table import Column

from service.access import audit as audit_log
from service.access import audit_file, audit_seals
from service.access.audit import AuditAction
from service.access.audit_chain import Verification
from service.access.audit_chain import verify as verify_chain
from service.cli.commands.keys import open_database, time_text
from service.cli.errors import Failure
from service.cli.text import print_table
from service.storage.tables import AuditEntry
from service.wording import counted
from tapeline.downloads import complete_file


@click.group(invoke_without_command=True)
@click.option("--owner", help="Only actions of this owner's keys.")
@click.option(
    "--action",
    type=click.Choice([action.value for action in AuditAction]),
    metavar="ACTION",
    help=f"Only this action: {', '.join(AuditAction)}.",
)
@click.option("--subject", metavar="ID", help="Only actions on this job, key or dataset.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="Maximum number of entries."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per line.")
@click.pass_context
def audit(
    context: click.Context, owner: str | None, action: str | None, subject: str | None, limit: int, as_json: bool
) -> None:
    """Show the audit log: changes to jobs, datasets and keys, and sign-ins, newest last.

    Run it on the machine that hosts the service, with the same environment.
    """
    if context.invoked_subcommand is not None:
        return
    with open_database() as database, database.read() as session:
        rows = audit_log.read(session, owner=owner, action=action, subject=subject, limit=limit)[::-1]
    if as_json:
        for row in rows:
            click.echo(json.dumps(document(row)))
        return
    if not rows and not (owner or action or subject):
        click.echo("no entries: requests are recorded only while API keys are required", err=True)
        return
    columns = [Column(title, overflow="fold", no_wrap=title != "WHO") for title in ("AT", "ACTION", "SUBJECT", "WHO")]
    # They fit 80 columns; --json has all fields.
    print_table(
        columns,
        [(time_text(row.at_ms) or "", row.action, row.subject or "", row.owner or row.address or "") for row in rows],
    )


@audit.command()
@click.argument("source", metavar="[FILE]", required=False, type=click.File("r", encoding="utf-8"))
@click.option("--head", metavar="DIGEST", help="A head digest that was printed earlier: the chain must contain it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def verify(context: click.Context, source: IO[str] | None, head: str | None, as_json: bool) -> None:
    """Verify the audit log, or an exported FILE (-: standard input).

    Recomputes the hash chain, and prints its head: keep it elsewhere, since anyone with full rights to the database
    can rebuild the chain. Exit code 1: the log does not match its seals, or the chain does not contain --head.
    """
    if source is not None:
        result = verify_chain(audit_file.read(source), head=head)
    else:
        with open_database() as database:
            result = verify_chain(audit_seals.items(database), head=head)
    if as_json:
        click.echo(json.dumps({"ok": result.fault is None, **asdict(result)}))
    else:
        _print_verification(result)
    context.exit(0 if result.fault is None else 1)


@audit.command()
@click.option(
    "-o", "--output", metavar="FILE", default="-", type=click.Path(dir_okay=False, allow_dash=True), help="Default: -."
)
def export(output: str) -> None:
    """Export the audit log as JSON lines.

    The file has the seals too: `tapeline audit verify FILE` verifies it without the database.
    """
    with open_database() as database, _open_output(output) as file:
        entries, seals = audit_file.write(audit_seals.items(database), file)
    click.echo(f"exported {counted(entries, 'entry')} and {counted(seals, 'seal')}", err=True)


@contextmanager
def _open_output(output: str) -> Iterator[IO[str]]:
    """A complete file, or standard output."""
    if output == "-":
        yield sys.stdout
        return
    with complete_file(Path(output)) as file:
        text = TextIOWrapper(file, encoding="utf-8")
        yield text
        text.detach()  # flushed, not closed


def _print_verification(result: Verification) -> None:
    if result.fault is not None:
        raise Failure(f"the audit log does not match its seals: {result.fault}")
    ranges = counted(result.seals - result.removed_seals, "sealed range")
    click.echo(f"{counted(result.entries, 'entry')} in {ranges} match their seals")
    if result.removed_seals:
        removed = f"{counted(result.removed_entries, 'entry')} in {counted(result.removed_seals, 'older range')}"
        click.echo(f"removed by retention: {removed}; the oldest kept entry is from {time_text(result.oldest_ms)}")
    if result.unsealed:
        since = time_text(result.unsealed_since_ms)
        unsealed = counted(result.unsealed, "entry")
        click.echo(f"not sealed yet: {unsealed} since {since}; the scheduler seals new entries within 30 s")
    click.echo(f"head {result.head or 'none: nothing is sealed yet'}")


def document(row: AuditEntry) -> dict[str, Any]:
    """An entry as a JSON document."""
    return {
        "id": row.id,
        "at": time_text(row.at_ms),
        "action": row.action,
        "subject": row.subject,
        "owner": row.owner,
        "key": row.key_id,
        "address": row.address,
        "request_id": row.request_id,
        "detail": row.detail,
    }
