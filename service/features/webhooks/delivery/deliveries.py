"""The messages of webhooks: which are due, under leases, and what came of each attempt.

A sender claims a message for ``LEASE_S``, sends it without a transaction, and records the result if it still has the
lease. One that is killed in between leaves the message to the next, which may send it again under the same id.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Final
from uuid import uuid4

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select
from sqlalchemy.orm import Session

from service.access import audit
from service.access.audit import Actor
from service.features.webhooks import endpoints
from service.features.webhooks.actions import WebhookAction
from service.features.webhooks.errors import DeliveryNotFound, WebhookDisabled
from service.features.webhooks.outbox import TEST, DeliveryStatus
from service.features.webhooks.tables import Webhook, WebhookDelivery
from service.runtime import cursors
from service.storage.database import Database, locking, now_ms
from service.storage.ids import new_id
from service.wording import at_time

RETRY_DELAYS_S: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""After each failed attempt but the last one: ten attempts in 75 h 35 min."""
JITTER: Final = 0.1
"""The fraction by which a delay is longer or shorter, so that a receiver that is back is not met by all at once."""
LEASE_S: Final = 120
"""More than an attempt takes, with the time to resolve a name."""
MAX_IN_FLIGHT: Final = 16
MAX_IN_FLIGHT_PER_OWNER: Final = 8
"""So that one owner's receivers, which may have any number of names, leave room for the others."""
MAX_IN_FLIGHT_PER_HOST: Final = 4
MAX_FAILURES: Final = 5
"""Failed attempts in a row after which a webhook gets one message at each step of the schedule, until one succeeds."""
MAX_RETRY_AFTER_S: Final = 86_400.0
MAX_ATTEMPTS: Final = 50
"""Attempts of a message that are kept, the last ones: a person may ask for any number."""
_RANDOM: Final = random.SystemRandom()
_KEPT_CHARACTERS: Final = 4000
"""Of the answer to an attempt."""
GONE: Final = 410
"""The status by which a receiver says that it wants no more messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of an attempt to deliver a message."""

    at_ms: int
    seconds: float
    status: int | None = None
    """Of HTTP; ``None``: there was no response."""
    response: str = ""
    error: str | None = None
    """Why it failed; ``None``: it did not."""
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A message that is to be sent now, with all that this needs."""

    webhook_id: str
    event_id: str
    lease: str
    owner: str | None
    url: str
    host: str
    type: str
    data: str
    created_ms: int
    secrets: Sequence[str]
    signing_keys: Sequence[str]

    def body(self, service_url: str) -> bytes:
        """The message as JSON; every attempt has the same.

        Args:
            service_url: the address of the service, with which a path in ``data`` is completed; may be empty.
        """
        return body_of(self.type, self.created_ms, self.data, service_url).encode()


def body_of(kind: str, created_ms: int, data: str, service_url: str) -> str:
    """A message as it is sent."""
    content = json.loads(data)
    if service_url and str(content.get("url", "")).startswith("/"):
        content["url"] = service_url.rstrip("/") + content["url"]
    return json.dumps({"type": kind, "timestamp": at_time(created_ms), "data": content})


def claim(database: Database, *, in_flight: Collection[Claim] = (), at_most: int = MAX_IN_FLIGHT) -> list[Claim]:
    """Claim messages that are due, the oldest of each webhook first. Owners with the fewest in flight come first.

    Args:
        in_flight: the messages that are being sent now.
        at_most: how many to claim.
    """
    with database.read() as session:
        has_due = exists().where(*_is_due()).correlate(Webhook)
        query = select(Webhook.id, Webhook.owner, Webhook.host, Webhook.failures)
        due = list(session.execute(query.where(Webhook.disabled_ms.is_(None), has_due)).all())
    _RANDOM.shuffle(due)  # among equals, nobody is always the first
    of_host, of_owner = Counter(item.host for item in in_flight), Counter(item.owner for item in in_flight)
    claims = list[Claim]()
    while due and len(claims) < at_most:
        row = min(due, key=lambda row: of_owner[row.owner])
        due.remove(row)
        limits = (MAX_IN_FLIGHT_PER_HOST - of_host[row.host], MAX_IN_FLIGHT_PER_OWNER - of_owner[row.owner])
        room = min(*limits, at_most - len(claims))
        if room > 0:
            found = _claim(database, row.id, 1 if row.failures >= MAX_FAILURES else room)
            of_host[row.host] += len(found)
            of_owner[row.owner] += len(found)
            claims += found
    return claims


def _is_due() -> tuple[ColumnElement[bool], ...]:
    may_go = or_(Webhook.failures < MAX_FAILURES, Webhook.resume_ms <= now_ms(), WebhookDelivery.asked)
    return WebhookDelivery.webhook_id == Webhook.id, WebhookDelivery.next_ms <= now_ms(), may_go


def _claim(database: Database, webhook_id: str, at_most: int) -> list[Claim]:
    with database.write() as session:
        webhook = endpoints.lock(session, webhook_id)
        if webhook is None or webhook.disabled_ms is not None:
            return []
        query = select(WebhookDelivery).join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        query = query.where(Webhook.id == webhook_id, *_is_due())
        query = query.order_by(WebhookDelivery.asked.desc(), WebhookDelivery.created_ms).limit(at_most)
        rows = session.scalars(locking(query, of=WebhookDelivery, skip_locked=True)).all()
        now = session.scalar(select(now_ms())) or 0
        if webhook.failures >= MAX_FAILURES and rows:
            webhook.resume_ms = now + LEASE_S * 1000  # one at a time
        claims = []
        for row in rows:
            row.lease, row.next_ms = uuid4().hex, now + LEASE_S * 1000
            claims.append(
                Claim(
                    webhook_id=webhook_id,
                    event_id=row.event_id,
                    lease=row.lease,
                    owner=webhook.owner,
                    url=webhook.url,
                    host=webhook.host,
                    type=row.type,
                    data=row.data,
                    created_ms=row.created_ms,
                    **endpoints.keys_of(webhook, now),
                )
            )
        return claims


def record(database: Database, claimed: Claim, attempt: Attempt, *, jitter: float = JITTER) -> None:
    """Record an attempt, and when the next one is due. Without the lease, nothing: another sender has taken over."""
    with database.write() as session:
        webhook = endpoints.lock(session, claimed.webhook_id)
        key = (WebhookDelivery.webhook_id == claimed.webhook_id, WebhookDelivery.event_id == claimed.event_id)
        row = session.scalar(locking(select(WebhookDelivery).where(*key, WebhookDelivery.lease == claimed.lease)))
        if webhook is None or row is None:
            return
        kept = attempt.response[:_KEPT_CHARACTERS].replace("\0", "\N{REPLACEMENT CHARACTER}")
        result = asdict(attempt) | {"seconds": round(attempt.seconds, 3), "response": kept}
        row.attempts = [*row.attempts, result][-MAX_ATTEMPTS:]
        row.lease, row.next_ms, row.asked = None, None, False
        row.step += 1
        if attempt.error is None:
            row.status = DeliveryStatus.DELIVERED
            webhook.failures, webhook.resume_ms = 0, None
            return
        now = session.scalar(select(now_ms())) or 0
        if webhook.url != claimed.url:  # nothing is known of the address that the webhook has now
            row.status, row.next_ms = DeliveryStatus.PENDING, now
        elif attempt.status == GONE:
            row.status = DeliveryStatus.FAILED
            _disable(webhook, now, "the receiver has answered 410 Gone")
        elif row.type == TEST:
            row.status = DeliveryStatus.FAILED  # whoever asked for it looks at the result, and asks again
        elif row.step > len(RETRY_DELAYS_S):
            row.status = DeliveryStatus.FAILED
            webhook.failures += 1
            _disable(webhook, now, f"{row.step} attempts over three days have failed, the last one: {attempt.error}")
        else:
            delay_s = RETRY_DELAYS_S[row.step - 1] * _RANDOM.uniform(1 - jitter, 1 + jitter)
            delay_s = max(delay_s, min(attempt.retry_after_s or 0.0, MAX_RETRY_AFTER_S))
            row.status, row.next_ms = DeliveryStatus.PENDING, now + int(delay_s * 1000)
            webhook.failures += 1
            webhook.resume_ms = row.next_ms


def _disable(webhook: Webhook, now: int, reason: str) -> None:
    webhook.disabled_ms, webhook.disabled_reason = now, reason[:200]


def send_test(database: Database, webhook_id: str, *, owner: str | None, by: Actor | None = None) -> WebhookDelivery:
    """Queue a message of the type ``webhook.test``, which is tried once.

    Raises:
        WebhookNotFound: the owner has no such webhook.
        WebhookDisabled: nothing is sent to it.
    """
    with database.write() as session:
        _enabled(session, webhook_id, owner)
        now = session.scalar(select(now_ms())) or 0
        data = {"id": webhook_id, "url": "/ui/webhooks", "name": "test", "status": "ok"}
        row = WebhookDelivery(webhook_id=webhook_id, event_id=new_id("evt"), type=TEST)
        row.data = json.dumps(data)
        row.status, row.step, row.asked, row.attempts = DeliveryStatus.PENDING, 0, True, []
        row.created_ms = row.next_ms = now
        session.add(row)
        audit.record(session, by, WebhookAction.TEST, webhook_id)
        return row


def redeliver(
    database: Database, webhook_id: str, event_id: str, *, owner: str | None, by: Actor | None = None
) -> WebhookDelivery:
    """Send a message again, or at once if it waits; its schedule begins again.

    Raises:
        WebhookNotFound, DeliveryNotFound: the owner has no such webhook, or it has no such message.
        WebhookDisabled: nothing is sent to it.
    """
    with database.write() as session:
        _enabled(session, webhook_id, owner)
        row = session.scalar(locking(select(WebhookDelivery).where(*_key(webhook_id, event_id))))
        if row is None:
            raise DeliveryNotFound(webhook_id, event_id)
        if row.lease is None:  # otherwise it is being sent at this moment
            row.status, row.step, row.asked = DeliveryStatus.PENDING, 0, True
            row.next_ms = session.scalar(select(now_ms()))
        audit.record(session, by, WebhookAction.REDELIVER, webhook_id, event=event_id)
        return row


def find(session: Session, webhook_id: str, event_id: str, *, owner: str | None) -> WebhookDelivery:
    """One message.

    Raises:
        WebhookNotFound, DeliveryNotFound: as for ``redeliver``.
    """
    endpoints.find(session, webhook_id, owner=owner)
    row = session.scalar(select(WebhookDelivery).where(*_key(webhook_id, event_id)))
    if row is None:
        raise DeliveryNotFound(webhook_id, event_id)
    return row


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Messages of a webhook, the newest first."""

    rows: Sequence[WebhookDelivery]
    next_cursor: str | None


