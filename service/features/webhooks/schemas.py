"""The bodies of requests about webhooks; webhooks and their messages, as responses."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from service.features.webhooks.delivery import deliveries
from service.features.webhooks.delivery.deliveries import DeliveryPage
from service.features.webhooks.outbox import DeliveryStatus, MessageType
from service.features.webhooks.protocol import signing
from service.features.webhooks.protocol.addresses import MAX_URL
from service.features.webhooks.tables import Webhook, WebhookDelivery
from service.spec.schema import PlainText, StrictModel
from service.web.http.queries import Cursor, OtherOwner, Query
from service.web.http.schemas import ResponseModel, Timestamp

_Url = Annotated[str, Field(min_length=1, max_length=MAX_URL)]
_Events = Annotated[list[MessageType], Field(min_length=1, max_length=20)]


class WebhookRequest(StrictModel):
    """A webhook to create."""

    EXAMPLES: ClassVar = {
        "failures": {"url": "https://hooks.example.org/tapeline", "events": ["job.failed", "sweep.ended"]},
    }

    url: _Url
    """Where messages are sent: `https://`, with a host that has public addresses only."""
    events: _Events
    """The types of events that are sent. `worker.lost` needs a key with the scope `admin`."""
    description: PlainText | None = None
    """Free text."""


class WebhookPatch(StrictModel):
    """Changes of a webhook, as a merge patch (RFC 7396)."""

    EXAMPLES: ClassVar = {
        "enable": {"enabled": True},
        "events": {"events": ["job.succeeded", "job.failed"]},
    }

    url: _Url | None = None
    events: _Events | None = None
    description: PlainText | None = None
    enabled: bool | None = None
    """Nothing is announced to a disabled webhook. One that is enabled gets the messages that waited."""


class WebhookItem(ResponseModel):
    """A webhook, without its secret."""

    id: str
    owner: str | None
    url: str
    events: list[MessageType]
    description: str | None
    enabled: bool
    disabled_at: Timestamp | None = Field(validation_alias="disabled_ms")
    disabled_reason: str | None
    failures: int = Field(description="Failed attempts since the last one that succeeded.")
    held_until: Timestamp | None = Field(
        description="After five failures in a row, when the next message tries the receiver; others wait until one "
        "succeeds."
    )
    public_key: str = Field(description="`whpk_…`: the key with which the signatures `v1a` (ed25519) are verified.")
    previous_expires_at: Timestamp | None = Field(
        description="After a rotation: until when messages are signed with the previous secret, too."
    )
    created_at: Timestamp = Field(validation_alias="created_ms")

    @classmethod
    def of(cls, row: Webhook, *, now: int, **extra_fields: Any) -> Self:
        """A webhook.

        Args:
            now: the database's time in milliseconds.
        """
        previous_ms = row.previous_expires_ms
        is_held = row.failures >= deliveries.MAX_FAILURES and row.disabled_ms is None
        return cls.from_row(
            row,
            enabled=row.disabled_ms is None,
            held_until=row.resume_ms if is_held else None,
            public_key=signing.public_key_of(row.signing_key),
            previous_expires_at=previous_ms if previous_ms is not None and previous_ms > now else None,
            **extra_fields,
        )


class NewWebhook(WebhookItem):
    """A webhook with a new secret."""

    secret: str = Field(description="`whsec_…`: only in this response. It verifies the signatures `v1` (HMAC-SHA256).")


class WebhooksQuery(Query):
    """Whose webhooks to list."""

    owner: OtherOwner = None


class WebhookList(ResponseModel):
    """The webhooks of an owner, the oldest first."""

    data: list[WebhookItem]


class DeliveryAttempt(ResponseModel):
    """One attempt to deliver a message."""

    at: Timestamp = Field(validation_alias="at_ms")
    seconds: float
    status: int | None = Field(description="HTTP status; null: there was no response.")
    response: str = Field(description="The beginning of the response body.")
    error: str | None = Field(description="Why it failed; null: it did not.")


class DeliveryItem(ResponseModel):
    """A message to one webhook."""

    id: str = Field(validation_alias="event_id", description="`webhook-id` in the headers, in all attempts.")
    type: str = Field(description="As in `events` of a webhook, or `webhook.test`.")
    status: DeliveryStatus
    payload: dict[str, Any] = Field(description="The message: `type`, `timestamp` and `data`.")
    attempts: list[DeliveryAttempt] = Field(description="The oldest first.")
    next_attempt_at: Timestamp | None = Field(description="Null: none is planned.")
    created_at: Timestamp = Field(validation_alias="created_ms")

    @classmethod
    def of(cls, row: WebhookDelivery, *, service_url: str) -> Self:
        """A message.

        Args:
            service_url: as of ``deliveries.body_of``.
        """
        payload = json.loads(deliveries.body_of(row.type, row.created_ms, row.data, service_url))
        attempts = [DeliveryAttempt.model_validate(attempt) for attempt in row.attempts]
        return cls.from_row(row, payload=payload, attempts=attempts, next_attempt_at=row.next_ms)


class DeliveriesQuery(Query):
    """Which messages to list."""

    status: DeliveryStatus | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: Cursor = None


class DeliveryList(ResponseModel):
    """A page of messages, the newest first."""

    data: list[DeliveryItem]
    has_more: bool
    next_cursor: str | None

    @classmethod
    def of(cls, page: DeliveryPage, *, service_url: str) -> Self:
        """A page of messages."""
        data = [DeliveryItem.of(row, service_url=service_url) for row in page.rows]
        return cls(data=data, has_more=page.next_cursor is not None, next_cursor=page.next_cursor)
