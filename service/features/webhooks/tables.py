"""The tables of webhooks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, ForeignKey, Index, Integer, String, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column

from service.storage.tables import Base


class Webhook(Base):
    """An address of an owner to which messages are sent. Workers may read ``id``, ``owner``, ``events`` and
    ``disabled_ms``, and never the secrets."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str | None] = mapped_column(String(64), index=True)
    url: Mapped[str] = mapped_column(String(2000))
    host: Mapped[str] = mapped_column(String(300))
    """Of the URL, with the port: what limits of messages in flight count by."""
    events: Mapped[list[str]] = mapped_column(JSON)
    """The types of messages."""
    description: Mapped[str | None] = mapped_column(String(200))
    secret: Mapped[str] = mapped_column(String(100))
    """Of the signatures ``v1``, as ``whsec_…``."""
    signing_key: Mapped[str] = mapped_column(String(100))
    """Of the signatures ``v1a``, as ``whsk_…``."""
    previous_secret: Mapped[str | None] = mapped_column(String(100))
    previous_signing_key: Mapped[str | None] = mapped_column(String(100))
    previous_expires_ms: Mapped[int | None] = mapped_column(BigInteger)
    """Until then, messages are signed with the keys from before the last rotation, too."""
    created_ms: Mapped[int] = mapped_column(BigInteger)
    disabled_ms: Mapped[int | None] = mapped_column(BigInteger)
    disabled_reason: Mapped[str | None] = mapped_column(String(200))
    failures: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """Failed attempts since the last one that succeeded."""
    resume_ms: Mapped[int | None] = mapped_column(BigInteger)
    """After too many failures in a row, when the next message may be sent."""


class WebhookDelivery(Base):
    """A message to one webhook, written in the transaction of what it tells."""

    __tablename__ = "webhook_deliveries"

    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True)
    event_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    """The same for all webhooks that an event is sent to, and for all attempts."""
    type: Mapped[str] = mapped_column(String(40))
    data: Mapped[str] = mapped_column(Text)
    """JSON, as sent, but for the beginning of its ``url``."""
    created_ms: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(10))
    """``pending``, ``delivered`` or ``failed``."""
    step: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    """The attempts on the schedule; a redelivery begins it again."""
    asked: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """Whether a person asked for this attempt: it is not held back after failures of other messages."""
    attempts: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    """When, how long, with which response or error."""
    next_ms: Mapped[int | None] = mapped_column(BigInteger)
    """When it is due; under a lease, when that expires; NULL: it is neither."""
    lease: Mapped[str | None] = mapped_column(String(40))


Index("ix_webhook_deliveries_created", WebhookDelivery.webhook_id, WebhookDelivery.created_ms, WebhookDelivery.event_id)
Index(
    "ix_webhook_deliveries_due",
    WebhookDelivery.webhook_id,
    WebhookDelivery.next_ms,
    sqlite_where=text("next_ms IS NOT NULL"),
    postgresql_where=text("next_ms IS NOT NULL"),
)
