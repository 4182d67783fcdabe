"""No unfinished job keeps a higher priority than its owner may give, once an admin has lowered that."""

from __future__ import annotations

from typing import Final

from sqlalchemy import case, func, select

from service.access import audit, owners
from service.access.audit import Actor
from service.jobs.transitions import record_status
from service.states import TERMINAL
from service.storage.database import Database, locking, visible
from service.storage.owner_tables import Owner, OwnerQueue
from service.storage.tables import Job

_BATCH: Final = 100
"""Jobs that one transaction changes: claims and commits do not wait for thousands."""


def lower(database: Database, owner: str, *, by: Actor | None = None) -> int:
    """Lower the priorities of an owner's unfinished jobs to the highest allowed one, each with an event.

    Args:
        owner: ``''`` for everybody without a key.

    Returns:
        The number of jobs.
    """
    count = 0
    while changed := _lower_some(database, owner, by):
        count += changed
    return count


def _lower_some(database: Database, owner: str, by: Actor | None) -> int:
    with database.write() as session:
        highest = owners.highest_priority(session, owner or None)
        above = select(Job).where(visible(Job.owner, owner), Job.status.not_in(TERMINAL), Job.priority > highest)
        jobs = session.scalars(locking(above.order_by(Job.id).limit(_BATCH))).all()
        for job in jobs:
            job.priority = highest
            record_status(session, job, reason="changed", priority=highest, **audit.request_of(by))
        return len(jobs)


def lower_urgent(database: Database) -> int:
    """The same for each owner with a queued job that is more urgent than allowed: it was submitted while the limit
    changed, or preempted. Returns the number of jobs."""
    default = case((OwnerQueue.owner == owners.EVERYBODY, owners.HIGHEST_PRIORITY), else_=owners.DEFAULT_MAX_PRIORITY)
    query = select(OwnerQueue.owner).outerjoin(Owner, Owner.id == OwnerQueue.owner)
    query = query.where(OwnerQueue.urgent > func.coalesce(Owner.max_priority, default))
    with database.read() as session:
        names = session.scalars(query).all()
    return sum(lower(database, name) for name in names)
