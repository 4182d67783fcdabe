"""How much of the service one owner may have, and how often somebody may try to guess a key.

The counting is the library's (`limits`): in this process where it is the only one that serves, else in Redis, where
the web processes count together. While Redis is away each counts for itself, and nobody is turned away for that.
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
"""Wrong keys that may come from one address in a minute."""
SIGN_INS: Final = 60
"""Browsers that may sign in with one key in a minute."""
_REDIS_S: Final = 0.25
"""How long Redis may take for an answer."""
_AWAY_S: Final = 10.0
"""How long Redis is left alone after it gave none."""
_BELIEVED_S: Final = 1.0
"""How long a count of waiting jobs is believed: counting them for each new one would take longer than storing it."""

_log = structlog.get_logger("tapeline.web.quotas")


class QuotaExceeded(Problem):
    """Ends a request for now."""

    def __init__(self, code: str, detail: str, wait_s: int) -> None:
        super().__init__(code, detail, headers={"Retry-After": str(wait_s)}, retry_after_s=wait_s)


class TooManyQueued(QuotaExceeded, AdmissionRefused):
    """An owner has as many queued jobs as are allowed."""


@dataclass(slots=True)
class _Waiting:
    count: int
    counted: float


class Quotas:
    """One web process's view of what each owner has used. Connections and threads are made when first needed."""

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
        self._waiting: dict[str, _Waiting] = {}

    def request(self, owner: str) -> None:
        """Count a request.

        Raises:
            Problem: there were too many in this minute.
        """
        if self._requests is not None and (wait_s := self._meter.spend(self._requests, "request", owner)):
            detail = f"{owner} has exceeded {self.limits.requests} requests per minute"
            raise QuotaExceeded("rate_limited", detail, wait_s)

    def requests_left(self, owner: str) -> int | None:
        """How many more requests an owner may send in this minute; ``None``: no limit."""
        return self._meter.left(self._requests, "request", owner) if self._requests is not None else None

    def upload_bytes_left(self, owner: str) -> int | None:
        """How many more bytes an owner may upload today; ``None``: no limit."""
        return self._meter.left(self._uploads, "upload", owner) if self._uploads is not None else None

    def upload(self, owner: str | None, size_bytes: int) -> None:
        """Make sure that so many bytes may come in; ``uploaded`` counts those that did.

        Raises:
            Problem: there would be too many in this day.
        """
        if owner is None or self._uploads is None:
            return
        if wait_s := self._meter.wait(self._uploads, "upload", owner, cost=size_bytes):
            detail = f"this upload exceeds the daily limit of {owner}: {self.limits.uploads} bytes"
            raise QuotaExceeded("quota_exceeded", detail, wait_s)

    def uploaded(self, owner: str | None, size_bytes: int) -> None:
        """Count bytes that came in, whatever became of them."""
        if owner is not None and self._uploads is not None and size_bytes:
            self._meter.spend(self._uploads, "upload", owner, cost=size_bytes)

    def guess(self, address: str) -> None:
        """Make sure that this address has not tried too many wrong keys.

        Raises:
            Problem: it has.
        """
        if wait_s := self._meter.wait(self._guesses, "guess", address):
            raise QuotaExceeded("rate_limited", "too many wrong keys came from this address", wait_s)

    def sign_in(self, key_id: str) -> None:
        """Count a browser that signs in with this key: each makes rows that stay.

        Raises:
            Problem: there were too many in this minute.
        """
        if wait_s := self._meter.spend(self._sign_ins, "sign-in", key_id):
            raise QuotaExceeded(
                "rate_limited", f"more than {SIGN_INS} browsers signed in with this key in a minute", wait_s
            )

    def wrong_guess(self, address: str) -> None:
        """Count a wrong key."""
        self._meter.spend(self._guesses, "guess", address)

    def new_jobs(self, owner: str | None, count: int) -> None:
        """Make sure that so many more jobs may wait. Several processes may together let some more in within a second.

        Raises:
            Problem: too many wait already.
        """
        limit = self.limits.queued
        if owner is None or not limit:
            return
        with self._lock:
            known = self._waiting.get(owner)
        if known is None or time.monotonic() - known.counted > _BELIEVED_S:
            asked = time.monotonic()
            with self._database.read() as session:
                known = _Waiting(queue.count_waiting(session, owner, at_most=limit), asked)
            with self._lock:
                self._waiting[owner] = known
        if known.count >= limit:
            raise TooManyQueued("quota_exceeded", f"{limit} jobs of {owner} wait already; no more may", 10)
        if known.count + count > limit:
            detail = f"{known.count} jobs of {owner} wait already; with these {count} it would be more than {limit}"
            raise TooManyQueued("quota_exceeded", detail, 10)
        known.count += count

    def stream(self, owner: str | None) -> Callable[[], None]:
        """Count a stream as open, until what is given is called.

        Raises:
            Problem: the owner has too many open.
        """
        limit = self.limits.streams
        if owner is None or not limit:
            return lambda: None
        with self._lock:
            if self._streams[owner] >= limit:
                raise QuotaExceeded("quota_exceeded", f"{owner} has {limit} streams open; close some", 10)
            self._streams[owner] += 1
        is_open = threading.Event()

        def close() -> None:
            with self._lock:
                if not is_open.is_set():
                    is_open.set()
                    self._streams[owner] -= 1
                    if not self._streams[owner]:
                        del self._streams[owner]

        return close


