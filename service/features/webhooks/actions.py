"""What the audit log records about webhooks."""

from __future__ import annotations

from enum import StrEnum


class WebhookAction(StrEnum):
    """Actions on webhooks."""

    CREATE = "create_webhook"
    CHANGE = "change_webhook"
    ROTATE = "rotate_webhook"
    DELETE = "delete_webhook"
    TEST = "test_webhook"
    REDELIVER = "redeliver"
