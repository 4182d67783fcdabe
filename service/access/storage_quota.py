"""The quota of job files per owner: what they take, and what unfinished jobs may add.

Both are sums over the index ``ix_jobs_quota``, so no counter has to be kept equal to the rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session

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


@contextmanager
def limit_growth(session: Session, owner: str | None, at_most: int) -> Iterator[None]:
    """Check, at the end of a block that changes the files of an owner's jobs, that they fit into the quota.

    Enter it before a job's row is locked. In PostgreSQL, two transactions would otherwise each miss what the other
    adds: the files of one owner grow in one transaction at a time. Files may always shrink, or be replaced by ones of
    the same size.

    Args:
        at_most: limit in bytes; 0, or no owner: no limit.

    Raises:
        StorageQuotaExceeded: the files have grown, and exceed the limit; roll back.
    """
    if owner is None or not at_most:
        yield
        return
    if session.connection().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_OWNER_LOCK_ID, zlib.crc32(owner.encode()) - 2**31)))
    before = read(session, owner).stored
    yield
    session.flush()
    after = read(session, owner).stored
    if after > max(before, at_most):
        raise StorageQuotaExceeded(owner, before, after - before, at_most)


def limit_growth_of_job(session: Session, job_id: str, at_most: int) -> AbstractContextManager[None]:
    """``limit_growth`` for the owner of a job, which may have been deleted."""
    owner = session.scalar(select(Job.owner).where(Job.id == job_id)) if at_most else None
    return limit_growth(session, owner, at_most)
