"""API keys: their owners and scopes.

A key is ``tpl_<id>_<secret>``: its row is found by the id, and stores only the SHA-256 of the whole key. The
secret has 256 random bits: it cannot be guessed, and no slow hash is needed. Session tokens of browsers
(``tps_...``) are created and stored in the same way, and become invalid with their key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, Connection, delete, func, or_, select, update
from sqlalchemy.orm import Session

from service.access import audit
from service.access.audit import Actor, AuditAction
from service.access.owners import display_name
from service.access.owners import find as find_owner
from service.errors import KeyNotFound, KeyNotRotatable, OwnerNotFound, SettingsError
from service.runtime.settings import Settings, is_loopback
from service.storage.database import Database, locking, now_ms
from service.storage.tables import ApiKey, AuditEntry, BrowserSession

SESSION_S: Final = 12 * 60 * 60
"""Lifetime of a browser session, in seconds."""
MAX_SESSIONS: Final = 100
"""Concurrent browser sessions per key."""
OVERLAP_S: Final = 24 * 60 * 60
"""How long a rotated key stays valid beside its successor by default, in seconds."""
MAX_OVERLAP_S: Final = 30 * 24 * 60 * 60
LAST_USE_PRECISION_S: Final = 30.0
OWNER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

_KEY: Final = re.compile(r"tpl_([0-9a-f]{12})_[0-9a-f]{64}")
_SESSION: Final = re.compile(r"tps_([0-9a-f]{12})_[0-9a-f]{64}")


class Scope(StrEnum):
    """What a key permits; each scope includes those before it."""

    READ = "read"
    """Read the owner's jobs and datasets."""
    SUBMIT = "submit"
    """Also submit, control and delete them."""
    ADMIN = "admin"
    """Also access all owners' usage, keys and audit log."""

    def covers(self, required: Scope) -> bool:
        """Whether this scope includes ``required``."""
        order = list(Scope)
        return order.index(self) >= order.index(required)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The key and owner of an authenticated request."""

    key_id: str
    key_name: str
    owner: str
    scope: Scope
    expires_ms: int | None = None
    session_id: str | None = None
    """Set if the request was authenticated by a browser's session cookie."""
    display_name: str | None = None
    """The owner's name for people, of a session."""
    by_link: bool = False
    """Whether the session is from a link: the browser has no key to sign in with again."""


def of_settings(key: str) -> Identity:
    """The identity of a key from ``TAPELINE_API_KEYS``: its own owner, with scope ``admin``."""
    name = "key_" + digest(key)[:12]
    return Identity(key_id=name, key_name="TAPELINE_API_KEYS", owner=name, scope=Scope.ADMIN)


def create(
    database: Database,
    *,
    name: str,
    owner: str,
    scope: Scope,
    lifetime_s: float | None = None,
    by: Actor | None = None,
) -> tuple[ApiKey, str]:
    """Create a key.

    Args:
        lifetime_s: seconds until the key expires; ``None``: never.

    Returns:
        The row, and the key itself, which is not stored.
    """
    with database.write() as session:
        return add(session, name=name, owner=owner, scope=scope, lifetime_s=lifetime_s, by=by)


def add(
    session: Session, *, name: str, owner: str, scope: Scope, lifetime_s: float | None, by: Actor | None
) -> tuple[ApiKey, str]:
    """``create`` in a transaction of the caller."""
    if not OWNER.fullmatch(owner):
        raise ValueError(
            f"an owner must be up to 64 ASCII letters, digits and ._@-, beginning with a letter or digit; not {owner!r}"
        )
    now = session.scalar(select(now_ms())) or 0
    expires_ms = None if lifetime_s is None else now + int(lifetime_s * 1000)
    row, key = _add(session, name=name, owner=owner, scope=scope, created_ms=now, expires_ms=expires_ms)
    audit.record(session, by, AuditAction.CREATE_KEY, row.id, name=name, key_owner=owner, scope=scope.value)
    return row, key


def add_again(session: Session, owner: str, *, by: Actor | None) -> ApiKey:
    """A key with the name, scope and lifetime of an owner's newest one, which may be revoked or expired.

    Raises:
        KeyNotFound: the owner has never had a key.
    """
    query = select(ApiKey).where(ApiKey.owner == owner).order_by(ApiKey.created_ms.desc(), ApiKey.id).limit(1)
    old = session.scalar(query)
    if old is None:
        raise KeyNotFound(owner)
    lifetime_s = None if old.expires_ms is None else (old.expires_ms - old.created_ms) / 1000
    return add(session, name=old.name, owner=owner, scope=Scope(old.scope), lifetime_s=lifetime_s, by=by)[0]


