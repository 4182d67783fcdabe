"""Asking the database again where it did not answer. A write that is asked for twice must be harmless; those that
begin with the guard of a lease are: the second one finds its work done, or the job in other hands."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

PAUSE_S: Final = 0.5
NO_ANSWER: Final = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""The database is away, locked, full or a standby, or the connection broke: nobody knows whether what was asked was
done. (PostgreSQL calls a transaction that stood still for too long an internal error.)"""

T = TypeVar("T")
log = structlog.get_logger()


def retry_on_outage(ask: Callable[[], T], *, patience_s: float, between: Callable[[], None] = lambda: None) -> T:
    """Ask until there is an answer.

    Args:
        patience_s: so long after the first failure, the last error is raised. (The first may take long by itself,
            and says nothing about the second.)
        between: called before each repetition; what it raises ends the asking.
    """
    deadline: float | None = None
    while True:
        try:
            return ask()
        except NO_ANSWER as error:
            deadline = deadline or time.monotonic() + patience_s
            if time.monotonic() > deadline:
                raise
            log.warning("the database does not answer; asking again", error=str(error))
        between()
        time.sleep(PAUSE_S)
