"""Interleaved timing: contestants take turns, so that whatever else the machine does meets all of them alike.

And it should do nothing else: two threads that wait for each other lose far more than half when a third process wants
a core. A round in which others worked is played again, as far as the patience lasts.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Work = Callable[[], object]
Round = tuple[float, dict[str, float]]
"""The share of the processors that others took, and the time of each contestant."""

ROUNDS = 25
"""Medians are taken over this many undisturbed rounds: short turns and many, for disturbances come in bursts."""

LEAST = 7
"""If fewer rounds than this were undisturbed when the patience ends, this many of the least disturbed count."""

_DISTURBED = 0.08
"""The share of the machine's processor time that others may take."""

_PAUSE = 0.04
"""Seconds between turns: BLAS threads that wait for work turn in circles for a while, at the next one's cost."""


def medians(
    contestants: Mapping[str, Work],
    *,
    seconds: float = 0.05,
    unit: int = 1,
    needed: int = ROUNDS,
    patience: float = 18,
) -> dict[str, float]:
    """Milliseconds of one piece of work for each contestant: the median of its rounds.

    Args:
        contestants: name -> function that does one piece of the same work.
        seconds: about how long one turn lasts.
        unit: pieces that belong together (a cycle of steps): a turn takes a multiple.
        needed: undisturbed rounds.
        patience: seconds after which there are no further rounds, if there were ``LEAST``.
    """
    counts = {}
    for name, work in contestants.items():
        for _ in range(2 * unit):  # the first pieces allocate, compile, fill caches
            work()
        counts[name] = max(1, round(seconds / max(_seconds(work, unit), 1e-7))) * unit
    rounds: list[Round] = []
    names = list(contestants)
    end = time.perf_counter() + patience
    while sum(share < _DISTURBED for share, _ in rounds) < needed:
        if len(rounds) >= LEAST and time.perf_counter() > end:
            break
        first = len(rounds) % len(names)  # each goes first in turn
        times, others, total = {}, 0.0, 0.0
        for name in names[first:] + names[:first]:
            time.sleep(_PAUSE)
            for _ in range(unit):
                contestants[name]()  # the caches must refill
            busy = _others_seconds()
            spent = _seconds(contestants[name], counts[name])
            others += _others_seconds() - busy
            total += spent
            times[name] = spent / counts[name] * 1000
        rounds.append((others / (total * (os.cpu_count() or 1)), times))
    kept = undisturbed(rounds)
    return {name: statistics.median(times[name] for times in kept) for name in names}


def undisturbed(rounds: Sequence[Round]) -> list[dict[str, float]]:
    """The times of the rounds in which others hardly worked; of the quietest, where there were few of them."""
    in_order = sorted(rounds, key=lambda one: one[0])
    count = max(LEAST, sum(share < _DISTURBED for share, _ in rounds))
    return [times for _, times in in_order[:count]]


def minima(
    contestants: Mapping[str, Work], *, unit: int = 1, seconds: float = 0.01, patience: float = 14
) -> dict[str, float]:
    """Milliseconds of processor time of one piece of work for each contestant with one thread: the shortest turn.

    Turns are so short that some of them are not interrupted on a machine that is never idle.
    """
    counts, shortest = {}, dict.fromkeys(contestants, float("inf"))
    for name, work in contestants.items():
        for _ in range(2 * unit):
            work()
        counts[name] = max(1, round(seconds / max(_seconds(work, unit), 1e-7))) * unit
    names, end, rounds = list(contestants), time.perf_counter() + patience, 0
    while time.perf_counter() < end or rounds < ROUNDS:
        first = rounds % len(names)  # each goes first in turn
        for name in names[first:] + names[:first]:
            for _ in range(unit):
                contestants[name]()  # the caches must refill
            start = time.process_time()
            _seconds(contestants[name], counts[name])
            shortest[name] = min(shortest[name], (time.process_time() - start) / counts[name] * 1000)
        rounds += 1
    return shortest


def _seconds(work: Work, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        work()
    return time.perf_counter() - start


def _others_seconds() -> float:
    """Processor time that all other processes of this machine have used; 0 where there is no /proc."""
    try:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    except OSError:
        return 0.0
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK") - time.process_time()