def rotate(
    database: Database, key_id: str, *, overlap_s: float = OVERLAP_S, by: Actor | None = None
) -> tuple[ApiKey, ApiKey, str]:
    """Replace a key by a new one. The old key expires after ``overlap_s`` seconds, unless it expires earlier anyway.

    The new key has the same name, owner and scope, and the same lifetime, counted from now.

    Returns:
        The new row, the old one, and the new key itself.

    Raises:
        KeyNotFound: no key has this id.
        KeyNotRotatable: it is expired, revoked, or was rotated before.
    """
    if not 0 <= overlap_s <= MAX_OVERLAP_S:
        raise ValueError(f"an overlap takes 0 to {MAX_OVERLAP_S} seconds, not {overlap_s}")
    with database.write() as session:
        old = session.scalar(locking(select(ApiKey).where(ApiKey.id == key_id)))
        if old is None:
            raise KeyNotFound(key_id)
        now = session.scalar(select(now_ms())) or 0
        state = state_of(old, now=now)
        if state != "valid" or old.replaced_by is not None:
            raise KeyNotRotatable(key_id, state, old.replaced_by)
        expires_ms = None if old.expires_ms is None else now + old.expires_ms - old.created_ms
        new, key = _add(session, name=old.name, owner=old.owner, scope=old.scope, created_ms=now, expires_ms=expires_ms)
        end_ms = now + int(overlap_s * 1000)
        old.expires_ms = end_ms if old.expires_ms is None else min(old.expires_ms, end_ms)
        old.replaced_by = new.id
        session.flush()
        detail = {"name": old.name, "key_owner": old.owner, "new_key": new.id, "overlap_s": overlap_s}
        audit.record(session, by, AuditAction.ROTATE_KEY, old.id, **detail)
    return new, old, key


def same_key(session: Session, key_id: str) -> set[str]:
    """The ids of a key, of those that it replaced by rotations, and of those that replaced it: one person's."""
    found, new = {key_id}, [key_id]
    while new:
        query = select(ApiKey.id, ApiKey.replaced_by).where(or_(ApiKey.id.in_(new), ApiKey.replaced_by.in_(new)))
        linked = {value for row in session.execute(query) for value in row if value is not None}
        new = [value for value in linked if value not in found]
        found.update(new)
    return found


def _add(session: Session, **values: object) -> tuple[ApiKey, str]:
    number, key = generate("tpl")
    row = ApiKey(id=f"key_{number}", digest=digest(key), **values)
    session.add(row)
    session.flush()
    session.refresh(row)
    return row, key


def all_keys(session: Session) -> Sequence[ApiKey]:
    """All keys, oldest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.created_ms, ApiKey.id)).all()


def owners(session: Session) -> set[str]:
    """The owners of the valid keys in the database."""
    return set(session.scalars(select(ApiKey.owner).where(*_is_valid()).distinct()))


def valid_ids(session: Session, owner: str) -> Sequence[str]:
    """The ids of an owner's valid keys, newest first."""
    query = select(ApiKey.id).where(ApiKey.owner == owner, *_is_valid())
    return session.scalars(query.order_by(ApiKey.replaced_by.is_not(None), ApiKey.created_ms.desc(), ApiKey.id)).all()


def find(session: Session, key_id: str) -> ApiKey:
    """One key, which may be revoked or expired.

    Raises:
        KeyNotFound: no key has this id.
    """
    row = session.get(ApiKey, key_id)
    if row is None:
        raise KeyNotFound(key_id)
    return row


def state_of(row: ApiKey, *, now: int) -> str:
    """``valid``, ``expired`` or ``revoked``, by the database's clock in milliseconds."""
    if row.revoked_ms is not None:
        return "revoked"
    return "expired" if row.expires_ms is not None and row.expires_ms <= now else "valid"


def current_id(session: Session, id_or_name: str) -> str:
    """The id of a key, given its id, or the name of exactly one key that is valid and not replaced.

    Raises:
        KeyNotFound: no key matches, or several do.
    """
    if session.get(ApiKey, id_or_name) is not None:
        return id_or_name
    query = select(ApiKey.id).where(ApiKey.name == id_or_name, ApiKey.replaced_by.is_(None), *_is_valid())
    key_ids = session.scalars(query).all()
    if len(key_ids) != 1:
        raise KeyNotFound(id_or_name, key_ids)
    return key_ids[0]


