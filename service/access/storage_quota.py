"""The quota of job files per owner: what they take, and what unfinished jobs may add.

Both are sums over the index ``ix_jobs_quota``, so no counter has to be kept equal to the rows.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session

from service.access import owners
from service.errors import StorageQuotaExceeded
from service.states import TERMINAL
from service.storage.tables import Job

_OWNER_LOCK_ID: Final = 7_267_003
"""An arbitrary id for owners among PostgreSQL's advisory locks of two keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBytes:
    """The files of an owner's jobs."""

    stored: int
    expected: int
    """Further bytes that unfinished jobs may store, as estimated at their submission."""


def expected_growth() -> ColumnElement[int]:
    """In SQL, the bytes that a job may still store; 0 once it has ended."""
    may_grow = and_(Job.status.not_in(TERMINAL), Job.expected_bytes > Job.size_bytes)
    return case((may_grow, Job.expected_bytes - Job.size_bytes), else_=0)


def read(session: Session, owner: str) -> StoredBytes:
    """The present sums of an owner."""
    sums = select(func.sum(Job.size_bytes), func.sum(expected_growth())).where(Job.owner == owner)
    stored, expected = session.execute(sums).one()
    return StoredBytes(stored=int(stored or 0), expected=int(expected or 0))


def check_growth(session: Session, owner: str | None, added: int, at_most: int) -> None:
    """Check that the files that a transaction adds to an owner's jobs fit into the quota.

    Call it after all other writes to jobs. In PostgreSQL, two transactions would otherwise each miss what the other
    adds, so those of one owner that grow within a quota wait here for each other, and no row of a job may be locked
    afterwards. Without an owner, growth or quota there is nothing to wait for, and the sums are not read.

    Args:
        added: bytes by which the files have grown. Files may always shrink, or be replaced by ones of the same size.
        at_most: limit in bytes of an owner who has none of their own; 0: no limit.

    Raises:
        StorageQuotaExceeded: they do not fit; roll back.
    """
    if owner is not None and added > 0:
        check_within(session, owner, added, owners.limit_of(session, owner, "artifact_bytes", at_most))


def check_within(session: Session, owner: str | None, added: int, at_most: int) -> None:
    """Likewise, with the limit of this owner; 0: no limit."""
    if owner is None or added <= 0 or not at_most:
        return
    if session.connection().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_OWNER_LOCK_ID, zlib.crc32(owner.encode()) - 2**31)))
    session.flush()
    stored = read(session, owner).stored
    if stored > at_most:
        raise StorageQuotaExceeded(owner, stored - added, added, at_most)