def page(
    session: Session,
    webhook_id: str,
    *,
    owner: str | None,
    status: DeliveryStatus | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> DeliveryPage:
    """A page of the messages of a webhook.

    Raises:
        WebhookNotFound: the owner has no such webhook.
        InvalidCursor: this service did not issue it.
    """
    endpoints.find(session, webhook_id, owner=owner)
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if status is not None:
        query = query.where(WebhookDelivery.status == status)
    if cursor is not None:
        created_ms, event_id = cursors.read(cursor, int, str)
        earlier = and_(WebhookDelivery.created_ms == created_ms, WebhookDelivery.event_id < event_id)
        query = query.where(or_(WebhookDelivery.created_ms < created_ms, earlier))
    order = (WebhookDelivery.created_ms.desc(), WebhookDelivery.event_id.desc())
    rows = session.scalars(query.order_by(*order).limit(limit + 1)).all()
    last = rows[limit - 1] if len(rows) > limit else None
    return DeliveryPage(rows[:limit], cursors.write([last.created_ms, last.event_id]) if last is not None else None)


def count_expired(database: Database, days: float) -> int:
    """How many messages ``remove_expired`` would remove."""
    if not days:
        return 0
    with database.read() as session:
        query = select(func.count()).select_from(WebhookDelivery).where(*_is_expired(days))
        return session.scalar(query) or 0


def remove_expired(database: Database, days: float) -> int:
    """Remove the messages from before a retention period, also those that still wait; returns their number.

    Args:
        days: 0: forever.
    """
    if not days:
        return 0
    with database.write() as session:
        removed = session.execute(delete(WebhookDelivery).where(*_is_expired(days)))
        return int(getattr(removed, "rowcount", 0))


def _is_expired(days: float) -> tuple[ColumnElement[bool], ...]:
    of_any = WebhookDelivery.webhook_id.in_(select(Webhook.id))  # what the index begins with
    return of_any, WebhookDelivery.created_ms < now_ms() - int(days * 24 * 60 * 60 * 1000)


def _key(webhook_id: str, event_id: str) -> tuple[ColumnElement[bool], ...]:
    return WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.event_id == event_id


def _enabled(session: Session, webhook_id: str, owner: str | None) -> Webhook:
    webhook = endpoints.get(session, webhook_id, owner=owner)
    if webhook.disabled_ms is not None:
        raise WebhookDisabled(webhook_id, webhook.disabled_reason or "")
    return webhook
