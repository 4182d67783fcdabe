"""Quotas per owner, and rate limits for wrong keys and sign-ins.

The library `limits` counts, in this process if it is the only web process, otherwise in Redis, which all web processes
share. While Redis does not respond, each process counts separately, and no request fails because of it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter

from service.application.ports import AdmissionRefused
from service.jobs.queries import queue
from service.runtime.settings import Settings
from service.storage.database import Database
from service.web.middleware.problems import Problem

GUESSES: Final = 60
"""Wrong keys per address and minute."""
SIGN_INS: Final = 60
"""Sign-ins per key and minute."""
_REDIS_TIMEOUT_S: Final = 0.25
"""Timeout of a Redis request."""
_REDIS_RETRY_S: Final = 10.0
"""How long Redis is not used after a failure."""
_COUNT_TTL_S: Final = 1.0
"""How long a count of queued jobs is cached: counting them for each submission would take longer than storing one."""

_log = structlog.get_logger("tapeline.web.quotas")
_REMEDY: Final = "wait until jobs start, cancel some, or ask the operator for a higher limit"


class QuotaExceeded(Problem):
    """A quota is exhausted; the response says when to retry."""

    def __init__(self, code: str, detail: str, wait_s: int) -> None:
        super().__init__(code, detail, headers={"Retry-After": str(wait_s)}, retry_after_s=wait_s)


class TooManyQueued(QuotaExceeded, AdmissionRefused):
    """The owner has the maximum number of queued jobs."""


@dataclass(slots=True)
class _QueuedCount:
    count: int
    counted_at: float


class Quotas:
    """Quota checks of a web process. Connections and threads are created on first use."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.limits = settings.quotas
        self._database = database
        self._meter = _Meter(None if settings.embedded_database else settings.broker_url)
        self._requests = RateLimitItemPerMinute(self.limits.requests) if self.limits.requests else None
        self._uploads = RateLimitItemPerDay(self.limits.uploads) if self.limits.uploads else None
        self._guesses = RateLimitItemPerMinute(GUESSES)
        self._sign_ins = RateLimitItemPerMinute(SIGN_INS)
        self._lock = threading.Lock()
        self._streams: Counter[str] = Counter()
        self._queued: dict[str, _QueuedCount] = {}

    def request(self, owner: str) -> None:
        """Count a request.

        Raises:
            QuotaExceeded: the owner sent too many within a minute.
        """
        if self._requests is not None and (wait_s := self._meter.spend(self._requests, "request", owner)):
            detail = f"{owner} has exceeded {self.limits.requests} requests per minute"
            raise QuotaExceeded("rate_limited", detail, wait_s)

    def requests_left(self, owner: str) -> int | None:
        """Remaining requests of an owner in this minute; ``None``: no limit."""
        return self._meter.remaining(self._requests, "request", owner) if self._requests is not None else None

    def upload_bytes_left(self, owner: str) -> int | None:
        """Remaining upload bytes of an owner today; ``None``: no limit."""
        return self._meter.remaining(self._uploads, "upload", owner) if self._uploads is not None else None

    def check_upload(self, owner: str | None, size_bytes: int) -> None:
        """Check an upload of this size against the daily quota; ``count_upload`` counts the bytes.

        Raises:
            QuotaExceeded: the upload would exceed it.
        """
        if owner is None or self._uploads is None:
            return
        if wait_s := self._meter.seconds_until_available(self._uploads, "upload", owner, cost=size_bytes):
            detail = f"this upload exceeds the daily limit of {owner}: {self.limits.uploads} bytes"
            raise QuotaExceeded("quota_exceeded", detail, wait_s)

    def count_upload(self, owner: str | None, size_bytes: int) -> None:
        """Count received bytes, whether the upload succeeded or not."""
        if owner is not None and self._uploads is not None and size_bytes:
            self._meter.spend(self._uploads, "upload", owner, cost=size_bytes)

    def check_wrong_keys(self, address: str) -> None:
        """Check that this address has not sent too many wrong keys.

        Raises:
            QuotaExceeded: it has sent too many.
        """
        if wait_s := self._meter.seconds_until_available(self._guesses, "guess", address):
            raise QuotaExceeded("rate_limited", "too many wrong keys came from this address", wait_s)

    def sign_in(self, key_id: str) -> None:
        """Count a sign-in with this key; sign-ins are limited because each adds rows.

        Raises:
            QuotaExceeded: there were too many within a minute.
        """
        if wait_s := self._meter.spend(self._sign_ins, "sign-in", key_id):
            raise QuotaExceeded(
                "rate_limited", f"more than {SIGN_INS} browsers signed in with this key in a minute", wait_s
            )

    def count_wrong_key(self, address: str) -> None:
        """Count a wrong key."""
        self._meter.spend(self._guesses, "guess", address)

    def new_jobs(self, owner: str | None, count: int) -> None:
        """Check the quota of queued jobs, and count ``count`` more. Several processes can exceed the quota slightly.

        Raises:
            TooManyQueued: the quota is exhausted.
        """
        limit = self.limits.queued
        if owner is None or not limit:
            return
        with self._lock:
            queued = self._queued.get(owner)
        if queued is None or time.monotonic() - queued.counted_at > _COUNT_TTL_S:
            started = time.monotonic()
            with self._database.read() as session:
                queued = _QueuedCount(queue.count_waiting(session, owner, at_most=limit), started)
            with self._lock:
                self._queued[owner] = queued
        if queued.count >= limit:
            detail = f"{owner} has {queued.count} queued jobs, the limit of TAPELINE_OWNER_QUEUED; {_REMEDY}"
            raise TooManyQueued("quota_exceeded", detail, 10)
        if queued.count + count > limit:
            detail = f"{owner} has {queued.count} queued jobs; {count} more would exceed the quota of {limit}"
            detail += f" (TAPELINE_OWNER_QUEUED); {_REMEDY}"
            raise TooManyQueued("quota_exceeded", detail, 10)
        queued.count += count

    def stream(self, owner: str | None) -> Callable[[], None]:
        """Count an open stream; call the returned function when it is closed.

        Raises:
            QuotaExceeded: the owner has too many open streams.
        """
        limit = self.limits.streams
        if owner is None or not limit:
            return lambda: None
        with self._lock:
            if self._streams[owner] >= limit:
                raise QuotaExceeded("quota_exceeded", f"{owner} has {limit} streams open; close some", 10)
            self._streams[owner] += 1
        closed = threading.Event()

        def close() -> None:
            with self._lock:
                if not closed.is_set():
                    closed.set()
                    self._streams[owner] -= 1
                    if not self._streams[owner]:
                        del self._streams[owner]

        return close


