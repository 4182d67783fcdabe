"""The protocol under simulation: lives from fixed seeds, their repetition, and bugs that must be found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import and_

from service.jobs import leases
from service.runtime import failpoints
from service.storage.tables import Job
from tests.simulation import planting, runs, substitutes
from tests.simulation.kernel.tape import Tape
from tests.simulation.lives import Simulator
from tests.simulation.planted import BUGS
from tests.simulation.shrinking import shrink

_LIVES: Final = 10
_FIRST_OF_MANY: Final = 10_000
_SOME: Final = 15
_MANY: Final = 250
_HUNT_S: Final = 60.0
_WITH_REAL_PARTS: Final = {
    *("file_written", "file_renamed"),  # test_kill_points
    *("cleaned", "reported"),  # test_reused_children
    *("reuse_stored", "reusing", "reused"),  # test_reuse
    "concluding",  # test_differences
    "store_claimed",  # test_store_migration_back
}
"""Failpoints that no life reaches, and the tests that kill there."""


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """One database in memory for all lives of this module."""
    with substitutes.installed():
        yield Simulator()


def test_no_life_violates_an_invariant(simulator: Simulator) -> None:
    failed = runs.live(simulator, range(_LIVES)).failed
    assert failed is None, f"seed {failed.seed}: {failed.violation}"


def test_a_seed_repeats_its_life_step_by_step(simulator: Simulator) -> None:
    first, again = (simulator.run(7, is_traced=True) for _ in range(2))
    assert len(first.trace) > 50
    assert first.trace == again.trace
    assert simulator.run(0, recorded=first.choices, is_traced=True).trace == first.trace


def test_a_life_without_choices_has_no_fault(simulator: Simulator) -> None:
    life = simulator.run(0, recorded=())
    assert (life.violation, life.faults) == (None, 0)


def test_a_bug_is_found_and_its_life_shrunk(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease guard does not compare the lease: a dead one writes."""
    monkeypatch.setattr(leases, "_is_held", lambda claim: and_(Job.id == claim.job_id, Job.lease > 0))
    failed = runs.live(simulator, range(30)).failed
    assert failed is not None
    assert failed.violation is not None
    assert failed.violation.invariant == "a dead lease writes nothing"
    shortest = runs.shrunk(simulator, failed, seconds=1.5)
    assert shortest.violation is not None
    assert shortest.violation.invariant == failed.violation.invariant
    assert sum(map(bool, shortest.choices)) < sum(map(bool, failed.choices))


def test_shrinking_keeps_what_the_failure_needs() -> None:
    def still_fails(choices: Sequence[int]) -> Sequence[int] | None:
        tape = Tape(recorded=choices)
        drawn = [tape.draw(10) for _ in range(20)]
        return tape.choices if drawn.count(7) >= 2 else None

    noisy = [3, 1, 7, 4, 9, 9, 2, 7, 5, 5, 8, 1]
    assert list(shrink(noisy, still_fails, seconds=5.0)) == [7, 7]


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_has_a_place(name: str) -> None:
    bug = BUGS[name]
    source = Path(f"{bug.module.replace('.', '/')}.py").read_text()
    assert source.count(bug.old) == 1
    compile(source.replace(bug.old, bug.new), bug.module, "exec")


@pytest.mark.stack
def test_some_lives_violate_nothing(simulator: Simulator) -> None:
    failed = runs.live(simulator, range(_FIRST_OF_MANY, _FIRST_OF_MANY + _SOME)).failed
    assert failed is None, f"seed {failed.seed}: {failed.violation}"


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_many_lives_violate_nothing_and_reach_every_rare_branch(simulator: Simulator) -> None:
    """About a minute of processor time; a number of lives, so that a slow machine reaches the same branches."""
    simulator.sometimes.counts.clear()
    failed = runs.live(simulator, range(_FIRST_OF_MANY, _FIRST_OF_MANY + _MANY)).failed
    assert failed is None, f"seed {failed.seed}: {failed.violation}"
    assert simulator.never_reached() == []
    assert failpoints.PLACES.keys() - substitutes.REACHED == _WITH_REAL_PARTS


@pytest.mark.stack
def test_another_process_repeats_a_life(simulator: Simulator) -> None:
    command = [sys.executable, "-m", "tests.simulation", "--once", "--seed", "7"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "1"}).stdout
    assert "\n".join(simulator.run(7, is_traced=True).trace) in printed


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found_within_a_minute(name: str) -> None:
    assert planting.hunt(name, _HUNT_S) is not None
