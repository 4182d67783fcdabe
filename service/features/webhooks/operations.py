"""Webhooks: create, change, test, rotate and delete them, and what was sent to them."""

from __future__ import annotations

from typing import Final

from flask import Blueprint
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.features.webhooks import endpoints
from service.features.webhooks.delivery import deliveries
from service.features.webhooks.endpoints import Changes
from service.features.webhooks.errors import DeliveryNotFound, WebhookNotFound
from service.features.webhooks.protocol.addresses import AddressRules
from service.features.webhooks.schemas import (
    DeliveriesQuery,
    DeliveryItem,
    DeliveryList,
    NewWebhook,
    WebhookItem,
    WebhookList,
    WebhookPatch,
    WebhookRequest,
    WebhooksQuery,
)
from service.features.webhooks.tables import WebhookDelivery
from service.storage.database import now_ms
from service.web.core.core import core, owner, provided
from service.web.core.rooms import Operations
from service.web.gate.access_checks import actor, sees_all
from service.web.http import slots
from service.web.http.endpoint import Result, Tag, endpoint
from service.web.http.path_parameters import PathParameter

blueprint: Final = Blueprint("webhooks", __name__)

TAG: Final = Tag("Webhooks", "Signed messages about jobs, sweeps and aliases, posted to your own URL.", after="Sharing")
WEBHOOK_ID: Final = PathParameter(
    "webhook_id",
    "A webhook's id, such as `whk_01J00000000000000000000000`.",
    "whk_01J00000000000000000000000",
    not_found=lambda path: WebhookNotFound(path["webhook_id"][:60]),
)
DELIVERY_ID: Final = PathParameter(
    "delivery_id",
    "A message's id, `webhook-id` in its headers: the same for all webhooks that an event is sent to.",
    "evt_01J00000000000000000000000",
    not_found=lambda path: DeliveryNotFound(path["webhook_id"], path["delivery_id"]),
)


@blueprint.get("/webhooks")
@endpoint(TAG, WebhookList, query=WebhooksQuery, problems=("owner_not_found",), page="/ui/webhooks", client="webhooks")
def show_list(query: WebhooksQuery) -> WebhookList:
    """List the owner's webhooks, the oldest first, without their secrets."""
    with core().database.read() as session:
        now = _now(session)
        return WebhookList(data=[WebhookItem.of(row, now=now) for row in endpoints.all_of(session, owner())])


@blueprint.post("/webhooks")
@endpoint(TAG, NewWebhook, status=201, body=WebhookRequest, problems=("busy",), client="create_webhook")
def create(body: WebhookRequest) -> Result:
    """Create a webhook: a URL to which messages about the owner's jobs, sweeps and aliases are posted.

    Messages are signed by the Standard Webhooks specification. The secret is only in this response: store it, or rotate
    it. All addresses of the host are checked now and at each attempt: by default, only public ones are permitted.
    """
    rules, is_admin = provided(AddressRules), sees_all()
    with slots.hold(slots.LOOKUPS):
        row = endpoints.create(
            core().database, body.url, body.events, rules,
            owner=owner(), description=body.description, is_admin=is_admin, by=actor(),
        )  # fmt: skip
    return NewWebhook.of(row, now=row.created_ms, secret=row.secret), {"Location": f"/webhooks/{row.id}"}


@blueprint.get("/webhooks/<webhook_id>")
@endpoint(TAG, WebhookItem, problems=("webhook_not_found",), page="/ui/webhooks/{webhook_id}", client="webhook")
def show(webhook_id: str) -> WebhookItem:
    """Show a webhook, without its secret."""
    with core().database.read() as session:
        return WebhookItem.of(endpoints.find(session, webhook_id, owner=owner()), now=_now(session))


