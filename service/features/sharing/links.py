"""Share links: whoever has one may read one job, sweep or comparison, and never the content of a dataset.

A token is made, found and compared as an API key is: see ``keys``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs, urlencode

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from service.access import audit, keys
from service.access.audit import Actor
from service.access.keys import Identity, Scope
from service.access.shares import Shared
from service.errors import Fault, SpecError
from service.features.sharing.actions import ShareAction
from service.features.sharing.errors import ShareNotFound
from service.features.sharing.tables import Share
from service.storage.database import Database, locking, now_ms, visible
from service.storage.sweep_tables import Sweep
from service.storage.tables import Job

MAX_PATH: Final = 2000
TOKEN: Final = re.compile(r"tsh_([0-9a-f]{12})_[0-9a-f]{64}")
_MAX_LIFETIME_MS: Final = 3653 * 24 * 60 * 60 * 1000
_OBJECT: Final = re.compile(r"/(?:jobs/job|sweeps/swp)_[0-9A-Za-z]{1,30}")
_ID: Final = re.compile(r"\b(job|swp)_[0-9A-Za-z]+")
_JOB: Final = r"job_[0-9A-Za-z]{1,30}"
_SIDE: Final = rf"{_JOB}|swp_[0-9A-Za-z]{{1,30}}(?::[0-9]{{1,9}})?"
_COMPARISONS: Final[Mapping[str, Mapping[str, str]]] = {
    "/comparisons": {"a": _SIDE, "b": _SIDE},
    "/compare": {"jobs": _JOB},
}
"""By path, the required parameters, with the pattern of an id."""
_TEXT: Final = r"[^\x00-\x1f\x7f]{1,200}"
_OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "/comparisons": {"metric": _TEXT, "of": "best|last"},
    "/compare": {"x": _TEXT, "y": _TEXT, "of": "best|last"},
}
"""Likewise, the other parameters."""


def create(
    database: Database, path: str, *, owner: str | None, expires_ms: int | None = None, by: Actor | None = None
) -> tuple[Share, str]:
    """Create a link; returns its row, and its token, which is not stored.

    Raises:
        SpecError: the path shows no job, sweep or comparison of this owner.
    """
    path = _checked(path)
    with database.write() as session:
        for match in _ID.finditer(path):
            table = Job if match[1] == "job" else Sweep
            if session.scalar(select(table.id).where(table.id == match[0], visible(table.owner, owner))) is None:
                detail = f"there is no {'job' if table is Job else 'sweep'} {match[0]}"
                raise SpecError([Fault(pointer="#/path", detail=detail, code="not_found")])
        now = session.scalar(select(now_ms())) or 0
        if expires_ms is not None and not now < expires_ms <= now + _MAX_LIFETIME_MS:
            detail = "is in the past" if expires_ms <= now else "is more than ten years ahead"
            raise SpecError([Fault(pointer="#/expires_at", detail=detail, code="out_of_range")])
        number, token = keys.generate("tsh")
        row = Share(id=f"shr_{number}", digest=keys.digest(token), owner=owner, path=path)
        row.created_ms, row.expires_ms = now, expires_ms
        session.add(row)
        audit.record(session, by, ShareAction.SHARE, row.id, path=row.path)
    return row, token


def _checked(path: str) -> str:
    """The path without ``/ui`` and, of a comparison, with the parameters that are known.

    Raises:
        SpecError: it shows nothing that can be shared.
    """
    path = path.removeprefix("/ui")
    if _OBJECT.fullmatch(path):
        return path
    page, _, query = path.partition("?")
    sent, kept = parse_qs(query) if len(path) <= MAX_PATH else {}, {}
    for name, pattern in _COMPARISONS.get(page, {"": ""}).items():
        ids = [text for value in sent.get(name, ()) for text in value.split(",") if text]
        if not ids or not all(re.fullmatch(pattern, text) for text in ids):
            detail = "must be /jobs/ID, /sweeps/ID, /comparisons?a=ID&b=ID or /compare?jobs=ID,ID"
            raise SpecError([Fault(pointer="#/path", detail=detail, code="invalid")])
        kept[name] = ",".join(ids)
    options = {name: sent[name][-1] for name in _OPTIONS[page] if name in sent}
    kept |= {name: text for name, text in options.items() if re.fullmatch(_OPTIONS[page][name], text)}
    return f"{page}?{urlencode(kept, safe=':,')}"


def find(session: Session, token: str, configured: Collection[str] = ()) -> Shared:
    """The link of a token.

    Args:
        configured: the owners of the keys in the settings, which have no rows.

    Raises:
        ShareNotFound: it was revoked or has expired, or its owner has no valid key any more.
    """
    match = TOKEN.fullmatch(token)
    row = session.get(Share, f"shr_{match[1]}") if match is not None else None
    now = session.scalar(select(now_ms())) or 0
    if row is None or not keys.is_equal(row.digest, token) or row.revoked_ms is not None:
        raise ShareNotFound
    if row.expires_ms is not None and row.expires_ms <= now:
        raise ShareNotFound
    if row.owner is not None and row.owner not in configured and not keys.valid_ids(session, row.owner):
        raise ShareNotFound
    name = f"the share link {row.id}"
    identity = Identity(key_id=row.id, key_name=name, owner=row.owner or "", scope=Scope.READ)
    return Shared(row.path, identity, token)


def all_of(session: Session, owner: str | None) -> Sequence[Share]:
    """The links of an owner (``None``: of all) that are not revoked, the newest first."""
    now = session.scalar(select(now_ms())) or 0
    query = select(Share).where(visible(Share.owner, owner), Share.revoked_ms.is_(None))
    return session.scalars(
        query.where(or_(Share.expires_ms.is_(None), Share.expires_ms > now)).order_by(Share.created_ms.desc(), Share.id)
    ).all()


def revoke(database: Database, share_id: str, *, owner: str | None, by: Actor | None = None) -> None:
    """Revoke a link. It stops working within two seconds.

    Args:
        owner: whose link it must be; ``None``: anybody's.

    Raises:
        ShareNotFound: the owner has no such link.
    """
    with database.write() as session:
        row = session.scalar(locking(select(Share).where(Share.id == share_id, visible(Share.owner, owner))))
        if row is None or row.revoked_ms is not None:
            raise ShareNotFound
        row.revoked_ms = session.scalar(select(now_ms()))
        audit.record(session, by, ShareAction.REVOKE_SHARE, row.id, path=row.path, share_owner=row.owner)
