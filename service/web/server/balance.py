"""Balances connections between web processes.

All of them accept from one socket, and the kernel wakes all for a new connection. The first one would take a burst
alone, and keep it: clients reuse connections.
"""

from __future__ import annotations

import mmap
import time
from typing import Final

YIELD_S: Final = 0.02
"""How long a process with more connections than another leaves new ones to it."""
POLL_INTERVAL_S: Final = 0.001
"""How often it then checks whether the other has accepted some."""
_BUSY_S: Final = 0.2
"""How long it accepts all after the other took none."""
_SLOTS: Final = 64
"""Maximum number of processes that are balanced; gunicorn numbers them, and a number is used again after so many."""
_ABSENT: Final = 2**32 - 1


class ConnectionCounts:
    """The number of open connections of each process, in memory that they share. Create it before the first fork."""

    def __init__(self) -> None:
        self._counts = memoryview(mmap.mmap(-1, _SLOTS * 4)).cast("I")
        for number in range(_SLOTS):
            self.remove(number)

    def set(self, process: int, connections: int) -> None:
        """Publish the number of connections of a process."""
        self._counts[process % _SLOTS] = connections

    def remove(self, process: int) -> None:
        """A process accepts no connections any more."""
        self.set(process, _ABSENT)

    def fewest_of_others(self, process: int) -> int:
        """The lowest connection count of any other process; ``_ABSENT`` if there is none."""
        return min(count for number, count in enumerate(self._counts) if number != process % _SLOTS)


CONNECTIONS: Final = ConnectionCounts()
"""Of the processes of this service."""


class AcceptThrottle:
    """Decides when a process leaves new connections to another one.

    It does so for ``YIELD_S`` at a time. If the other process takes none meanwhile, it is busy or stops: no connection
    waits for it any longer.
    """

    def __init__(self, process: int, counts: ConnectionCounts = CONNECTIONS) -> None:
        self._process, self._counts = process, counts
        self._until = self._free_until = 0.0
        self._seen = 0

    def should_yield(self, connections: int) -> bool:
        """Whether this process, with this many connections, should leave the next one to another process."""
        fewest = self._counts.fewest_of_others(self._process)
        now = time.monotonic()
        if not _has_more(connections, fewest) or now < self._free_until:
            return False
        self._seen, self._until = fewest, now + YIELD_S
        return True

    def remaining_s(self, connections: int) -> float:
        """For how long it should still not accept; 0 if it is its turn again."""
        if not self._until:
            return 0.0
        fewest, now = self._counts.fewest_of_others(self._process), time.monotonic()
        if _has_more(connections, fewest) and now < self._until:
            return self._until - now
        if fewest == self._seen:
            self._free_until = now + _BUSY_S
        self._until = 0.0
        return 0.0


def _has_more(connections: int, fewest: int) -> bool:
    """Whether the difference is worth a wait: an eighth, and more than one."""
    return connections > fewest + 1 + fewest // 8
