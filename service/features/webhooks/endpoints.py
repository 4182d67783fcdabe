"""The webhooks of an owner: created, changed, rotated, disabled and deleted. Each function is one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.access import audit
from service.access.audit import Actor
from service.errors import Fault, SpecError
from service.features.webhooks.actions import WebhookAction
from service.features.webhooks.errors import AddressRefused, WebhookNotFound
from service.features.webhooks.outbox import MessageType
from service.features.webhooks.protocol import addresses, signing
from service.features.webhooks.protocol.addresses import AddressRules, Resolver, Target
from service.features.webhooks.tables import Webhook
from service.storage.database import Database, locking, now_ms, visible
from service.storage.ids import new_id

MAX_WEBHOOKS: Final = 20
"""Of an owner."""
OVERLAP_S: Final = 24 * 60 * 60
"""How long messages are signed with the keys from before a rotation, too."""
_OF_ADMINS: Final = frozenset({MessageType.WORKER_LOST})
"""What tells about the service, not about an owner's own objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What to change; ``None``: nothing."""

    url: str | None = None
    events: Sequence[MessageType] | None = None
    description: str | None = None
    """Empty: none."""
    enabled: bool | None = None


def create(
    database: Database,
    url: str,
    events: Sequence[MessageType],
    rules: AddressRules,
    *,
    owner: str | None,
    description: str | None = None,
    is_admin: bool,
    by: Actor | None = None,
    resolver: Resolver = addresses.system_resolver,
) -> Webhook:
    """Create a webhook. Its row has the secret, which is shown once.

    Args:
        is_admin: whether it may tell about the service.

    Raises:
        SpecError: nothing may be sent to this address, the owner may not know of these events, or has too many
            webhooks.
    """
    target = _checked(url, rules, resolver)
    _check_events(events, is_admin=is_admin)
    with database.write() as session:
        count = select(func.count()).select_from(Webhook).where(visible(Webhook.owner, owner or ""))
        if (session.scalar(count) or 0) >= MAX_WEBHOOKS:
            detail = f"you have {MAX_WEBHOOKS} webhooks: delete one, or let one send more types of events"
            raise SpecError([Fault(pointer="#", detail=detail, code="too_many")])
        row = Webhook(id=new_id("whk"), owner=owner, url=target.url, host=target.name, events=_names(events))
        row.description, row.failures = description or None, 0
        row.secret, row.signing_key = signing.new_secret(), signing.new_signing_key()
        row.created_ms = session.scalar(select(now_ms())) or 0
        session.add(row)
        audit.record(session, by, WebhookAction.CREATE, row.id, url=row.url, events=row.events)
    return row


def change(
    database: Database,
    webhook_id: str,
    changes: Changes,
    rules: AddressRules,
    *,
    owner: str | None,
    is_admin: bool,
    by: Actor | None = None,
    resolver: Resolver = addresses.system_resolver,
) -> Webhook:
    """Change a webhook. One that is enabled again gets the messages that waited.

    Raises:
        WebhookNotFound: the owner has no such webhook.
        SpecError: as for ``create``.
    """
    target = None if changes.url is None else _checked(changes.url, rules, resolver)
    if changes.events is not None:
        _check_events(changes.events, is_admin=is_admin)
    with database.write() as session:
        row = get(session, webhook_id, owner=owner)
        if target is not None and target.url != row.url:
            _check_events([MessageType(name) for name in row.events], is_admin=is_admin)  # nobody else redirects them
            row.url, row.host = target.url, target.name
            row.failures, row.resume_ms = 0, None  # of the address before
        if changes.events is not None:
            row.events = _names(changes.events)
        if changes.description is not None:
            row.description = changes.description or None
        if changes.enabled is not None and changes.enabled == (row.disabled_ms is not None):
            row.disabled_ms = None if changes.enabled else session.scalar(select(now_ms()))
            row.disabled_reason = None if changes.enabled else "its owner has disabled it"
            row.failures, row.resume_ms = 0, None
        detail: dict[str, Any] = {"url": row.url, "events": row.events, "enabled": row.disabled_ms is None}
        audit.record(session, by, WebhookAction.CHANGE, webhook_id, **detail)
        return row


