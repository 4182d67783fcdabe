"""Decisions depend on the results alone: the order of arrival and interruptions change nothing."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.sweeps.trial_scheduler import Outcome, Proposed, State, SweepPlan, TrialScheduler


class FakeWorkers:
    """Workers that finish started trials in any order, and log what is decided."""

    def __init__(self, plan: SweepPlan, seed: int, *, failing: float = 0.0, epochs: Sequence[int] = ()) -> None:
        self.plan, self.seed, self.failing, self.epochs = plan, seed, failing, epochs
        self.started: list[tuple[int, int]] = []
        self.done: set[tuple[int, int]] = set()
        self.log: list[Any] = []
        self.best: list[Any] | None = None
        self.has_ended = False

    def value(self, trial: int, rung: int) -> Outcome:
        drawn = int.from_bytes(hashlib.sha256(f"{self.seed}:{trial}:{rung}".encode()).digest()[:4], "big") / 2**32
        failed = drawn < self.failing
        return Outcome(None if failed else round(drawn, 2), failed)  # rounded: there are ties

    def propose(self, trial: int, max_epochs: int | None) -> Proposed | None:
        epochs = self.epochs[trial] if self.epochs else self.plan.rungs[-1]
        if max_epochs is not None and epochs > max_epochs:
            return Proposed(epochs, is_started=False)
        self.log.append(["propose", trial])
        self.started.append((trial, 0))
        return Proposed(epochs)

    def promote(self, trial: int, rung: int) -> None:
        self.started.append((trial, rung))

    def outcome(self, trial: int, rung: int) -> Outcome | None:
        return self.value(trial, rung) if (trial, rung) in self.done else None

    def record(self, trial: int, rung: int, outcome: Outcome, best: Sequence[Any] | None) -> None:
        self.log.append(["result", trial, rung, outcome.value])
        self.best = list(best) if best is not None else None

    def decide(self, rung: int, promoted: Sequence[Sequence[Any]], stopped: Sequence[Sequence[Any]]) -> None:
        self.log.append(["decide", rung, [list(item) for item in promoted], [list(item) for item in stopped]])

    def exhausted(self, reason: str) -> None:
        self.log.append(["exhausted", reason])

    def conclude(self, winner: Sequence[Any] | None, rung: int, ended_by: str | None) -> None:
        assert not self.has_ended
        self.has_ended = True
        self.log.append(["winner", list(winner or []), rung, ended_by])


def plan(**changes: Any) -> SweepPlan:
    defaults: dict[str, Any] = {
        "trials": 9, "seeds": 2, "rungs": [1, 3, 9], "factor": 3, "asynchronous": False, "parallel": 4,
        "maximize": True, "max_failed": None, "budget": None,
    }  # fmt: skip
    return SweepPlan(**defaults | changes)


def run(sweep: SweepPlan, *, seed: int, order: int, failing: float = 0.0, epochs: Sequence[int] = ()) -> FakeWorkers:
    backend, rng = FakeWorkers(sweep, seed, failing=failing, epochs=epochs), random.Random(order)
    document: dict[str, Any] | None = None
    for _ in range(10_000):
        state = State.of(json.loads(json.dumps(document)) if document else None, sweep)
        has_ended = TrialScheduler(sweep, state, backend).advance()
        document = state.document()
        if has_ended:
            return backend
        unfinished = [item for item in backend.started if item not in backend.done]
        assert unfinished, "the scheduler waits for nothing"
        assert len(unfinished) <= sweep.parallel
        backend.done.add(rng.choice(unfinished))
    raise AssertionError("it does not end")


PLANS = st.builds(
    plan,
    trials=st.integers(1, 20),
    rungs=st.sampled_from([[5], [1, 3, 9], [2, 9], [1, 2, 4, 8]]),
    factor=st.integers(2, 4),
    asynchronous=st.booleans(),
    parallel=st.integers(1, 8),
    maximize=st.booleans(),
    max_failed=st.one_of(st.none(), st.integers(0, 3)),
    budget=st.one_of(st.none(), st.integers(10, 150)),
)


@settings(max_examples=150)
@given(
    sweep=PLANS,
    seed=st.integers(0, 99),
    failing=st.sampled_from([0.0, 0.2]),
    arrivals=st.tuples(st.integers(), st.integers()),
)
def test_the_order_of_arrival_changes_no_decision(
    sweep: SweepPlan, seed: int, failing: float, arrivals: tuple[int, int]
) -> None:
    first, second = (run(sweep, seed=seed, order=order, failing=failing) for order in arrivals)
    assert first.log == second.log
    assert first.best == (first.log[-1][1] or None)
    if sweep.budget is not None:
        assert spent(sweep, first) <= sweep.budget
    assert spent(sweep, first) <= sweep.max_total_epochs()


def spent(sweep: SweepPlan, backend: FakeWorkers) -> int:
    cumulative_epochs = [0, *sweep.rungs]
    return sum(cumulative_epochs[rung + 1] - cumulative_epochs[rung] for _, rung in backend.started) * sweep.seeds


def test_synchronous_halving_promotes_the_best_third_and_trains_no_other_epochs() -> None:
    backend = run(plan(), seed=1, order=1)
    decisions = [entry for entry in backend.log if entry[0] == "decide"]
    assert [(rung, len(up), len(down)) for _, rung, up, down in decisions] == [(0, 3, 6), (1, 1, 2)]
    for _, _, up, down in decisions:
        assert min(value for _, value in up) >= max(value for _, value in down)
    assert spent(plan(), backend) == 2 * (9 * 1 + 3 * 2 + 1 * 6)
    winner = backend.log[-1]
    assert winner[1][0] == decisions[1][2][0][0]


def test_a_missing_value_ranks_last_and_ties_go_to_the_lower_trial_number() -> None:
    sweep = plan()
    assert sweep.rank([[3, None], [2, 0.5], [1, 0.5], [0, 0.7]]) == [[0, 0.7], [1, 0.5], [2, 0.5], [3, None]]
    assert plan(maximize=False).rank([[0, None], [1, 2.0], [2, -1.0]])[0] == [2, -1.0]


@settings(max_examples=150)
@given(sweep=PLANS, seed=st.integers(0, 99), order=st.integers())
def test_a_failed_trial_never_wins(sweep: SweepPlan, seed: int, order: int) -> None:
    backend = run(sweep, seed=seed, order=order, failing=0.4)
    results = [entry[1:] for entry in backend.log if entry[0] == "result"]
    failed = {trial for trial, _, value in results if value is None}
    left = [(rung, value, -trial) for trial, rung, value in results if trial not in failed]
    _, winner, rung, _ = backend.log[-1]
    if left:
        best_rung, value, trial = max(
            left, key=lambda item: (item[0], item[1] if sweep.maximize else -item[1], item[2])
        )
        assert (winner, rung) == ([-trial, value], best_rung)
    else:
        assert winner == []


def test_asynchronous_halving_promotes_before_all_trials_are_proposed() -> None:
    backend = run(plan(asynchronous=True, trials=12), seed=3, order=2)
    kinds = [entry[0] for entry in backend.log]
    first, last = kinds.index("decide"), len(kinds) - 1 - kinds[::-1].index("propose")
    assert first < last
    assert backend.log[-1][2] == 2, "a trial reaches the last rung"


def test_too_many_failures_end_the_sweep() -> None:
    backend = run(plan(rungs=[5], max_failed=0, trials=20, parallel=2), seed=4, order=1, failing=0.4)
    assert backend.log[-2] == ["exhausted", "failures"]
    assert backend.log[-1][3] == "failures"


@pytest.mark.parametrize("parallel", [1, 5])
def test_trials_are_proposed_and_recorded_in_order(parallel: int) -> None:
    backend = run(plan(rungs=[4], trials=10, parallel=parallel), seed=0, order=7)
    assert [entry[1] for entry in backend.log if entry[0] == "propose"] == list(range(10))
    assert [entry[1] for entry in backend.log if entry[0] == "result"] == list(range(10))


class ImprovingWorkers(FakeWorkers):
    """Each trial is better than those before it."""

    def value(self, trial: int, rung: int) -> Outcome:
        return Outcome(float(trial))


def test_asynchronous_halving_of_ever_better_trials_trains_the_maximum_of_epochs() -> None:
    sweep = plan(trials=8, seeds=1, rungs=[1, 2, 4], factor=2, asynchronous=True, parallel=1)
    backend = ImprovingWorkers(sweep, 0)
    state = None
    while not backend.has_ended:
        scheduler = TrialScheduler(sweep, State.of(state, sweep), backend)
        scheduler.advance()
        state = scheduler.state.document()
        backend.done.update(backend.started)
    assert spent(sweep, backend) == sweep.max_total_epochs() == 8 + 7 + 2 * 6
    assert plan(trials=8, seeds=1, rungs=[1, 2, 4], factor=2).max_total_epochs() == 8 + 4 + 2 * 2


@pytest.mark.parametrize(
    ("epochs", "budget", "started"),
    [([1, 10], 5, [0]), ([1, 2, 2], 10, [0, 1, 2]), ([1, 2, 2], 9, [0, 1]), ([2, 9, 1], 6, [0])],
)
def test_a_trial_with_its_own_epochs_starts_only_within_the_budget(
    epochs: list[int], budget: int, started: list[int]
) -> None:
    sweep = plan(trials=len(epochs), rungs=[5], budget=budget, own_epochs=True)
    backend = run(sweep, seed=1, order=1, epochs=epochs)
    assert [trial for trial, _ in backend.started] == started
    assert sum(epochs[trial] for trial in started) * sweep.seeds <= budget
    assert (["exhausted", "budget"] in backend.log) == (len(started) < len(epochs))