def record_use(database: Database, key_ids: Collection[str]) -> None:
    """Record that keys were used now; keys with a recent recorded use are skipped."""
    now = now_ms()
    recently_ms = int(LAST_USE_PRECISION_S / 2 * 1000)
    is_stale = or_(ApiKey.last_used_ms.is_(None), ApiKey.last_used_ms < now - recently_ms)

    statement = update(ApiKey).where(ApiKey.id.in_(key_ids), is_stale).values(last_used_ms=now)

    def write(connection: Connection) -> None:
        connection.execute(statement)

    database.group_commit(write)


def last_recorded(session: Session, key_id: str | None = None) -> dict[str, int]:
    """When the last action of one key, or (``None``) of each key, was audited, in ms. Reads are not audited."""
    last_ms = select(func.max(AuditEntry.at_ms)).where(AuditEntry.key_id == ApiKey.id).scalar_subquery()
    query = select(ApiKey.id, last_ms)
    if key_id is not None:
        query = query.where(ApiKey.id == key_id)
    return {row_id: at_ms for row_id, at_ms in session.execute(query) if at_ms is not None}


def last_used(row: ApiKey, recorded_ms: int | None) -> int | None:
    """When a key was last used, in milliseconds.

    Args:
        recorded_ms: of its last audited action, from ``last_recorded``. Actions are recorded at once, uses later.
    """
    return max((at_ms for at_ms in (row.last_used_ms, recorded_ms) if at_ms is not None), default=None)


def revoke(database: Database, id_or_name: str, *, by: Actor | None = None) -> ApiKey:
    """Revoke a key and end its browser sessions. Web processes cache keys for some seconds.

    Args:
        id_or_name: its id, a name that no other valid key has, or, if it is no key's name, an owner of one key.

    Raises:
        KeyNotFound: no key matches, or several do.
    """
    with database.write() as session:
        unrevoked = select(ApiKey).where(ApiKey.revoked_ms.is_(None))
        is_named = or_(ApiKey.id == id_or_name, ApiKey.name == id_or_name)
        rows = session.scalars(locking(unrevoked.where(is_named))).all()
        rows = [row for row in rows if row.id == id_or_name] or rows  # a name may look like another key's id
        if not rows and session.scalar(select(ApiKey.id).where(is_named).limit(1)) is None:
            try:
                of_owner = ApiKey.owner == find_owner(session, id_or_name)
            except OwnerNotFound as error:
                raise KeyNotFound(id_or_name, similar=error.similar) from error
            rows = session.scalars(locking(unrevoked.where(of_owner))).all()
        now = session.scalar(select(now_ms())) or 0
        rows = [row for row in rows if len(rows) == 1 or state_of(row, now=now) == "valid"] or rows
        if len(rows) != 1:
            raise KeyNotFound(id_or_name, [row.id for row in rows])
        return _revoke(session, rows[0], by)


def revoke_id(database: Database, key_id: str, *, by: Actor | None = None) -> ApiKey:
    """Revoke a key by its id; a revoked key stays unchanged.

    Raises:
        KeyNotFound: no key has this id.
    """
    with database.write() as session:
        row = session.scalar(locking(select(ApiKey).where(ApiKey.id == key_id)))
        if row is None:
            raise KeyNotFound(key_id)
        return _revoke(session, row, by) if row.revoked_ms is None else row


def _revoke(session: Session, row: ApiKey, by: Actor | None) -> ApiKey:
    row.revoked_ms = now_ms()
    session.execute(delete(BrowserSession).where(BrowserSession.key_id == row.id))
    session.flush()
    session.refresh(row)
    audit.record(session, by, AuditAction.REVOKE_KEY, row.id, name=row.name, key_owner=row.owner)
    return row


def identify(session: Session, text: str) -> Identity | None:
    """The identity of a valid key in the database, or ``None``."""
    match = _KEY.fullmatch(text)
    if match is None:
        return None
    row = session.scalar(select(ApiKey).where(ApiKey.id == f"key_{match[1]}", *_is_valid()))
    # The row is found by the id, which is no secret; the digest is compared in constant time.
    if row is None or not hmac.compare_digest(row.digest, digest(text)):
        return None
    return _identity(row)


def sign_in(
    database: Database, identity: Identity, *, lifetime_s: float = SESSION_S, by: Actor | None = None
) -> tuple[Identity, str]:
    """Create a browser session; returns the token for the cookie."""
    with database.write() as session:
        return add_session(session, identity, lifetime_s=lifetime_s, by=by)


