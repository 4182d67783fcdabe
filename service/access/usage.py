"""Usage per owner: jobs, CPU time, stored bytes now, of jobs and datasets that exist; and per day, of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, func, select, update
from sqlalchemy.orm import Session

from service.access import storage_quota
from service.states import Status
from service.storage.database import Database, now_ms
from service.storage.owner_tables import Owner, OwnerQueue, OwnerUsage
from service.storage.sweep_tables import is_stopped_by_sweep
from service.storage.tables import ApiKey, Job, Upload

DAY_MS: Final = 24 * 60 * 60 * 1000
QUOTA_DAYS: Final = 30
QUOTA: Final = "quota"
"""Why the jobs of an owner wait."""


@dataclass(slots=True, kw_only=True)
class Usage:
    """One owner's usage; ``owner`` is ``None`` for jobs and datasets created without keys."""

    owner: str | None
    jobs: dict[Status, int] = field(default_factory=dict)
    stopped_by_sweep: int = 0
    """Cancelled jobs that their sweeps stopped."""
    cpu_seconds: float = 0.0
    artifact_bytes: int = 0
    expected_bytes: int = 0
    """Further bytes that unfinished jobs may store."""
    dataset_bytes: int = 0
    keys: int = 0
    """Number of keys that are not revoked."""


def history(session: Session, owners: Collection[str], *, days: int = 30) -> Sequence[OwnerUsage]:
    """What owners have used on each of the last days, the oldest first; ``""``: without keys."""
    query = select(OwnerUsage).where(OwnerUsage.day > now_ms() / DAY_MS - days, OwnerUsage.owner.in_(owners))
    return session.scalars(query.order_by(OwnerUsage.day, OwnerUsage.owner)).all()


def largest(session: Session, *, at_most: int) -> Sequence[Row[Any]]:
    """The owners with most slot-seconds in the last 30 days: what they use now, and what they have used."""
    recent = select(
        OwnerUsage.owner,
        func.sum(OwnerUsage.cpu_seconds).label("cpu_seconds"),
        func.sum(OwnerUsage.slot_seconds).label("slot_seconds"),
        func.coalesce(func.max(OwnerUsage.bytes), 0).label("bytes"),
    ).where(OwnerUsage.day > now_ms() / DAY_MS - QUOTA_DAYS)
    used = recent.group_by(OwnerUsage.owner).subquery()
    columns = [func.coalesce(used.c[name], 0).label(name) for name in ("cpu_seconds", "slot_seconds", "bytes")]
    query = select(OwnerQueue.owner, OwnerQueue.running, OwnerQueue.queued, OwnerQueue.load, *columns)
    query = query.outerjoin(used, used.c.owner == OwnerQueue.owner)
    return session.execute(query.order_by(columns[1].desc(), OwnerQueue.owner).limit(at_most)).all()


def record_bytes(database: Database) -> None:
    """Record what the files of each owner take today."""
    with database.read() as session:
        usages = read(session)
        day = (session.scalar(select(now_ms())) or 0) // DAY_MS
    for item in usages:
        values = {"bytes": item.artifact_bytes + item.dataset_bytes}
        row = database.insert(OwnerUsage).values(owner=item.owner or "", day=day, **values)
        with database.write() as session:  # one at a time: the end of a job waits for its owner's row
            session.execute(row.on_conflict_do_update(index_elements=[OwnerUsage.owner, OwnerUsage.day], set_=values))


def apply_cpu_quotas(
    database: Database, default: int, *, on_block: Callable[[Session, str], object] = lambda session, owner: None
) -> None:
    """Let the jobs of owners wait who have used the CPU time of their last 30 days.

    Args:
        default: CPU seconds of an owner who has no limit of their own; 0: no limit.
        on_block: called with each owner whose jobs begin to wait, in the transaction of that.
    """
    since = now_ms() / DAY_MS - QUOTA_DAYS
    used = select(OwnerUsage.owner, func.sum(OwnerUsage.cpu_seconds)).where(OwnerUsage.day > since)
    now = func.coalesce(Job.cpu_seconds, 0.0) - func.coalesce(Job.claimed_cpu_seconds, 0.0)
    running = select(Job.owner, func.sum(now)).where(Job.status == Status.RUNNING, Job.owner.is_not(None))
    with database.read() as session:
        spent: defaultdict[str | None, float] = defaultdict(float)
        for query in (used.group_by(OwnerUsage.owner), running.group_by(Job.owner)):
            for owner, seconds in session.execute(query):
                spent[owner] += seconds
        limits = dict(session.execute(select(Owner.id, Owner.cpu_seconds)).all())
        before = dict(session.execute(select(OwnerQueue.owner, OwnerQueue.blocked)).all())
    for owner, blocked in before.items():
        limit = limits.get(owner)
        limit = limit if limit is not None else default if owner else 0
        should_block = QUOTA if limit and spent[owner] >= limit else None
        if should_block != blocked:
            with database.write() as session:
                session.execute(update(OwnerQueue).where(OwnerQueue.owner == owner).values(blocked=should_block))
                if should_block:
                    on_block(session, owner)


def read(session: Session, *, owner: str | None = None) -> Sequence[Usage]:
    """The usage of one owner, or (``None``) of all. Expensive: it scans all rows of their jobs."""
    usages: dict[str | None, Usage] = {}

    def usage_of(name: str | None) -> Usage:
        return usages.setdefault(name, Usage(owner=name))

    growth = func.sum(storage_quota.expected_growth())
    jobs = select(Job.owner, Job.status, func.count(), func.sum(Job.cpu_seconds), func.sum(Job.size_bytes), growth)
    jobs = jobs.group_by(Job.owner, Job.status)
    stopped = select(Job.owner, func.count()).where(is_stopped_by_sweep()).group_by(Job.owner)
    uploads = select(Upload.owner, func.sum(Upload.size_bytes)).group_by(Upload.owner)
    keys = select(ApiKey.owner, func.count()).where(ApiKey.revoked_ms.is_(None)).group_by(ApiKey.owner)
    if owner is not None:
        jobs, stopped = jobs.where(Job.owner == owner), stopped.where(Job.owner == owner)
        uploads, keys = uploads.where(Upload.owner == owner), keys.where(ApiKey.owner == owner)
        usage_of(owner)
    for name, status, count, seconds, size, expected in session.execute(jobs):
        usage_of(name).jobs[Status(status)] = count
        usage_of(name).cpu_seconds += seconds or 0.0
        usage_of(name).artifact_bytes += int(size)
        usage_of(name).expected_bytes += int(expected)
    for name, count in session.execute(stopped):
        usage_of(name).stopped_by_sweep = count
    for name, size in session.execute(uploads):
        usage_of(name or None).dataset_bytes = int(size)
    for name, count in session.execute(keys):
        usage_of(name).keys = count
    return sorted(usages.values(), key=lambda item: (-(item.artifact_bytes + item.dataset_bytes), item.owner or ""))
