"""Interleaved timing: the variants alternate, so that other load on the machine affects all of them equally.

The machine should be idle otherwise: two threads that wait for each other lose far more than half of their speed if a
third process needs a core. A round with other load is repeated, within a time limit.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Work = Callable[[], object]
Round = tuple[float, dict[str, float]]
"""The fraction of CPU time that other processes used, and the time of each variant."""

ROUNDS = 25
"""Number of undisturbed rounds for medians. Many short rounds, because disturbances come in bursts."""

MIN_ROUNDS = 7
"""If fewer rounds than this are undisturbed at the time limit, this many of the least disturbed ones are used."""

_MAX_DISTURBANCE = 0.08
"""Maximum fraction of CPU time of other processes in an undisturbed round."""

_PAUSE_S = 0.04
"""Seconds between turns, because idle BLAS threads spin for a while, which would slow down the next variant."""


def medians(
    contestants: Mapping[str, Work],
    *,
    seconds: float = 0.05,
    unit: int = 1,
    rounds_needed: int = ROUNDS,
    max_seconds: float = 18,
) -> dict[str, float]:
    """Milliseconds per piece of work for each variant: the median of its rounds.

    Args:
        contestants: name -> function that does one piece of the same work.
        seconds: approximate duration of one turn.
        unit: number of pieces in a cycle of steps; a turn takes a multiple.
        rounds_needed: number of undisturbed rounds.
        max_seconds: time limit in seconds, after which there are no further rounds if there were ``MIN_ROUNDS``.
    """
    counts = {}
    for name, work in contestants.items():
        for _ in range(2 * unit):  # the first pieces allocate, compile, fill caches
            work()
        counts[name] = max(1, round(seconds / max(_seconds(work, unit), 1e-7))) * unit
    rounds: list[Round] = []
    names = list(contestants)
    deadline = time.perf_counter() + max_seconds
    while sum(load < _MAX_DISTURBANCE for load, _ in rounds) < rounds_needed:
        if len(rounds) >= MIN_ROUNDS and time.perf_counter() > deadline:
            break
        first = len(rounds) % len(names)  # alternate which variant goes first
        times, others_s, total_s = {}, 0.0, 0.0
        for name in names[first:] + names[:first]:
            time.sleep(_PAUSE_S)
            for _ in range(unit):
                contestants[name]()  # refill the caches
            others_before_s = _others_seconds()
            elapsed_s = _seconds(contestants[name], counts[name])
            others_s += _others_seconds() - others_before_s
            total_s += elapsed_s
            times[name] = elapsed_s / counts[name] * 1000
        rounds.append((others_s / (total_s * (os.cpu_count() or 1)), times))
    selected = undisturbed(rounds)
    return {name: statistics.median(times[name] for times in selected) for name in names}


def undisturbed(rounds: Sequence[Round]) -> list[dict[str, float]]:
    """The times of the undisturbed rounds or, if there are too few, of the least disturbed ones."""
    ordered = sorted(rounds, key=lambda measured_round: measured_round[0])
    count = max(MIN_ROUNDS, sum(load < _MAX_DISTURBANCE for load, _ in rounds))
    return [times for _, times in ordered[:count]]


def minima(
    contestants: Mapping[str, Work], *, unit: int = 1, seconds: float = 0.01, max_seconds: float = 14
) -> dict[str, float]:
    """Milliseconds of processor time of one piece of work for each contestant with one thread: the shortest turn.

    Turns are so short that some of them are not interrupted on a machine that is never idle.
    """
    counts, shortest = {}, dict.fromkeys(contestants, float("inf"))
    for name, work in contestants.items():
        for _ in range(2 * unit):
            work()
        counts[name] = max(1, round(seconds / max(_seconds(work, unit), 1e-7))) * unit
    names, deadline, rounds = list(contestants), time.perf_counter() + max_seconds, 0
    while time.perf_counter() < deadline or rounds < ROUNDS:
        first = rounds % len(names)  # alternate which variant goes first
        for name in names[first:] + names[:first]:
            for _ in range(unit):
                contestants[name]()  # refill the caches
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
    """CPU time that all other processes on this machine have used; 0 without /proc."""
    try:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    except OSError:
        return 0.0
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK") - time.process_time()
