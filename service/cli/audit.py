"""``tapeline audit``: who did what, read from the database itself."""

from __future__ import annotations

import json
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from service.cli.keys import open_database, time_text
from service.contract import audit as contract
from service.contract.audit import Deed
from service.contract.tables import AuditEntry


@click.command()
@click.option("--owner", help="Only actions of this owner's keys.")
@click.option("--action", type=click.Choice([deed.value for deed in Deed]), help="Only this action.")
@click.option("--subject", metavar="ID", help="Only actions on this job, key or dataset.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="Maximum number of entries."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per line.")
def audit(owner: str | None, action: str | None, subject: str | None, limit: int, as_json: bool) -> None:
    """Show the audit log: changes to jobs, datasets and keys, and sign-ins, newest last.

    Run it on the machine that hosts the service, with the same environment.
    """
    with open_database() as database, database.read() as session:
        rows = contract.read(session, owner=owner, action=action, subject=subject, limit=limit)[::-1]
    if as_json:
        for row in rows:
            click.echo(json.dumps(document(row)))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("AT", "ACTION", "SUBJECT", "WHO"):
        table.add_column(column, overflow="fold", no_wrap=column != "WHO")
    for row in rows:  # 80 columns have room for no more; --json has all
        table.add_row(time_text(row.at_ms), row.action, row.subject or "", row.owner or row.address or "")
    Console(highlight=False, markup=False).print(table)


COMMANDS: Final = (audit,)


def document(row: AuditEntry) -> dict[str, Any]:
    """A row for machines."""
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
