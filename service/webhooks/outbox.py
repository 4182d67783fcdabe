"""The outbox: a message to each webhook that wants one, written in the transaction of what it tells.

Whoever changes a job pays one statement, which finds no webhook in most cases. The scheduler sends the messages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Text, cast, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.storage.database import now_ms
from service.storage.ids import new_id
from service.storage.owner_tables import Webhook, WebhookDelivery

EVERY_OWNER: Final = "*"
"""In place of an owner: the message goes to all webhooks of this type. No owner can have this id."""


class MessageType(StrEnum):
    """What a message tells."""

    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_PAUSED = "job.paused"
    SWEEP_ENDED = "sweep.ended"
    ALIAS_MOVED = "alias.moved"
    WORKER_LOST = "worker.lost"
    QUOTA_EXCEEDED = "quota.exceeded"


TEST: Final = "webhook.test"
"""The type of a message that is sent when its owner asks for it; nobody subscribes to it."""


class DeliveryStatus(StrEnum):
    """The state of a message to one webhook."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


def announce(
    session: Session | Connection,
    *,
    owner: str | None,
    type: str,  # noqa: A002 - the field of the message
    data: Mapping[str, Any],
    once: str | None = None,
) -> str:
    """Write a message to each webhook of an owner that wants it, in the caller's transaction.

    Args:
        owner: as in ``jobs.owner``; ``None``: those without a key. ``EVERY_OWNER``: all.
        type: a ``MessageType``.
        data: ``id``, ``url``, ``name`` and ``status``, and what else a receiver may want to know. A ``url`` that is a
            path, such as ``/jobs/job_1``, is completed when it is sent.
        once: what identifies the event, if several callers may tell of it: it is announced once.

    Returns:
        The id of the event, the same for all webhooks.
    """
    event_id = new_id("evt") if once is None else f"evt_{hashlib.sha256(f'{type} {once}'.encode()).hexdigest()[:26]}"
    message = select(
        Webhook.id,
        literal(event_id),
        literal(MessageType(type).value),
        literal(json.dumps(data)),
        select(now_ms()).scalar_subquery(),
        literal(DeliveryStatus.PENDING.value),
        literal([], WebhookDelivery.attempts.type),
        select(now_ms()).scalar_subquery(),
    ).where(Webhook.disabled_ms.is_(None), cast(Webhook.events, Text).contains(f'"{type}"'))
    if owner != EVERY_OWNER:
        message = message.where(Webhook.owner == owner if owner else Webhook.owner.is_(None))
    columns = ["webhook_id", "event_id", "type", "data", "created_ms", "status", "attempts", "next_ms"]
    is_postgresql = (
        session.get_bind().dialect.name == "postgresql"
        if isinstance(session, Session)
        else (session.dialect.name == "postgresql")
    )
    insert = (postgresql.insert if is_postgresql else sqlite.insert)(WebhookDelivery).from_select(columns, message)
    # Without a need for it, no clause for conflicts: see the privileges of workers.
    session.execute(insert.on_conflict_do_nothing() if once is not None else insert)
    return event_id
