"""The commands about webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from service.cli.derived import Terminal, group, option
from service.cli.target import Target, with_target

_SECRET: Final = {"Webhook": "id", "URL": "url", "Secret": "secret", "Public key": "public_key"}
_SHOWN_ONCE: Final = "The secret is shown once: store it where the messages are received."


def _state(item: Mapping[str, Any]) -> str:
    if not item["enabled"]:
        return f"disabled: {item['disabled_reason']}"
    return f"failing: {item['failures']} attempts in a row" if item["held_until"] else "enabled"


def _last_answer(item: Mapping[str, Any]) -> str:
    if not item["attempts"]:
        return "-"
    last = item["attempts"][-1]
    return str(last["error"] or last["status"])


webhooks: Final = group(
    Terminal(
        "webhooks",
        "webhooks",
        """List your webhooks, or create, test, change or delete one.

        A webhook is a URL to which Tapeline posts a signed message when a job or sweep ends, a job pauses, an alias
        moves, a quota is exceeded or a worker is lost.
        """,
        columns={"ID": "id", "URL": "url", "STATE": _state, "EVENTS": "events"},
        empty="no webhooks; create one with: tapeline webhooks create URL",
    ),
    Terminal(
        "create",
        "create_webhook",
        "Create a webhook, and print its secret, which is shown once.",
        options={
            "events": option(
                "--on",
                metavar="TYPE",
                default=("job.failed", "sweep.ended"),
                show_default=True,
                help="Type of event to send, such as job.succeeded; repeatable.",
            )
        },
        rows=_SECRET,
        note=_SHOWN_ONCE,
    ),
    Terminal(
        "rotate",
        "rotate_webhook",
        "Replace the secret of a webhook, and print the new one. For 24 hours, messages have the signatures of both.",
        rows=_SECRET,
        note=_SHOWN_ONCE,
    ),
    Terminal(
        "deliveries",
        "webhook_deliveries",
        "List the messages to a webhook, newest first, with the last response to each.",
        options={
            "status": option(help="Only such messages."),
            "limit": option(
                default=20, show_default=True, type=click.IntRange(1, 200), help="Maximum number of messages."
            ),
        },
        columns={
            "ID": "id",
            "TYPE": "type",
            "ABOUT": lambda item: item["payload"]["data"]["name"] or item["payload"]["data"]["id"],
            "CREATED": lambda item: item["created_at"][:19].replace("T", " "),
            "STATUS": "status",
            "ATTEMPTS": lambda item: len(item["attempts"]),
            "LAST RESPONSE": _last_answer,
        },
        empty="no messages; to send one: tapeline webhooks test ID",
    ),
    Terminal(
        "redeliver",
        "redeliver",
        "Send a message again, or at once if it waits.",
        line=lambda item: f"{item['id']}  {item['status']}",
    ),
    Terminal(
        "set",
        "change_webhook",
        "Change a webhook, disable it, or enable it again.",
        options={
            "url": option(help="Where messages are sent."),
            "events": option(
                "--on", metavar="TYPE", help="Types of events to send, in place of the present ones; repeatable."
            ),
            "description": option(help="Free text."),
            "enabled": option("--enable/--disable", help="Enable (pending messages are sent) or disable it."),
        },
        line=lambda item: f"{item['id']}  {_state(item)}",
        example="--on job.failed",
    ),
    Terminal(
        "delete",
        "delete_webhook",
        "Delete a webhook with its messages, also those that were not delivered.",
        question="the webhook {} with its messages",
        done="deleted",
    ),
)


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
