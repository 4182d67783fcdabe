"""Interleaved timing: contestants take turns, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Work = Callable[[], object]

ROUNDS = 11
_PAUSE = 0.05
"""Seconds between turns."""


def medians(contestants: Mapping[str, Work], *, seconds: float = 0.12, unit: int = 1) -> dict[str, float]:
    """Milliseconds of one piece of work for each contestant: the median of its rounds.

    Args:
        contestants: name -> function that does one piece of the same work.
        seconds: about how long one turn lasts.
        unit: pieces that belong together (a cycle of steps): a turn takes a multiple.
    """
    counts = {}
    for name, work in contestants.items():
        for _ in range(2 * unit):  # the first pieces allocate, compile, fill caches
            work()
        counts[name] = max(1, round(seconds / max(_seconds(work, unit), 1e-7))) * unit
    rounds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(ROUNDS):
        names = list(contestants)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            # Idle BLAS threads of the one before still turn in circles for a while; then the caches must refill.
            time.sleep(_PAUSE)
            _seconds(contestants[name], unit)
            rounds[name].append(_seconds(contestants[name], counts[name]) / counts[name] * 1000)
    return {name: statistics.median(times) for name, times in rounds.items()}


def _seconds(work: Work, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        work()
    return time.perf_counter() - start
