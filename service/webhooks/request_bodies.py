"""The bodies of requests about webhooks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from service.spec.schema import PlainText, StrictModel
from service.webhooks.addresses import MAX_URL
from service.webhooks.outbox import MessageType

_Url = Annotated[str, Field(min_length=1, max_length=MAX_URL)]
_Events = Annotated[list[MessageType], Field(min_length=1, max_length=20)]


class WebhookRequest(StrictModel):
    """A webhook to create."""

    url: _Url
    """Where messages are sent: `https://`, with a host that has public addresses only."""
    events: _Events
    """The types of events that are sent. `worker.lost` needs a key with the scope `admin`."""
    description: PlainText | None = None
    """Free text."""


class WebhookPatch(StrictModel):
    """Changes of a webhook, as a merge patch (RFC 7396)."""

    url: _Url | None = None
    events: _Events | None = None
    description: PlainText | None = None
    enabled: bool | None = None
    """Nothing is announced to a disabled webhook. One that is enabled gets the messages that waited."""
