"""The same sweep on one, two and four real workers, and while they are killed, inside decisions, too."""

from __future__ import annotations

import random

import pytest
from sqlalchemy import func, select

from service.jobs import leases
from service.runtime.failpoints import SimulatedKill
from service.storage.sweep_tables import Sweep
from service.storage.tables import Job
from tests.faults.conftest import InProcessHarness
from tests.faults.harness import FaultHarness
from tests.faults.sweeps.runs import (
    RANDOM,
    SEARCHES,
    Killer,
    SweepResult,
    has_ended,
    run_undisturbed,
    state,
    submit,
    until_end,
)

pytestmark = pytest.mark.timeout(900)  # whole sweeps, some of them three in a row


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    """Random search with synchronous halving."""
    ended = run_undisturbed(tmp_path_factory.mktemp("sweep"), RANDOM)
    kinds = [kind for kind, _ in ended.decisions]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "propose": 6, "result": 9, "promote": 2, "stop": 2, "winner": 1,
    }  # fmt: skip
    return ended


@pytest.fixture(scope="session")
def search(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SweepResult]:
    """TPE with synchronous halving, or ASHA: with asynchronous halving, where results come in any order."""
    name: str = request.param
    ended = run_undisturbed(tmp_path_factory.mktemp(name), SEARCHES[name])
    kinds = [kind for kind, _ in ended.decisions]
    assert (kinds.count("propose"), kinds.count("winner")) == (12, 1)
    assert kinds.count("result") > 12, "a trial was promoted"
    return name, ended


@pytest.mark.stack
def test_two_workers_make_the_same_decisions_as_one(harness: FaultHarness, undisturbed: SweepResult) -> None:
    sweep_id = submit(harness, RANDOM)
    harness.start(TAPELINE_WORKERS="2")
    harness.start()
    harness.start("workers.scheduler")
    assert until_end(harness, sweep_id) == undisturbed


@pytest.mark.nightly
def test_a_sweep_that_reuses_all_epochs_makes_the_same_decisions(
    harness: FaultHarness, undisturbed: SweepResult
) -> None:
    harness.start(TAPELINE_VERIFY_REUSED="0")
    harness.start("workers.scheduler")
    first, second, third = (
        until_end(harness, submit(harness, RANDOM | overrides))
        for overrides in ({}, {}, {"reuse": "never", "name": "trained again"})
    )
    assert first == second == third
    assert first.digest == undisturbed.digest
    with harness.database.read() as session:
        reused = dict(session.execute(select(Job.sweep_id, func.sum(Job.reused_epochs)).group_by(Job.sweep_id)).all())
        trained = dict(session.execute(select(Job.sweep_id, func.sum(Job.epoch)).group_by(Job.sweep_id)).all())
        sweep_ids = [sweep.id for sweep in session.scalars(select(Sweep).order_by(Sweep.created_ms))]
    assert [reused[sweep_id] for sweep_id in sweep_ids] == [0, trained[sweep_ids[0]], 0]


@pytest.mark.nightly
@pytest.mark.parametrize("search", ["tpe"], indirect=True)
def test_four_workers_make_the_same_decisions_as_one(harness: FaultHarness, search: tuple[str, SweepResult]) -> None:
    name, undisturbed = search
    sweep_id = submit(harness, SEARCHES[name])
    for _ in range(4):
        harness.start()
    harness.start("workers.scheduler")
    assert until_end(harness, sweep_id, 180) == undisturbed


@pytest.mark.nightly
def test_kills_inside_every_decision_change_none(process: InProcessHarness, undisturbed: SweepResult) -> None:
    """A simulated kill aborts each transaction with decisions once, just before its commit."""
    sweep_id = submit(process.workers, RANDOM)
    for seq in range(1, 50):
        process.arm(f"deciding.{seq}")
    while not has_ended(process.workers, sweep_id):
        held = process.claim()  # without a scheduler, each result is decided on by the worker that commits it
        try:
            process.train(held)
        except SimulatedKill:
            leases.record_child_loss(process.database, held, "killed while it decided")
    assert until_end(process.workers, sweep_id) == undisturbed
    reached = {path.name.split(".reached-")[0] for path in process.points.glob("deciding.*.reached-*")}
    results = [data for kind, data in undisturbed.decisions if kind == "result"]
    assert len(reached) >= len(results)
    assert f"deciding.{state(process.workers, sweep_id).last_seq}" in reached, "the last one ends the sweep"


@pytest.mark.nightly
@pytest.mark.parametrize("place", ["deciding", "decided"])
def test_a_scheduler_killed_around_a_decision_does_not_change_it(
    harness: FaultHarness, undisturbed: SweepResult, place: str
) -> None:
    """The patched worker leaves every decision to the scheduler, as one that finds the sweep's row locked."""
    sweep_id = submit(harness, RANDOM)
    harness.patch("from service.sweeps import decisions\ndecisions.after_result = lambda session, job: None")
    harness.start()
    harness.arm(place)
    first_scheduler = harness.start("workers.scheduler")
    first_scheduler.wait(60)
    harness.start("workers.scheduler")
    assert until_end(harness, sweep_id) == undisturbed


@pytest.mark.nightly
@pytest.mark.parametrize("search", ["asha"], indirect=True)
def test_repeated_kills_of_workers_children_and_schedulers_change_no_decision(
    harness: FaultHarness, search: tuple[str, SweepResult]
) -> None:
    name, undisturbed = search
    sweep_id = submit(harness, SEARCHES[name])
    killer = Killer(harness, random.Random(3), 2, (0.5, 1.5))
    killer.start()
    killer.run(lambda: has_ended(harness, sweep_id), max_kills=12)
    assert until_end(harness, sweep_id, 240) == undisturbed
    assert killer.total >= 3, "the sweep ended before anything was killed"
