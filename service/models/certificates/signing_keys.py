"""The public keys of a service: published, never deleted, so that old certificates can be verified."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.access import audit
from service.access.audit import Actor, AuditAction
from service.errors import SigningKeyNotFound, SigningUnavailable
from service.models.certificates.signing import Signer
from service.storage.database import Database, locking, now_ms
from service.storage.tables import SigningKey
from tapeline.verify.claims import time_text
from tapeline.verify.trusted_keys import TrustedKey


def register(database: Database, signer: Signer, *, by: Actor | None = None) -> None:
    """Publish the key of a signer, unless that was done before.

    Raises:
        SigningUnavailable: the key was retired.
    """
    with database.read() as session:
        row = session.get(SigningKey, signer.kid)
    if row is None:
        try:
            with database.write() as session:
                now = session.scalar(select(now_ms())) or 0
                made_ms = now if signer.made_ms is None else min(signer.made_ms, now)
                session.add(SigningKey(kid=signer.kid, public_key=signer.public_key, not_before_ms=made_ms))
                session.flush()
                audit.record(session, by, AuditAction.NEW_SIGNING_KEY, signer.kid)
        except IntegrityError:  # another process has just done it
            return
    elif row.retired_ms is not None:
        raise SigningUnavailable(
            f"the signing key {signer.kid} was retired; make another: tapeline signing-keys rotate"
        )


def register_retired(database: Database, signer: Signer, *, by: Actor | None = None) -> None:
    """Retire the key of a signer that was replaced, which may have signed nothing yet."""
    with database.read() as session:
        row = session.get(SigningKey, signer.kid)
    if row is None:
        register(database, signer, by=by)
    retire(database, signer.kid, by=by)


def all_of(session: Session) -> Sequence[SigningKey]:
    """All keys, the newest first."""
    return session.scalars(select(SigningKey).order_by(SigningKey.not_before_ms.desc(), SigningKey.kid)).all()


def trusted(session: Session) -> dict[str, TrustedKey]:
    """All keys of this service, for a verification, by their ids."""
    return {
        row.kid: TrustedKey(
            row.kid,
            row.public_key,
            _time(row.not_before_ms),
            None if row.retired_ms is None else _time(row.retired_ms),
        )
        for row in all_of(session)
    }


def find(session: Session, text: str) -> SigningKey:
    """The key with this id, or the only one whose id begins with it.

    Raises:
        SigningKeyNotFound: there is none, or several.
    """
    rows = [row for row in all_of(session) if text and row.kid.startswith(text)]
    if len(rows) != 1:
        count = "no key has" if not rows else "several keys have"
        raise SigningKeyNotFound(f"{count} an id that begins with {text!r}: tapeline signing-keys list")
    return rows[0]


def retire(database: Database, kid: str, *, at_ms: int | None = None, by: Actor | None = None) -> SigningKey:
    """Retire a key: signatures from then on are not valid. It stays published. Retiring it again can only move the
    time back.

    Args:
        at_ms: from when on (default: now), for a key that is known to have been stolen earlier; the future means now.
    """
    with database.write() as session:
        row = session.scalar(locking(select(SigningKey).where(SigningKey.kid == kid)))
        if row is None:
            raise SigningKeyNotFound(f"no key has the id {kid}: tapeline signing-keys list")
        now = session.scalar(select(now_ms())) or 0
        moment = now if at_ms is None else min(at_ms, now)  # it signs no more from now on
        row.retired_ms = moment if row.retired_ms is None else min(row.retired_ms, moment)
        audit.record(session, by, AuditAction.RETIRE_SIGNING_KEY, row.kid, retired_ms=row.retired_ms)
    return row


def document(row: SigningKey) -> dict[str, Any]:
    """A key as it is published."""
    return {
        "kid": row.kid,
        "public_key": row.public_key,
        "not_before": time_text(_time(row.not_before_ms)),
        "retired_at": None if row.retired_ms is None else time_text(_time(row.retired_ms)),
    }


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
