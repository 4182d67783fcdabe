"""Runs of many lives, and the report of what went wrong."""

from __future__ import annotations

import gc
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.simulation import substitutes
from tests.simulation.lives import Life, Simulator
from tests.simulation.parts.databases import Memory
from tests.simulation.parts.postgresql import Server
from tests.simulation.shrinking import shrink

_SHRINKING_S: Final = 60.0
_SHOWN_LINES: Final = 60
_ENOUGH_S: Final = 50.0
"""A shorter run need not have reached every rare branch."""


@dataclass
class Totals:
    """What a run has done."""

    lives: int = 0
    steps: int = 0
    faults: int = 0
    hours: float = 0.0
    seconds: float = 0.0
    failed: Life | None = None

    def add(self, life: Life, seconds: float) -> None:
        """Count a life; ``seconds`` is the processor time so far."""
        self.lives += 1
        self.steps += life.steps
        self.faults += life.faults
        self.hours += life.hours
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"{self.lives:,} lives, {self.hours:,.0f} simulated hours, {self.steps:,} steps and {self.faults:,} "
            f"faults in {self.seconds:.1f} CPU seconds ({self.steps / max(self.seconds, 0.001):,.0f} steps per second)"
        )


def live(simulator: Simulator, seeds: Sequence[int] | None = None, *, seconds: float = 1e9, first: int = 0) -> Totals:
    """Run the lives of these seeds, or of all from the first on, until one fails or the time is over."""
    totals, began = Totals(), time.process_time()
    gc.disable()  # the cycles of one life are collected with those of the next ones
    try:
        for seed in seeds if seeds is not None else itertools.count(first):
            life = simulator.run(seed)
            totals.add(life, time.process_time() - began)
            if life.violation is not None:
                totals.failed = life
                break
            if totals.seconds > seconds:
                break
            if totals.lives % 20 == 0:
                gc.collect()
    finally:
        gc.enable()
    return totals


def run(
    seconds: float, seed: int, memory: Memory | Server | None = None, *, is_hunt: bool = False, shrinks: bool = True
) -> int:
    """Run lives for some seconds of processor time, and print what they did.

    Args:
        memory: the database; by default in memory.
        is_hunt: for a planted bug: rare branches are not required.
        shrinks: whether a life that fails is made shorter.
    """
    with substitutes.installed():
        simulator = Simulator(memory=memory or Memory())
        totals = live(simulator, seconds=seconds, first=seed)
        if totals.failed is not None:
            _write(
                f"FAILED after {totals.seconds:.1f} CPU seconds: seed {totals.failed.seed}: {totals.failed.violation}"
            )
            if shrinks:
                _explain(simulator, totals.failed)
            return 1
    _write(str(totals))
    for branch, meaning in simulator.branches.items():
        _write(f"{simulator.sometimes.counts[branch]:8,}  {branch}: {meaning}")
    never = simulator.never_reached()
    if never and not is_hunt and seconds >= _ENOUGH_S:
        _write(f"never reached: {', '.join(never)}")
        return 1
    return 0


def repeat(seed: int, memory: Memory | Server | None = None) -> int:
    """Run one life, and print what happens."""
    with substitutes.installed():
        life = Simulator(memory=memory or Memory()).run(seed, is_traced=True)
    _write("\n".join(life.trace))
    _write(f"seed {seed}: {life.violation or 'all is well'}")
    return int(life.violation is not None)


def shrunk(simulator: Simulator, failed: Life, *, seconds: float = _SHRINKING_S) -> Life:
    """The shortest life that was found in which the same invariant is violated, with its trace."""
    assert failed.violation is not None
    invariant = failed.violation.invariant

    def still_fails(choices: Sequence[int]) -> Sequence[int] | None:
        life = simulator.run(failed.seed, recorded=choices)
        return life.choices if life.violation is not None and life.violation.invariant == invariant else None

    return simulator.run(failed.seed, recorded=shrink(failed.choices, still_fails, seconds=seconds), is_traced=True)


def _explain(simulator: Simulator, failed: Life) -> None:
    shortest = shrunk(simulator, failed)
    _write(f"shrunk from {len(failed.choices):,} choices to {len(shortest.choices):,}: {shortest.violation}")
    _write("\n".join(shortest.trace[-_SHOWN_LINES:]))
    where = " --postgresql" if simulator.memory.has_locks else ""
    _write(f"the whole life: python -m tests.simulation --once --seed {failed.seed}{where}")


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
