"""The pages of webhooks."""

from __future__ import annotations

import functools
import json
from typing import Any, Final

from flask import Blueprint, Response

from service.features.webhooks import operations
from service.features.webhooks.outbox import DeliveryStatus, MessageType
from service.features.webhooks.schemas import DeliveriesQuery, WebhooksQuery
from service.web.core.core import core
from service.web.core.rooms import Page, Pages
from service.web.gate.access_checks import sees_all
from service.web.http.endpoint import endpoint
from service.web.http.responses import as_page, next_address

blueprint: Final = Blueprint("webhook_pages", __name__)

TAG: Final = "Pages"
_EVENTS: Final = {
    MessageType.JOB_SUCCEEDED: "a job has succeeded",
    MessageType.JOB_FAILED: "a job has failed",
    MessageType.JOB_CANCELLED: "a job was cancelled",
    MessageType.JOB_PAUSED: "a job pauses",
    MessageType.SWEEP_ENDED: "a sweep has ended",
    MessageType.ALIAS_MOVED: "an alias of a model was moved",
    MessageType.QUOTA_EXCEEDED: "a quota is used up",
    MessageType.WORKER_LOST: "a worker was lost, with its jobs",
}
_CHECKED: Final = (MessageType.JOB_FAILED, MessageType.SWEEP_ENDED)
_MEANS: Final[dict[str, Any]] = {
    "statuses": list(DeliveryStatus),
    "pretty": functools.partial(json.dumps, indent=2, ensure_ascii=False),
}


@blueprint.get("/ui/webhooks")
@endpoint(TAG, "text/html", query=WebhooksQuery, problems=("owner_not_found",))
def show_list(query: WebhooksQuery) -> Response:
    """Manage webhooks."""
    events = {kind: text for kind, text in _EVENTS.items() if sees_all() or kind is not MessageType.WORKER_LOST}
    webhooks = operations.show_list.read(query).data
    return as_page(
        "webhooks/index.html", webhooks=webhooks, events=events, checked=_CHECKED, is_of_others=query.owner is not None
    )


@blueprint.get("/ui/webhooks/<webhook_id>")
@endpoint(TAG, "text/html", query=DeliveriesQuery, problems=("webhook_not_found", "invalid_cursor"))
def show(webhook_id: str, query: DeliveriesQuery) -> Response:
    """Show a webhook and the messages to it."""
    page = operations.show_deliveries.read(webhook_id, query)
    return as_page(
        "webhooks/webhook.html",
        webhook=operations.show.read(webhook_id),
        deliveries=page.data,
        shown=query.status,
        next_address=next_address(page.next_cursor),
        url_of_service=core().settings.url,
        **_MEANS,
    )


PAGES: Final = Pages(blueprint=blueprint, linked=(Page(address="/ui/webhooks", label="Webhooks", below="/ui/usage"),))
