"""The pace of what every worker repeats against the database that all of them share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_WEIGHT: Final = 0.25
"""Of the latest duration in the mean: one that is slow by chance changes little."""


class Pace:
    """Makes the interval between operations longer while these are slow, because the database is busy.

    Args:
        expected_s: the duration up to which the interval is not longer.
        most: the factor by which it becomes longer at most.
    """

    def __init__(self, expected_s: float, most: float) -> None:
        self._expected_s, self._most = expected_s, most
        self._mean_s = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure an operation, unless it fails."""
        started_at = time.monotonic()
        yield
        self.add(time.monotonic() - started_at)

    def add(self, seconds: float) -> None:
        """Count the duration of an operation."""
        self._mean_s += _WEIGHT * (seconds - self._mean_s)

    @property
    def factor(self) -> float:
        """By how much the interval is longer now: 1 to ``most``, in proportion to the mean duration."""
        return min(self._most, max(1.0, self._mean_s / self._expected_s))
