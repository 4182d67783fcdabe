"""Webhooks: signed messages to the addresses that owners register, about what happens to their objects."""

from __future__ import annotations

from typing import Final

from service.declarations import Entries, Feature, Room, problems_of
from service.features.webhooks.actions import WebhookAction
from service.features.webhooks.errors import DeliveryNotFound, WebhookDisabled, WebhookNotFound
from service.features.webhooks.settings import WebhookSettings

FEATURE: Final = Feature(
    name="webhooks",
    rooms=(Room.TABLES, Room.HOOKS, Room.UPKEEP, Room.OPERATIONS, Room.PAGES, Room.COMMANDS),
    worker_privileges={
        "webhook_deliveries": "INSERT",
        # Who wants to know of a job's end, never the secrets. UPDATE of any column is what a row lock needs.
        "webhooks": "SELECT (id, owner, events, disabled_ms), UPDATE (created_ms)",
    },
    audit_actions=Entries("revoke_share", {action.value: action.name for action in WebhookAction}),
    settings=WebhookSettings,
    commands=Entries("shares", {"webhooks": "List your webhooks, or create, test, change or delete one."}),
    failpoints=Entries(
        "store_published",
        {
            "message_claimed": "the scheduler's claim on messages is committed, and none is sent",
            "message_sent": "a receiver has answered to a message, and that is not recorded (the detail is its type)",
        },
    ),
    problems=Entries("worker_not_found", problems_of(WebhookNotFound, DeliveryNotFound, WebhookDisabled)),
)
