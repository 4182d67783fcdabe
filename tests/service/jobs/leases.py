"""A single lease, renewed and asked for requests as its worker does for all of its leases."""

from __future__ import annotations

from service.errors import LeaseLost
from service.jobs import renewals
from service.jobs.leases import Claim, Position, Usage
from service.jobs.renewals import Pending, Renewal
from service.states import Request
from service.storage.database import Database


def renew(
    database: Database, held: Claim, position: Position | None = None, used: Usage | None = None
) -> Request | None:
    """Renew a lease; returns what is requested.

    Raises:
        LeaseLost: it is held no more.
    """
    return _of(held, renewals.renew(database, [Renewal(claim=held, position=position, used=used)]))


def requested(database: Database, held: Claim) -> Request | None:
    """Likewise, without renewing it."""
    return _of(held, renewals.requested(database, [held]))


def _of(held: Claim, pending: Pending) -> Request | None:
    if held in pending.lost:
        raise LeaseLost(held.job_id, held.lease)
    return pending.requests[held]