def add_session(session: Session, identity: Identity, *, lifetime_s: float, by: Actor | None) -> tuple[Identity, str]:
    """Like ``sign_in``, in a transaction of the caller."""
    number, token = generate("tps")
    now = session.scalar(select(now_ms())) or 0
    expires_ms = min(now + int(lifetime_s * 1000), identity.expires_ms or 2**62)
    row = BrowserSession(
        id=f"ses_{number}", digest=digest(token), key_id=identity.key_id, created_ms=now, expires_ms=expires_ms
    )
    session.add(row)
    session.flush()
    # Delete the oldest sessions: a program that signs in for each request must not fill the table.
    session_ids = select(BrowserSession.id).where(BrowserSession.key_id == identity.key_id)
    newest = session_ids.order_by(BrowserSession.created_ms.desc(), BrowserSession.id.desc()).limit(MAX_SESSIONS)
    of_key = BrowserSession.key_id == identity.key_id
    session.execute(delete(BrowserSession).where(of_key, BrowserSession.id.not_in(newest.scalar_subquery())))
    audit.record(session, by, AuditAction.SIGN_IN, row.id)
    return _in_session(session, identity, row), token


def identify_browser(session: Session, token: str, of_settings: Sequence[Identity]) -> Identity | None:
    """The identity behind a session cookie, or ``None`` if the session or its key is no longer valid.

    Args:
        of_settings: identities of the keys in ``TAPELINE_API_KEYS``, which have no row.
    """
    match = _SESSION.fullmatch(token)
    if match is None:
        return None
    unexpired = BrowserSession.expires_ms > now_ms()
    row = session.scalar(select(BrowserSession).where(BrowserSession.id == f"ses_{match[1]}", unexpired))
    if row is None or not hmac.compare_digest(row.digest, digest(token)):
        return None
    for identity in of_settings:
        if identity.key_id == row.key_id:
            return _in_session(session, identity, row)
    found = valid_key(session, row.key_id)
    return _in_session(session, found, row) if found is not None else None


def sign_out(database: Database, session_id: str, *, by: Actor | None = None) -> None:
    """Delete a browser session."""
    with database.write() as session:
        session.execute(delete(BrowserSession).where(BrowserSession.id == session_id))
        audit.record(session, by, AuditAction.SIGN_OUT, session_id)


def record_failed_sign_in(database: Database, *, by: Actor) -> None:
    """Record a failed sign-in."""
    with database.write() as session:
        audit.record(session, by, AuditAction.SIGN_IN_REFUSED, None)


def purge_expired(database: Database) -> None:
    """Delete expired browser sessions."""
    with database.write() as session:
        session.execute(delete(BrowserSession).where(BrowserSession.expires_ms < now_ms()))


def require_any_key(settings: Settings, database: Database) -> None:
    """Check that a service that requires keys has at least one valid key.

    Raises:
        SettingsError: keys are required, and there is none.
    """
    if not settings.keys_required or settings.api_keys:
        return
    with database.read() as session:
        if session.scalar(select(ApiKey.id).where(*_is_valid()).limit(1)) is not None:
            return
    remedy = "unset TAPELINE_AUTH" if is_loopback(settings.host) else "bind to 127.0.0.1"
    raise SettingsError(
        f"API keys are required (TAPELINE_AUTH={settings.auth}, TAPELINE_HOST={settings.host}), and there are none: "
        f"create one with `tapeline keys create NAME`, set TAPELINE_API_KEYS, or {remedy}"
    )


def generate(prefix: str) -> tuple[str, str]:
    """A random key or token, and the number in it, by which its row is found."""
    number = secrets.token_hex(6)
    return number, f"{prefix}_{number}_{secrets.token_hex(32)}"


def digest(text: str) -> str:
    """What is stored of a key or token."""
    return hashlib.sha256(text.encode()).hexdigest()


def is_equal(stored: str, text: str) -> bool:
    """Whether a key or token is the one with this digest."""
    return hmac.compare_digest(stored, digest(text))


def _is_valid() -> tuple[ColumnElement[bool], ...]:
    return ApiKey.revoked_ms.is_(None), or_(ApiKey.expires_ms.is_(None), ApiKey.expires_ms > now_ms())


def valid_key(session: Session, key_id: str) -> Identity | None:
    """The identity of a key that is neither revoked nor expired."""
    row = session.scalar(select(ApiKey).where(ApiKey.id == key_id, *_is_valid()))
    return _identity(row) if row is not None else None


def _identity(row: ApiKey) -> Identity:
    return Identity(
        key_id=row.id, key_name=row.name, owner=row.owner, scope=Scope(row.scope), expires_ms=row.expires_ms
    )


def _in_session(session: Session, identity: Identity, row: BrowserSession) -> Identity:
    by_link = row.expires_ms - row.created_ms > SESSION_S * 1000
    name = display_name(session, identity.owner)
    return replace(identity, session_id=row.id, expires_ms=row.expires_ms, display_name=name, by_link=by_link)
