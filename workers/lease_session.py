"""Database operations under a lease, retried during an outage. Used by the supervisor and its child."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from service.errors import LeaseLost
from service.jobs import leases
from service.jobs.leases import Claim, Position, Usage
from service.states import Request
from service.storage.database import Database
from workers.retry import retry_on_outage

P = ParamSpec("P")
T = TypeVar("T")


class OutcomeUnknown(LeaseLost):
    """The lease was lost after an attempt whose response was lost, so it may have been committed."""


class LeaseSession:
    """The operations of a lease holder on its job.

    Each operation is one transaction, which ``call`` retries until the database responds. Writes raise ``LeaseLost`` if
    the job has ended or another worker has claimed it. ``renew`` and ``requested`` are not retried: their caller polls.

    Args:
        timeout_s: how long one operation is retried.
        max_owner_bytes: maximum bytes of the files of all jobs of the job's owner; 0: no limit.
        before_retry: called before each retry; it may raise to give up.
    """

    def __init__(
        self,
        database: Database,
        claim: Claim,
        *,
        timeout_s: float,
        max_owner_bytes: int = 0,
        before_retry: Callable[[], None] = lambda: None,
    ) -> None:
        self.database, self.claim = database, claim
        self.max_owner_bytes = max_owner_bytes
        self._timeout_s, self._before_retry = timeout_s, before_retry

    def interruptible(self, check: Callable[[], None]) -> LeaseSession:
        """A copy of the session, whose retries end when ``check`` raises."""
        return LeaseSession(
            self.database,
            self.claim,
            timeout_s=self._timeout_s,
            max_owner_bytes=self.max_owner_bytes,
            before_retry=check,
        )

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
            return retry_on_outage(attempt, timeout_s=self._timeout_s, before_retry=self._before_retry)
        except LeaseLost as error:
            if attempts > 1:
                raise OutcomeUnknown(self.claim.job_id, self.claim.lease) from error
            raise
