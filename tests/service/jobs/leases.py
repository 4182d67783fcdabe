"""The writes of a worker; a single lease, renewed and asked for requests as its worker does for all of its leases."""

from __future__ import annotations

from collections.abc import Callable

from service.errors import LeaseLost
from service.jobs import commits, epoch_commits, leases, renewals
from service.jobs.leases import Claim, Position, Usage
from service.jobs.renewals import Pending, Renewal
from service.states import Request
from service.storage.database import Database
from tests.service.jobs.conftest import commit, record


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


WRITES: dict[str, Callable[[Database, Claim], object]] = {
    "begin": lambda database, held: leases.begin(database, held, {}),
    "renew": lambda database, held: renew(database, held, None),
    "requested": requested,
    "commit_epoch": lambda database, held: commit(database, held, record(1)),
    "log": lambda database, held: commits.log(database, held, "info", "c", "m"),
    "succeed": lambda database, held: epoch_commits.succeed(database, held, "sha256:x"),
    "fail": lambda database, held: commits.fail(database, held, {"code": "internal", "message": "m"}),
    "release_lease": lambda database, held: leases.release_lease(database, held, None),
    "record_child_loss": lambda database, held: leases.record_child_loss(database, held, "m"),
}