class _Meter:
    """Counts in Redis, or in this process while Redis does not respond."""

    def __init__(self, redis_url: str | None) -> None:
        self._redis_url = redis_url
        self._lock = threading.Lock()
        self._local: FixedWindowRateLimiter | None = None
        self._shared: FixedWindowRateLimiter | None = None
        self._retry_at = 0.0

    def spend(self, item: RateLimitItem, *names: str, cost: int = 1) -> int:
        """Count ``cost``. Returns 0, or, if the limit is exceeded, the seconds until the window resets."""
        return self._run(
            lambda limiter: 0 if limiter.hit(item, *names, cost=cost) else _seconds_until_reset(limiter, item, names)
        )

    def seconds_until_available(self, item: RateLimitItem, *names: str, cost: int = 1) -> int:
        """Seconds until ``cost`` fits into the limit; 0 if it fits now. Counts nothing."""
        return self._run(
            lambda limiter: 0 if limiter.test(item, *names, cost=cost) else _seconds_until_reset(limiter, item, names)
        )

    def remaining(self, item: RateLimitItem, *names: str) -> int:
        """The remainder of the limit in the current window."""
        return self._run(lambda limiter: limiter.get_window_stats(item, *names).remaining)

    def _run(self, operation: Callable[[FixedWindowRateLimiter], int]) -> int:
        if self._redis_url is not None and time.monotonic() >= self._retry_at:
            try:
                return operation(self._shared_limiter(self._redis_url))
            except StorageError as error:
                self._retry_at = time.monotonic() + _REDIS_RETRY_S
                _log.warning("Redis does not respond; this process counts separately", error=str(error))
        return operation(self._local_limiter())

    def _local_limiter(self) -> FixedWindowRateLimiter:
        with self._lock:
            if self._local is None:
                self._local = FixedWindowRateLimiter(MemoryStorage())
            return self._local

    def _shared_limiter(self, url: str) -> FixedWindowRateLimiter:
        with self._lock:
            if self._shared is None:
                storage = RedisStorage(
                    # Celery's URL of a Unix socket, in the syntax of the library.
                    url.replace("redis+socket://", "redis+unix://", 1).replace("?virtual_host=", "?db=", 1),
                    key_prefix="tapeline-limits",
                    wrap_exceptions=True,
                    socket_timeout=_REDIS_TIMEOUT_S,
                    socket_connect_timeout=_REDIS_TIMEOUT_S,
                )
                self._shared = FixedWindowRateLimiter(storage)
            return self._shared


def _seconds_until_reset(limiter: FixedWindowRateLimiter, item: RateLimitItem, names: tuple[str, ...]) -> int:
    return max(1, math.ceil(limiter.get_window_stats(item, *names).reset_time - time.time()))