class _Meter:
    """Counts in Redis while that answers, else here."""

    def __init__(self, redis_url: str | None) -> None:
        self._redis_url = redis_url
        self._lock = threading.Lock()
        self._here: FixedWindowRateLimiter | None = None
        self._shared: FixedWindowRateLimiter | None = None
        self._away_until = 0.0

    def spend(self, item: RateLimitItem, *names: str, cost: int = 1) -> int:
        """Spend so much; gives 0, or, where that was not left, the seconds until there is more. It counts anyway."""
        return self._ask(
            lambda limiter: 0 if limiter.hit(item, *names, cost=cost) else _until_reset(limiter, item, names)
        )

    def wait(self, item: RateLimitItem, *names: str, cost: int = 1) -> int:
        """How many seconds it takes until so much is left: 0 where it is now. Nothing is spent."""
        return self._ask(
            lambda limiter: 0 if limiter.test(item, *names, cost=cost) else _until_reset(limiter, item, names)
        )

    def left(self, item: RateLimitItem, *names: str) -> int:
        """What can still be spent in the current window."""
        return self._ask(lambda limiter: limiter.get_window_stats(item, *names).remaining)

    def _ask(self, question: Callable[[FixedWindowRateLimiter], int]) -> int:
        if self._redis_url is not None and time.monotonic() >= self._away_until:
            try:
                return question(self._counting_together(self._redis_url))
            except StorageError as error:
                self._away(error)
        return question(self._counting_alone())

    def _away(self, error: StorageError) -> None:
        self._away_until = time.monotonic() + _AWAY_S
        _log.warning("Redis does not answer; this process counts for itself", error=str(error))

    def _counting_alone(self) -> FixedWindowRateLimiter:
        with self._lock:
            if self._here is None:
                self._here = FixedWindowRateLimiter(MemoryStorage())
            return self._here

    def _counting_together(self, url: str) -> FixedWindowRateLimiter:
        with self._lock:
            if self._shared is None:
                storage = RedisStorage(
                    # Celery's way to name a socket, in Redis's words.
                    url.replace("redis+socket://", "redis+unix://", 1).replace("?virtual_host=", "?db=", 1),
                    key_prefix="tapeline-limits",
                    wrap_exceptions=True,
                    socket_timeout=_REDIS_S,
                    socket_connect_timeout=_REDIS_S,
                )
                self._shared = FixedWindowRateLimiter(storage)
            return self._shared


def _until_reset(limiter: FixedWindowRateLimiter, item: RateLimitItem, names: tuple[str, ...]) -> int:
    return max(1, math.ceil(limiter.get_window_stats(item, *names).reset_time - time.time()))