@blueprint.patch("/webhooks/<webhook_id>")
@endpoint(TAG, WebhookItem, body=WebhookPatch, problems=("webhook_not_found", "busy"), client="change_webhook")
def change(webhook_id: str, body: WebhookPatch) -> WebhookItem:
    """Change a webhook, or disable or enable it."""
    description = body.description or "" if "description" in body.model_fields_set else None
    changes = Changes(url=body.url, events=body.events, description=description, enabled=body.enabled)
    rules, is_admin = provided(AddressRules), sees_all()
    with slots.hold(slots.LOOKUPS):
        endpoints.change(core().database, webhook_id, changes, rules, owner=owner(), is_admin=is_admin, by=actor())
    return show.read(webhook_id)


@blueprint.delete("/webhooks/<webhook_id>")
@endpoint(TAG, None, status=204, problems=("webhook_not_found",), client="delete_webhook")
def delete(webhook_id: str) -> None:
    """Delete a webhook with its messages, also those that were not delivered; with the scope `admin`, also one of
    another owner."""
    endpoints.remove(core().database, webhook_id, owner=None if sees_all() else owner(), by=actor())


@blueprint.post("/webhooks/<webhook_id>/rotate")
@endpoint(TAG, NewWebhook, status=202, problems=("webhook_not_found",), client="rotate_webhook")
def rotate(webhook_id: str) -> NewWebhook:
    """Replace the secret and the key of the webhook. For 24 hours, messages have the signatures of both.

    The new secret is only in this response.
    """
    row = endpoints.rotate(core().database, webhook_id, owner=owner(), by=actor())
    return NewWebhook.of(row, now=0, secret=row.secret)


@blueprint.post("/webhooks/<webhook_id>/test")
@endpoint(TAG, DeliveryItem, status=202, problems=("webhook_not_found", "webhook_disabled"))
def test(webhook_id: str) -> DeliveryItem:
    """Send a message of the type `webhook.test`, within a second or two. It is tried once."""
    return _item(deliveries.send_test(core().database, webhook_id, owner=owner(), by=actor()))


@blueprint.get("/webhooks/<webhook_id>/deliveries")
@endpoint(
    TAG,
    DeliveryList,
    query=DeliveriesQuery,
    problems=("webhook_not_found", "invalid_cursor"),
    client="webhook_deliveries",
)
def show_deliveries(webhook_id: str, query: DeliveriesQuery) -> DeliveryList:
    """List the messages to a webhook, the newest first, with the response to each attempt."""
    with core().database.read() as session:
        page = deliveries.page(
            session, webhook_id, owner=owner(), status=query.status, cursor=query.cursor, limit=query.limit
        )
    return DeliveryList.of(page, service_url=core().settings.url)


@blueprint.get("/webhooks/<webhook_id>/deliveries/<delivery_id>")
@endpoint(TAG, DeliveryItem, problems=("webhook_not_found", "delivery_not_found"), client="webhook_delivery")
def show_delivery(webhook_id: str, delivery_id: str) -> DeliveryItem:
    """Show a message and its attempts."""
    with core().database.read() as session:
        return _item(deliveries.find(session, webhook_id, delivery_id, owner=owner()))


@blueprint.post("/webhooks/<webhook_id>/deliveries/<delivery_id>/redeliver")
@endpoint(
    TAG,
    DeliveryItem,
    status=202,
    problems=("webhook_not_found", "delivery_not_found", "webhook_disabled"),
    client="redeliver",
)
def redeliver(webhook_id: str, delivery_id: str) -> DeliveryItem:
    """Send a message again under the same id, or at once if it waits; its schedule begins again."""
    return _item(deliveries.redeliver(core().database, webhook_id, delivery_id, owner=owner(), by=actor()))


def _item(row: WebhookDelivery) -> DeliveryItem:
    return DeliveryItem.of(row, service_url=core().settings.url)


def _now(session: Session) -> int:
    return session.scalar(select(now_ms())) or 0


OPERATIONS: Final = Operations(blueprint=blueprint, provide=lambda core: [AddressRules.of(core.settings)])
