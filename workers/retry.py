"""Retries of database operations during an outage.

An operation may have been committed before its connection broke, so it must be safe to repeat. Writes that begin with
the lease guard are safe: a repetition finds the work done, or the lease lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

RETRY_INTERVAL_S: Final = 0.5
OUTAGE_ERRORS: Final = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""The database is unavailable, locked, full or a standby, or the connection broke: the outcome is unknown.
(PostgreSQL reports a transaction that was idle for too long as an internal error.)"""

T = TypeVar("T")
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
