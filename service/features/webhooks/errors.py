"""The errors of webhooks, each with its problem."""

from __future__ import annotations

from service.errors import ProblemKind, ServiceError


class WebhookNotFound(ServiceError, LookupError):
    """There is no such webhook, or it belongs to another owner."""

    code = "webhook_not_found"
    kind = ProblemKind(
        404,
        "There is no such webhook.",
        "Check the id: `GET /webhooks` lists yours.",
        link=("Webhooks", "/ui/webhooks"),
    )

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"there is no webhook {webhook_id[:60]!r}")


class DeliveryNotFound(ServiceError, LookupError):
    """A webhook has no such delivery."""

    code = "delivery_not_found"
    kind = ProblemKind(
        404,
        "There is no such delivery.",
        "Check the id. Messages are removed after `TAPELINE_KEEP_DELIVERIES_DAYS`.",
        link=("Webhooks", "/ui/webhooks"),
    )

    def __init__(self, webhook_id: str, event_id: str) -> None:
        super().__init__(
            f"the webhook {webhook_id} has no delivery {event_id[:60]!r}: it may have been removed by retention"
        )


class WebhookDisabled(ServiceError):
    """Nothing is sent to a webhook until it is enabled again."""

    code = "webhook_disabled"
    kind = ProblemKind(
        409,
        "The webhook is disabled.",
        'Fix the receiver, then enable the webhook: `PATCH /webhooks/{webhook_id}` with `{"enabled": true}`.',
        "Fix the receiver, then enable the webhook.",
    )

    def __init__(self, webhook_id: str, reason: str) -> None:
        super().__init__(f"the webhook {webhook_id} is disabled: {reason}")


class AddressRefused(ServiceError, ValueError):
    """Messages of webhooks are not sent to an address; the message follows the name of the field."""
