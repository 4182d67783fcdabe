"""The training process's operations on its job, under the lease that its supervisor holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Concatenate, ParamSpec, TypeVar, cast

from sqlalchemy.orm import Session

from service.jobs.leases import Claim
from service.storage.database import Database
from workers import operations
from workers.messages import ChildEndpoint, StopRequested
from workers.operations import Interrupted

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LeaseSession:
    """The operations of a lease holder on its job.

    Each is one transaction, which the supervisor executes, and repeats until the database responds: an attempt may have
    been committed before its connection broke. Writes begin with the lease guard and are safe to repeat: a repetition
    finds the work done, or raises ``LeaseLost``, as it does if the job has ended or another worker has claimed it.

    Args:
        max_owner_bytes: maximum bytes of the files of all jobs of the job's owner; 0: no limit.
        is_interruptible: whether a stop ends the wait for a database that does not respond.
    """

    endpoint: ChildEndpoint
    claim: Claim
    max_owner_bytes: int = 0
    is_interruptible: bool = False

    def interruptible(self) -> LeaseSession:
        """A copy of the session, whose operations raise ``StopRequested`` if a stop is ordered during an outage."""
        return replace(self, is_interruptible=True)

    def call(self, operation: Callable[Concatenate[Database, Claim, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one operation of ``service`` that begins with the database and the claim; a ``then`` is added."""
        return cast(T, self._call(operation, args, kwargs))

    def query(self, query: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one query of ``service`` that begins with the session."""
        return cast(T, self._call(query, args, kwargs))

    def _call(self, operation: Callable[..., T], args: tuple[object, ...], named: dict[str, object]) -> object:
        message = operations.call(operation, *args, is_interruptible=self.is_interruptible, **named)
        try:
            return self.endpoint.call(self.claim, message).result()
        except Interrupted as error:
            raise StopRequested from error
