"""The pace of what every worker repeats against the database that all of them share."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_WINDOW: Final = 5
"""The number of latest durations that count."""
_MIN_SAMPLES: Final = 3
"""With fewer, nothing is known: the first one opens connections and compiles statements."""
_NORMAL_SPREAD: Final = 2.0
"""Of the durations of an idle database."""


class Pace:
    """Makes the interval between operations longer while these are slow, because the database is busy.

    A distant database is slow, too, but always: twice the shortest duration is expected in any case.

    Args:
        expected_s: the duration up to which the interval is not longer.
        max_slowdown: the factor by which it becomes longer at most.
    """

    def __init__(self, expected_s: float, max_slowdown: float) -> None:
        self._expected_s, self._max_slowdown = expected_s, max_slowdown
        self._shortest_s = math.inf
        self._durations: deque[float] = deque(maxlen=_WINDOW)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure an operation, unless it fails."""
        started_at = time.monotonic()
        yield
        self.add(time.monotonic() - started_at)

    def add(self, seconds: float) -> None:
        """Count the duration of an operation."""
        self._durations.append(seconds)
        self._shortest_s = min(self._shortest_s, seconds)

    @property
    def factor(self) -> float:
        """By how much the interval is longer now, from 1 to ``max_slowdown``: in proportion to the median of the latest
        durations, which a single slow operation does not change."""
        if len(self._durations) < _MIN_SAMPLES:
            return 1.0
        median_s = sorted(self._durations)[(len(self._durations) - 1) // 2]
        expected_s = max(self._expected_s, _NORMAL_SPREAD * self._shortest_s)
        return min(self._max_slowdown, max(1.0, median_s / expected_s))