def rotate(database: Database, webhook_id: str, *, owner: str | None, by: Actor | None = None) -> Webhook:
    """Replace secret and signing key. For ``OVERLAP_S``, messages have the signatures of both.

    Raises:
        WebhookNotFound: the owner has no such webhook.
    """
    with database.write() as session:
        row = get(session, webhook_id, owner=owner)
        row.previous_secret, row.previous_signing_key = row.secret, row.signing_key
        row.previous_expires_ms = (session.scalar(select(now_ms())) or 0) + OVERLAP_S * 1000
        row.secret, row.signing_key = signing.new_secret(), signing.new_signing_key()
        audit.record(session, by, WebhookAction.ROTATE, webhook_id)
        return row


def remove(database: Database, webhook_id: str, *, owner: str | None, by: Actor | None = None) -> None:
    """Delete a webhook with its messages.

    Raises:
        WebhookNotFound: the owner has no such webhook.
    """
    with database.write() as session:
        row = get(session, webhook_id, owner=owner)
        audit.record(session, by, WebhookAction.DELETE, webhook_id, url=row.url)
        session.execute(delete(Webhook).where(Webhook.id == webhook_id))  # and, by the foreign key, its messages


def all_of(session: Session, owner: str | None) -> Sequence[Webhook]:
    """The webhooks of an owner (``None``: of all), the oldest first."""
    query = select(Webhook).where(visible(Webhook.owner, owner))
    return session.scalars(query.order_by(Webhook.created_ms, Webhook.id)).all()


def find(session: Session, webhook_id: str, *, owner: str | None) -> Webhook:
    """One webhook.

    Raises:
        WebhookNotFound: the owner has no such webhook.
    """
    row = session.scalar(select(Webhook).where(Webhook.id == webhook_id, visible(Webhook.owner, owner)))
    if row is None:
        raise WebhookNotFound(webhook_id)
    return row


def lock(session: Session, webhook_id: str) -> Webhook | None:
    """The row of any owner, locked. Others may write messages meanwhile, whose foreign key it is."""
    return session.scalar(locking(select(Webhook).where(Webhook.id == webhook_id), keeps_key=True))


def get(session: Session, webhook_id: str, *, owner: str | None) -> Webhook:
    """``find``, and lock the row."""
    find(session, webhook_id, owner=owner)
    row = lock(session, webhook_id)
    if row is None:
        raise WebhookNotFound(webhook_id)
    return row


def keys_of(row: Webhook, now: int) -> dict[str, list[str]]:
    """The ``secrets`` and ``signing_keys`` that sign a message now: after a rotation, two of each."""
    secrets, signing_keys = [row.secret], [row.signing_key]
    if row.previous_secret and row.previous_signing_key and now < (row.previous_expires_ms or 0):
        secrets.append(row.previous_secret)
        signing_keys.append(row.previous_signing_key)
    return {"secrets": secrets, "signing_keys": signing_keys}


def _checked(url: str, rules: AddressRules, resolver: Resolver) -> Target:
    try:
        target = addresses.parse(url, rules)
        addresses.resolve(target, rules, resolver)
    except AddressRefused as error:
        raise SpecError([Fault(pointer="#/url", detail=str(error), code="address_refused")]) from error
    return target


def _check_events(events: Sequence[MessageType], *, is_admin: bool) -> None:
    forbidden = [] if is_admin else sorted(_OF_ADMINS.intersection(events))
    if forbidden:
        detail = f"{forbidden[0]} concerns the whole service: it needs a key with the scope admin"
        raise SpecError([Fault(pointer="#/events", detail=detail, code="scope_missing")])


def _names(events: Sequence[MessageType]) -> list[str]:
    return [kind.value for kind in MessageType if kind in events]
