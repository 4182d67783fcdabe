"""Quotas per owner, and rate limits for wrong keys and sign-ins.

The library `limits` counts, in this process if it is the only web process, otherwise in Redis, which all web processes
share. While Redis does not respond, each process counts separately, and no request fails because of it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import structlog
from cachetools import TTLCache
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.access import owners, storage_quota
from service.access.owners import OwnerLimits
from service.access.storage_quota import StoredBytes
from service.errors import AdmissionRefused
from service.jobs.queries import queue
from service.runtime.settings import Settings
from service.storage.database import Database
from service.web.http.problems import STORAGE_WAIT_S, Problem

GUESSES: Final = 60
"""Wrong keys per address and minute."""
SIGN_INS: Final = 60
"""Sign-ins per key and minute."""
_REDIS_TIMEOUT_S: Final = 0.25
"""Timeout of a Redis request."""
_REDIS_RETRY_S: Final = 10.0
"""How long Redis is not used after a failure."""
_COUNT_TTL_S: Final = 1.0
"""How long the counts of an owner's jobs and bytes are cached: counting for each submission would take longer than
storing a job."""

_CACHE_SIZE: Final = 10_000

_log = structlog.get_logger("tapeline.web.quotas")
_REMEDY: Final = "wait until jobs start, cancel some, or ask the operator for a higher limit"
_STORAGE_REMEDY: Final = (
    "delete jobs, keep fewer checkpoints (`checkpoint.keep_last`), or ask the operator for a higher limit"
)


class QuotaExceeded(Problem):
    """A quota is exhausted; the response says when to retry."""

    def __init__(self, code: str, detail: str, wait_s: int) -> None:
        super().__init__(code, detail, retry_after_s=wait_s)


class NotAdmitted(QuotaExceeded, AdmissionRefused):
    """The owner may not have these further jobs now."""


@dataclass(slots=True)
class _Counts:
    """What an owner has, with the jobs that were admitted since ``counted_at``."""

    queued: int
    stored: int
    expected: int
    counted_at: float


class Quotas:
    """Quota checks of a web process. Connections and threads are created on first use."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._defaults = settings.quotas
        self._database = database
        self._limits: TTLCache[str, OwnerLimits] = TTLCache(_CACHE_SIZE, _COUNT_TTL_S)
        self._meter = _Meter(None if settings.embedded_database else settings.broker_url)
        self._guesses = RateLimitItemPerMinute(GUESSES)
        self._sign_ins = RateLimitItemPerMinute(SIGN_INS)
        self._limits_lock = threading.Lock()
        self._lock = threading.Lock()
        self._streams: Counter[str] = Counter()
        self._counts: dict[str, _Counts] = {}

    def of(self, owner: str) -> OwnerLimits:
        """The limits of an owner. A change takes effect after a second."""
        with self._limits_lock:
            cached = self._limits.get(owner)
        if cached is not None:
            return cached
        try:
            with self._database.read() as session:
                limits = owners.limits(session, owner, self._defaults)
        except SQLAlchemyError as error:  # the request itself meets the outage, or needs no database
            _log.warning("the limits of an owner could not be read", error=str(error))
            return OwnerLimits(quotas=self._defaults)
        with self._limits_lock:
            self._limits[owner] = limits
        return limits

    def read_ahead(self, session: Session, names: Collection[str]) -> None:
        """Read the limits of several owners with one query."""
        settings = owners.settings_of(session, names)
        with self._limits_lock:
            for name in names:
                self._limits[name] = owners.limits_of(settings.get(name), name, self._defaults)

    def max_priority(self, owner: str | None) -> int:
        """The highest priority of an owner's jobs; ``None``: of everybody without a key."""
        return self.of(owner or owners.EVERYBODY).max_priority

    def _requests(self, owner: str) -> RateLimitItem | None:
        limit = self.of(owner).quotas.requests
        return RateLimitItemPerMinute(limit) if limit else None

    def _uploads(self, owner: str) -> RateLimitItem | None:
        limit = self.of(owner).quotas.uploads
        return RateLimitItemPerDay(limit) if limit else None

    def request(self, owner: str) -> None:
        """Count a request.

        Raises:
            QuotaExceeded: the owner sent too many within a minute.
        """
        limit = self._requests(owner)
        if limit is not None and (wait_s := self._meter.spend(limit, "request", owner)):
            detail = f"{owner} has exceeded {limit.amount} requests per minute"
            raise QuotaExceeded("rate_limited", detail, wait_s)

    def requests_left(self, owner: str) -> int | None:
        """Remaining requests of an owner in this minute; ``None``: no limit."""
        limit = self._requests(owner)
        return self._meter.remaining(limit, "request", owner) if limit is not None else None

    def upload_bytes_left(self, owner: str) -> int | None:
        """Remaining upload bytes of an owner today; ``None``: no limit."""
        limit = self._uploads(owner)
        return self._meter.remaining(limit, "upload", owner) if limit is not None else None

    def check_upload(self, owner: str | None, size_bytes: int) -> None:
        """Check an upload of this size against the daily quota; ``count_upload`` counts the bytes.

        Raises:
            QuotaExceeded: the upload would exceed it.
        """
        if owner is None or (limit := self._uploads(owner)) is None:
            return
        if wait_s := self._meter.seconds_until_available(limit, "upload", owner, cost=size_bytes):
            detail = f"this upload exceeds the daily limit of {owner}: {limit.amount} bytes"
            raise QuotaExceeded("quota_exceeded", detail, wait_s)

    def count_upload(self, owner: str | None, size_bytes: int) -> None:
        """Count received bytes, whether the upload succeeded or not."""
        if owner is not None and size_bytes and (limit := self._uploads(owner)) is not None:
            self._meter.spend(limit, "upload", owner, cost=size_bytes)

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

    def new_jobs(self, owner: str | None, count: int, expected_bytes: int) -> None:
        """Check the quotas of queued jobs and of stored files, and count these jobs. Several processes can exceed the
        quotas slightly; workers enforce that of stored files.

        Args:
            expected_bytes: the most that the files of the jobs together are expected to take.

        Raises:
            NotAdmitted: a quota is exhausted.
        """
        if owner is None or not (self.of(owner).quotas.queued or self.of(owner).quotas.artifacts):
            return
        counts = self._count(owner)
        with self._lock:
            self._check(owner, counts, count, expected_bytes)
            counts.queued += count
            counts.expected += expected_bytes

    def _check(self, owner: str, counts: _Counts, count: int, expected_bytes: int) -> None:
        limits = self.of(owner).quotas
        if limits.queued and counts.queued + count > limits.queued:
            more = f"; {count} more would exceed the quota of {limits.queued} (TAPELINE_OWNER_QUEUED)"
            if counts.queued >= limits.queued:
                more = ", the limit of TAPELINE_OWNER_QUEUED"
            raise NotAdmitted("quota_exceeded", f"{owner} has {counts.queued} queued jobs{more}; {_REMEDY}", 10)
        if limits.artifacts and expected_bytes and counts.stored + counts.expected + expected_bytes > limits.artifacts:
            detail = f"the files of {owner}'s jobs take {counts.stored:,} of {limits.artifacts:,} bytes, "
            detail += f"those of unfinished jobs may take {counts.expected:,} more, and this needs {expected_bytes:,} "
            detail += f"(TAPELINE_OWNER_ARTIFACTS); {_STORAGE_REMEDY}"
            raise NotAdmitted("quota_exceeded", detail, STORAGE_WAIT_S)

    def _count(self, owner: str) -> _Counts:
        with self._lock:
            cached = self._counts.get(owner)
        if cached is not None and time.monotonic() - cached.counted_at <= _COUNT_TTL_S:
            return cached
        limits, started = self.of(owner).quotas, time.monotonic()
        with self._database.read() as session:
            queued = queue.count_waiting(session, owner) if limits.queued else 0
            files = storage_quota.read(session, owner) if limits.artifacts else StoredBytes(stored=0, expected=0)
        with self._lock:
            if self._counts.get(owner) is cached:  # otherwise, another thread has counted, and may have admitted jobs
                self._counts[owner] = _Counts(queued, files.stored, files.expected, started)
            return self._counts[owner]

    def stream(self, owner: str | None, *, at_most: int | None = None) -> Callable[[], None]:
        """Count an open stream; call the returned function when it is closed.

        Args:
            at_most: in place of the owner's quota.

        Raises:
            QuotaExceeded: the owner has too many open streams.
        """
        limit = at_most or (self.of(owner).quotas.streams if owner is not None else 0)
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
        self._limiters: dict[str, FixedWindowRateLimiter] = {}
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
                return operation(self._limiter(self._redis_url))
            except StorageError as error:
                self._retry_at = time.monotonic() + _REDIS_RETRY_S
                _log.warning("Redis does not respond; this process counts separately", error=str(error))
        return operation(self._limiter(""))

    def _limiter(self, url: str) -> FixedWindowRateLimiter:
        """The limiter that counts in Redis at this URL, or in this process; created on first use."""
        with self._lock:
            if url not in self._limiters:
                self._limiters[url] = FixedWindowRateLimiter(_redis_storage(url) if url else MemoryStorage())
            return self._limiters[url]


def _redis_storage(url: str) -> RedisStorage:
    return RedisStorage(
        # Celery's URL of a Unix socket, in the syntax of the library.
        url.replace("redis+socket://", "redis+unix://", 1).replace("?virtual_host=", "?db=", 1),
        key_prefix="tapeline-limits",
        wrap_exceptions=True,
        socket_timeout=_REDIS_TIMEOUT_S,
        socket_connect_timeout=_REDIS_TIMEOUT_S,
    )


def _seconds_until_reset(limiter: FixedWindowRateLimiter, item: RateLimitItem, names: tuple[str, ...]) -> int:
    return max(1, math.ceil(limiter.get_window_stats(item, *names).reset_time - time.time()))
