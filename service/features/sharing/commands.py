"""The commands about share links."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import click

from service.cli.derived import Terminal, group
from service.cli.target import Target, job_argument, parse_duration_s, with_target


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


shares: Final = group(
    Terminal(
        "shares",
        "shares",
        "List your share links, newest first, or revoke one.",
        columns={
            "ID": "id",
            "SHOWS": "path",
            "CREATED": lambda item: item["created_at"][:10],
            "EXPIRES": lambda item: (item["expires_at"] or "never")[:10],
        },
        empty="no links; create one with: tapeline share JOB",
    ),
    Terminal("revoke", "revoke_share", "Revoke a share link. It stops working at once.", done="revoked"),
    noun="links",
)
