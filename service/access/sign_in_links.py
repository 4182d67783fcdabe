"""Sign-in links: each signs a browser in once, in place of typing a key. A token is made and compared as a key is."""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.access import keys
from service.access.audit import Actor
from service.access.keys import Identity
from service.errors import LinkNotUsable
from service.storage.database import Database, locking, now_ms
from service.storage.owner_tables import SignInLink
from service.storage.tables import ApiKey

LIFETIME_S: Final = 14 * 24 * 60 * 60
"""How long a link can be used, in seconds."""
SESSION_S: Final = 180 * 24 * 60 * 60
"""Lifetime of a session from a link: its user has no key to sign in with again."""
_KEPT_MS: Final = 90 * 24 * 60 * 60 * 1000
_TOKEN: Final = re.compile(r"tpo_([0-9a-f]{12})_[0-9a-f]{64}")


def create(session: Session, key_id: str, *, lifetime_s: float = LIFETIME_S) -> str:
    """Create a link that signs a browser in once with a key; returns its token."""
    number, token = keys.generate("tpo")
    now = session.scalar(select(now_ms())) or 0
    row = SignInLink(id=f"lnk_{number}", digest=keys.digest(token), key_id=key_id, created_ms=now)
    row.expires_ms = now + int(lifetime_s * 1000)
    session.add(row)
    return token


def find(session: Session, token: str) -> Identity:
    """Who a link signs in, if it is still good.

    Raises:
        LinkNotUsable: it was used, has expired, or its key is not valid any more.
    """
    row = _unused(session, token)
    identity = keys.valid_key(session, row.key_id)
    if identity is None:
        raise LinkNotUsable("the key of the link was revoked, or has expired")
    return identity


def use(database: Database, token: str, *, by: Actor | None = None) -> tuple[Identity, str]:
    """Sign a browser in by a link; returns the token for the cookie.

    Raises:
        LinkNotUsable: see ``find``; of two concurrent uses, one succeeds.
    """
    with database.write() as session:
        row = _unused(session, token, lock=True)
        identity = find(session, token)
        row.used_ms = session.scalar(select(now_ms()))
        return keys.add_session(session, identity, lifetime_s=SESSION_S, by=by)


def was_used_by(session: Session, token: str, owner: str) -> bool:
    """Whether a link has signed in an owner."""
    row = _any(session, token)
    key = session.get(ApiKey, row.key_id) if row is not None and row.used_ms is not None else None
    return key is not None and key.owner == owner


def _any(session: Session, token: str, *, lock: bool = False) -> SignInLink | None:
    match = _TOKEN.fullmatch(token)
    query = select(SignInLink).where(SignInLink.id == (f"lnk_{match[1]}" if match is not None else ""))
    row = session.scalar(locking(query) if lock else query)
    return row if row is not None and keys.is_equal(row.digest, token) else None


def _unused(session: Session, token: str, *, lock: bool = False) -> SignInLink:
    row = _any(session, token, lock=lock)
    if row is None:
        raise LinkNotUsable("the link is not one of this service's")
    if row.used_ms is not None:
        raise LinkNotUsable("the link was used already")
    if row.expires_ms <= (session.scalar(select(now_ms())) or 0):
        raise LinkNotUsable("the link has expired")
    return row


def purge_expired(database: Database) -> None:
    """Delete links that have expired long ago: until then, they say so."""
    with database.write() as session:
        session.execute(delete(SignInLink).where(SignInLink.expires_ms < now_ms() - _KEPT_MS))
