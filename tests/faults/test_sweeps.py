"""The same sweep on real workers: undisturbed with one and with two, and killed at every point of a decision."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from service.application.specs import SpecChecks
from service.application.sweeps import Sweeps
from service.datasets.repository import DatasetRepository
from service.states import SWEEP_ENDED
from service.storage.artifacts import ArtifactFolder
from service.storage.sweep_tables import Sweep
from service.storage.tables import Epoch, Event, Job
from service.sweeps import events
from service.sweeps.events import DECISIONS
from tests.faults.harness import QUICK, FaultHarness, kill_group, open_harness, wait_until

SWEEP: dict[str, Any] = {
    "base": QUICK | {"epochs": 4},
    "seeds": [0, 1],
    "space": {
        "/optimizer/learning_rate": {"log": [0.003, 0.3]},
        "/layers/0/units": {"int": [8, 32], "step": 8},
    },
    "search": {"name": "random", "trials": 6, "seed": 7},
    "halving": {"min_epochs": 1, "factor": 3},
    "parallel": 3,
}


@dataclass
class Ended:
    """What must not depend on how the sweep was run."""

    digest: str | None
    winner: tuple[int | None, float | None]
    decisions: list[tuple[str, dict[str, Any]]]


def submit(harness: FaultHarness, document: dict[str, Any]) -> str:
    repository = DatasetRepository(harness.settings, harness.database)
    use_case = Sweeps(
        database=harness.database,
        artifacts=ArtifactFolder(harness.settings.artifacts),
        specs=SpecChecks(database=harness.database, datasets=repository),
    )
    return str(use_case.submit(document).answer["id"])


def state(harness: FaultHarness, sweep_id: str) -> Sweep:
    with harness.database.read() as session:
        return session.get_one(Sweep, sweep_id)


def until_end(harness: FaultHarness, sweep_id: str, timeout_s: float = 90) -> Ended:
    wait_until(lambda: state(harness, sweep_id).status in SWEEP_ENDED, "the end of the sweep", timeout_s)
    with harness.database.read() as session:
        sweep = session.get_one(Sweep, sweep_id)
        rows = events.read(session, sweep_id, limit=10_000)
        assert [row.seq for row in rows] == list(range(1, sweep.last_seq + 1))
        # No committed epoch was trained twice, and none is missing.
        trained = session.scalar(select(func.count()).select_from(Epoch).join(Job).where(Job.sweep_id == sweep_id))
        assert trained == sum(job.epoch for job in session.scalars(select(Job).where(Job.sweep_id == sweep_id)))
        assert trained == sweep.epochs_started
        again = select(func.count()).select_from(Event).where(Event.data["code"].as_string() == "determinism_violation")
        assert session.scalar(again) == 0
        kinds = {kind.value for kind in DECISIONS}
        told = [(row.type, row.data) for row in rows if row.type in kinds]
    assert sweep.status == "succeeded", sweep.error
    return Ended(sweep.sweep_digest, (sweep.best_trial, sweep.best_value), told)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The sweep with one worker, and nobody who disturbs it."""
    home = tmp_path_factory.mktemp("sweep")
    harness = open_harness(home / "home", f"sqlite:///{home / 'tapeline.db'}")
    sweep_id = submit(harness, SWEEP)
    harness.start()
    harness.start("workers.reconcile")
    ended = until_end(harness, sweep_id)
    harness.stop()
    harness.database.close()
    kinds = [kind for kind, _ in ended.decisions]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "propose": 6, "result": 9, "promote": 2, "stop": 2, "winner": 1,
    }  # fmt: skip
    return ended


@pytest.fixture(params=["sqlite", "postgresql"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FaultHarness]:
    url = f"sqlite:///{tmp_path / 'tapeline.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    made = open_harness(tmp_path / "home", url)
    yield made
    made.stop()
    made.database.close()


@pytest.mark.slow
def test_two_workers_decide_as_one_does(harness: FaultHarness, undisturbed: Ended) -> None:
    sweep_id = submit(harness, SWEEP)
    harness.start(TAPELINE_WORKERS="2")
    harness.start()
    harness.start("workers.reconcile")
    assert until_end(harness, sweep_id) == undisturbed


@pytest.mark.slow
def test_a_sweep_that_takes_over_all_its_epochs_decides_the_same(harness: FaultHarness, undisturbed: Ended) -> None:
    harness.start(TAPELINE_VERIFY_REUSED="0")
    harness.start("workers.reconcile")
    first, second, third = (
        until_end(harness, submit(harness, SWEEP | more))
        for more in ({}, {}, {"reuse": "never", "name": "trained again"})
    )
    assert first == second == third
    assert first.digest == undisturbed.digest
    with harness.database.read() as session:
        reused = dict(session.execute(select(Job.sweep_id, func.sum(Job.reused_epochs)).group_by(Job.sweep_id)).all())
        trained = dict(session.execute(select(Job.sweep_id, func.sum(Job.epoch)).group_by(Job.sweep_id)).all())
        names = [sweep.id for sweep in session.scalars(select(Sweep).order_by(Sweep.created_ms))]
    assert [reused[name] for name in names] == [0, trained[names[0]], 0]


@pytest.mark.slow
def test_without_a_scheduler_workers_decide_alone(harness: FaultHarness, undisturbed: Ended) -> None:
    """With one worker, no decision meets a locked row."""
    sweep_id = submit(harness, SWEEP)
    harness.start()
    assert until_end(harness, sweep_id) == undisturbed


@pytest.mark.faults
@pytest.mark.parametrize(
    "place", ["deciding", "epoch_committing", "epoch_committed", "succeeding", "succeeded", "began"]
)
def test_a_worker_killed_around_a_decision_changes_none(harness: FaultHarness, undisturbed: Ended, place: str) -> None:
    sweep_id = submit(harness, SWEEP)
    harness.arm(place)
    harness.start()
    harness.start("workers.reconcile")
    assert until_end(harness, sweep_id) == undisturbed
    assert not (harness.points / place).exists(), "nobody came by"


@pytest.mark.faults
@pytest.mark.parametrize("place", ["deciding", "decided"])
def test_a_scheduler_killed_around_a_decision_changes_none(
    harness: FaultHarness, undisturbed: Ended, place: str
) -> None:
    """Workers that find the sweep's row locked leave every decision to the scheduler."""
    sweep_id = submit(harness, SWEEP)
    harness.patch("from service.sweeps import decisions\ndecisions.after_result = lambda session, job: None")
    harness.start()
    harness.arm(place)
    first = harness.start("workers.reconcile")
    first.wait(60)
    harness.start("workers.reconcile")
    assert until_end(harness, sweep_id) == undisturbed


@pytest.mark.faults
def test_workers_and_scheduler_killed_again_and_again_change_nothing(harness: FaultHarness, undisturbed: Ended) -> None:
    sweep_id, chance = submit(harness, SWEEP), random.Random(3)
    workers = [harness.start(), harness.start()]
    scheduler = harness.start("workers.reconcile")
    for _ in range(4):
        time.sleep(chance.uniform(0.8, 2.5))
        if state(harness, sweep_id).status in SWEEP_ENDED:
            break
        place = chance.randrange(2)
        kill_group(workers[place])
        workers[place] = harness.start()
        scheduler.kill()
        scheduler.wait()
        scheduler = harness.start("workers.reconcile")
    assert until_end(harness, sweep_id) == undisturbed
