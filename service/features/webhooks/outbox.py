"""The outbox: a message to each webhook that wants one, written in the transaction of what it tells.

Whoever changes a job pays one statement, which finds no webhook in most cases. The scheduler sends the messages.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final
from typing import cast as typed

from sqlalchemy import Connection, String, Table, Text, bindparam, cast, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.features.webhooks.tables import Webhook, WebhookDelivery
from service.hooks import EVERY_OWNER, HappeningKind
from service.storage.database import locking, now_ms
from service.storage.ids import new_id

_WEBHOOKS: Final = typed(Table, Webhook.__table__)
_DELIVERIES: Final = typed(Table, WebhookDelivery.__table__)


class MessageType(StrEnum):
    """What a message tells."""

    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_PAUSED = "job.paused"
    SWEEP_ENDED = HappeningKind.SWEEP_ENDED.value
    ALIAS_MOVED = HappeningKind.ALIAS_MOVED.value
    WORKER_LOST = HappeningKind.WORKER_LOST.value
    QUOTA_EXCEEDED = HappeningKind.QUOTA_EXCEEDED.value


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
    kind: str,
    data: Mapping[str, Any],
    once: str | None = None,
) -> str:
    """Write a message to each webhook of an owner that wants it, in the caller's transaction.

    Args:
        owner: as in ``jobs.owner``; ``None``: those without a key. ``EVERY_OWNER``: all.
        kind: a ``MessageType``.
        data: ``id``, ``url``, ``name`` and ``status``, and what else a receiver may want to know. A ``url`` that is a
            path, such as ``/jobs/job_1``, is completed when it is sent.
        once: what identifies the event, if several callers may tell of it: it is announced once.

    Returns:
        The id of the event, the same for all webhooks.
    """
    event_id = new_id("evt") if once is None else f"evt_{hashlib.sha256(f'{kind} {once}'.encode()).hexdigest()[:26]}"
    connection = session.connection() if isinstance(session, Session) else session
    values = {"event_id": event_id, "type": MessageType(kind).value, "data": json.dumps(data), "owner": owner or ""}
    statement = _insertion(connection.dialect.name, owner if owner == EVERY_OWNER else bool(owner), once is not None)
    connection.execute(statement, values | {"pattern": f'%"{kind}"%'})
    return event_id


@functools.cache
def _insertion(dialect: str, owner: str | bool, is_once: bool) -> sqlite.Insert | postgresql.Insert:
    """The statement, built once: that takes several times as long as its execution.

    Args:
        owner: ``EVERY_OWNER``, or whether there is one.
    """
    now = select(now_ms()).scalar_subquery()
    columns = {
        "webhook_id": _WEBHOOKS.c.id,
        "event_id": bindparam("event_id", type_=String),
        "type": bindparam("type", type_=String),
        "data": bindparam("data", type_=Text),
        "created_ms": now,
        "status": literal_column(f"'{DeliveryStatus.PENDING}'"),
        "attempts": literal_column("'[]'") if dialect == "sqlite" else literal_column("CAST('[]' AS JSON)"),
        "next_ms": now,
    }
    wants = cast(_WEBHOOKS.c.events, Text).like(bindparam("pattern", type_=String))
    message = select(*columns.values()).where(_WEBHOOKS.c.disabled_ms.is_(None), wants)
    if owner is True:
        message = message.where(_WEBHOOKS.c.owner == bindparam("owner", type_=String))
    elif owner is False:
        message = message.where(_WEBHOOKS.c.owner.is_(None))
    # Whoever deletes a webhook at this moment is waited for: its row would be missing when the foreign key is checked,
    # and the transaction of the event would fail.
    message = locking(message, share=True, keeps_key=True, of=Webhook)
    insert = sqlite.insert(_DELIVERIES) if dialect == "sqlite" else postgresql.insert(_DELIVERIES)
    statement = insert.from_select(list(columns), message)
    # Without a need for it, no clause for conflicts: see the privileges of workers.
    return statement.on_conflict_do_nothing() if is_once else statement
