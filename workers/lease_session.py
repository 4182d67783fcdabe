"""Database operations under a lease, retried during an outage. Used by the supervisor and its child.

An operation may have been committed before its connection broke, so it must be safe to repeat. Writes that begin with
the lease guard are safe: a repetition finds the work done, or the lease lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Concatenate, Final, ParamSpec, TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.errors import LeaseLost
from service.jobs import leases
from service.jobs.leases import Claim, Position, Usage
from service.states import Request
from service.storage.database import Database

P = ParamSpec("P")
T = TypeVar("T")


RETRY_INTERVAL_S: Final = 0.5
OUTAGE_ERRORS: Final = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""The database is unavailable, locked, full or a standby, or the connection broke: the outcome is unknown.
(PostgreSQL reports a transaction that was idle for too long as an internal error.)"""

log = structlog.get_logger()


def retry_on_outage(
    operation: Callable[[], T], *, timeout_s: float, before_retry: Callable[[], None] = lambda: None
) -> T:
    """Repeat an operation until the database responds.

    Args:
        timeout_s: time from the first failure after which the last error is raised.
        before_retry: called before each retry; if it raises, the retries end.
    """
    deadline: float | None = None
    while True:
        try:
            return operation()
        except OUTAGE_ERRORS as error:
            now = time.monotonic()
            deadline = deadline or now + timeout_s
            if now >= deadline:
                raise
            log.warning("database unavailable; retrying", error=str(error))
        before_retry()
        time.sleep(RETRY_INTERVAL_S)


class OutcomeUnknown(LeaseLost):
    """The lease was lost after an attempt whose response was lost, so it may have been committed."""


@dataclass(frozen=True, slots=True)
class LeaseSession:
    """The operations of a lease holder on its job.

    Each operation is one transaction, which ``call`` retries until the database responds. Writes raise ``LeaseLost`` if
    the job has ended or another worker has claimed it. ``renew`` and ``requested`` are not retried: their caller polls.

    Args:
        timeout_s: how long one operation is retried.
        max_owner_bytes: maximum bytes of the files of all jobs of the job's owner; 0: no limit.
        before_retry: called before each retry; it may raise to give up.
    """

    database: Database
    claim: Claim
    _: KW_ONLY
    timeout_s: float
    max_owner_bytes: int = 0
    before_retry: Callable[[], None] = lambda: None

    def interruptible(self, check: Callable[[], None]) -> LeaseSession:
        """A copy of the session, whose retries end when ``check`` raises."""
        return replace(self, before_retry=check)

    def renew(self, position: Position | None, used: Usage) -> Request | None:
        """Renew the lease; returns the pending request to the job."""
        return leases.renew(self.database, self.claim, position, used)

    def requested(self) -> Request | None:
        """The pending request to the job."""
        return leases.requested(self.database, self.claim)

    def call(self, operation: Callable[Concatenate[Database, Claim, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one operation of ``service`` that begins with the database and the claim."""
        attempts = 0

        def attempt() -> T:
            nonlocal attempts
            attempts += 1
            return operation(self.database, self.claim, *args, **kwargs)

        try:
            return retry_on_outage(attempt, timeout_s=self.timeout_s, before_retry=self.before_retry)
        except LeaseLost as error:
            if attempts > 1:
                raise OutcomeUnknown(self.claim.job_id, self.claim.lease) from error
            raise
