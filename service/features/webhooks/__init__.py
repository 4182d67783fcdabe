"""Webhooks: signed messages to the addresses that owners register, about what happens to their objects."""

from __future__ import annotations

from typing import Final

from service.features.webhooks.errors import DeliveryNotFound, WebhookDisabled, WebhookNotFound
from service.runtime.features import Entries, Feature, Room, problems_of

FEATURE: Final = Feature(
    name="webhooks",
    rooms=tuple(Room),
    worker_privileges={
        "webhook_deliveries": "INSERT",
        # Who wants to know of a job's end, never the secrets. UPDATE of any column is what a row lock needs.
        "webhooks": "SELECT (id, owner, events, disabled_ms), UPDATE (created_ms)",
    },
    problems=Entries("worker_not_found", problems_of(WebhookNotFound, DeliveryNotFound, WebhookDisabled)),
)
