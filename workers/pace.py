"""The pace of what every worker repeats against the database that all of them share."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_COUNTED: Final = 5
"""The number of latest durations that count."""
_ENOUGH: Final = 3
"""With fewer, nothing is known: the first one opens connections and compiles statements."""


class Pace:
    """Makes the interval between operations longer while these are slow, because the database is busy.

    Args:
        expected_s: the duration up to which the interval is not longer.
        most: the factor by which it becomes longer at most.
    """

    def __init__(self, expected_s: float, most: float) -> None:
        self._expected_s, self._most = expected_s, most
        self._durations: deque[float] = deque(maxlen=_COUNTED)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure an operation, unless it fails."""
        started_at = time.monotonic()
        yield
        self.add(time.monotonic() - started_at)

    def add(self, seconds: float) -> None:
        """Count the duration of an operation."""
        self._durations.append(seconds)

    @property
    def factor(self) -> float:
        """By how much the interval is longer now: 1 to ``most``, in proportion to the median of the latest durations,
        which a single slow operation does not change."""
        if len(self._durations) < _ENOUGH:
            return 1.0
        median_s = sorted(self._durations)[(len(self._durations) - 1) // 2]
        return min(self._most, max(1.0, median_s / self._expected_s))
