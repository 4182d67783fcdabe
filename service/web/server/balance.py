"""Limits the connections of a web process, and balances them between web processes.

All of them accept from one socket, and the kernel wakes all for a new connection. The first one would accept
a whole burst, and keep it, since clients reuse connections.
"""

from __future__ import annotations

import mmap
import resource
import time
from typing import Final

YIELD_S: Final = 0.02
"""How long a process with more connections than another leaves new ones to it."""
POLL_INTERVAL_S: Final = 0.001
"""How often it then checks whether the other process has accepted connections."""
_BUSY_S: Final = 0.2
"""How long it accepts all connections after the other process has accepted none."""
_SLOTS: Final = 64
"""Maximum number of balanced processes; gunicorn numbers them, and a slot is reused after this many."""
_ABSENT: Final = 2**32 - 1
_RESERVED: Final = 160
"""Descriptors for database connections, files, and modules that are imported later."""
_TARGET_LIMIT: Final = 4096
"""Of file descriptors."""


class ConnectionCounts:
    """The number of open connections of each process, in memory that they share. Create it before the first fork."""

    def __init__(self) -> None:
        self._counts = memoryview(mmap.mmap(-1, _SLOTS * 4)).cast("I")
        for slot in range(_SLOTS):
            self.remove(slot)

    def set(self, process: int, connections: int) -> None:
        """Publish the number of connections of a process."""
        self._counts[process % _SLOTS] = connections

    def remove(self, process: int) -> None:
        """Record that a process no longer accepts connections."""
        self.set(process, _ABSENT)

    def fewest_of_others(self, process: int) -> int:
        """The lowest connection count of any other process; ``_ABSENT`` if there is none."""
        return min(count for slot, count in enumerate(self._counts) if slot != process % _SLOTS)


CONNECTIONS: Final = ConnectionCounts()
"""The connection counts of this service's processes."""


class AcceptThrottle:
    """Decides when a process leaves new connections to another one.

    It does so for ``YIELD_S`` at a time. If the other process accepts none in that time, it is busy or
    stopping, and connections no longer wait for it.
    """

    def __init__(self, process: int, counts: ConnectionCounts = CONNECTIONS) -> None:
        self._process, self._counts = process, counts
        self._yield_until = self._accept_until = 0.0
        self._last_fewest = 0

    def should_yield(self, connections: int) -> bool:
        """Whether this process, with this many connections, should leave the next one to another process."""
        fewest = self._counts.fewest_of_others(self._process)
        now = time.monotonic()
        if not _has_more(connections, fewest) or now < self._accept_until:
            return False
        self._last_fewest, self._yield_until = fewest, now + YIELD_S
        return True

    def remaining_s(self, connections: int) -> float:
        """Time in seconds until this process should accept again; 0 if it can accept now."""
        if not self._yield_until:
            return 0.0
        fewest, now = self._counts.fewest_of_others(self._process), time.monotonic()
        if _has_more(connections, fewest) and now < self._yield_until:
            return self._yield_until - now
        if fewest == self._last_fewest:
            self._accept_until = now + _BUSY_S
        self._yield_until = 0.0
        return 0.0


def _has_more(connections: int, fewest: int) -> bool:
    """Whether the difference is worth a wait: an eighth, and more than one."""
    return connections > fewest + 1 + fewest // 8


def raise_limit() -> None:
    """Raise the limit on file descriptors as far as the system allows; the default, 1,024, is meant for ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _TARGET_LIMIT if hard == resource.RLIM_INFINITY else min(_TARGET_LIMIT, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def max_connections(requested: int) -> int:
    """``requested``, or the number of connections that leaves descriptors for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return requested if soft == resource.RLIM_INFINITY else max(16, min(requested, soft - _RESERVED))
