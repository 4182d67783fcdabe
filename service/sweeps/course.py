"""The course of a sweep: which trial starts, goes on or stops, as a function of results alone.

What is decided must not depend on how many workers there are, or on which of them is killed. So results are
taken in the order in which ``parallel`` equal workers would bring them, each of which needs one unit of time
for an epoch: the *virtual time* of a result is known when its trial starts. A result that arrives early waits
for its turn, and the course waits for one that is late. Ties go to the trial with the lower number.

Synchronous halving is that of Jamieson and Talwalkar 2016 (arXiv:1502.07943), in one bracket: a rung is
decided when all of its trials have arrived. Asynchronous halving is ASHA, Algorithm 2 of Li et al. 2020
(arXiv:1810.05934), in virtual time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol, Self

BUDGET: Final = "budget"
FAILURES: Final = "failures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What of a sweep's spec decides its course."""

    trials: int
    seeds: int
    rungs: Sequence[int]
    """The epoch of each rung; the last is the end of a job. One only: no halving."""
    factor: int
    asynchronous: bool
    parallel: int
    maximize: bool
    max_failed: int | None
    budget: int | None
    """Epochs of all jobs."""

    def rank(self, results: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """Results, each a trial and its value, the best first. No value is the worst; ties go to the lower number."""
        sign = -1 if self.maximize else 1
        return sorted(results, key=lambda item: (item[1] is None, sign * (item[1] or 0.0), item[0]))


@dataclass(slots=True, kw_only=True)
class State:
    """Where a course stands; kept as JSON between two decisions."""

    clock: int = 0
    running: list[list[int]] = field(default_factory=list)
    """Virtual time of the result, trial, rung."""
    proposed: int = 0
    failed: int = 0
    spent: int = 0
    """Epochs that were started."""
    stage: int = 0
    """Synchronous: the rung that is trained for."""
    waiting: list[int] = field(default_factory=list)
    """Synchronous: promoted, and not started yet."""
    results: list[list[list[Any]]] = field(default_factory=list)
    """For each rung: trial and value, in the order of virtual time."""
    promoted: list[list[int]] = field(default_factory=list)
    """Asynchronous: for each rung, the trials that went on."""
    ended_by: str | None = None
    """Why nothing more is started, although there would be something."""

    @classmethod
    def of(cls, document: dict[str, Any] | None, plan: Plan) -> Self:
        """The state from its JSON, or that of the beginning."""
        if document:
            return cls(**copy.deepcopy(document))
        rungs = len(plan.rungs)
        return cls(results=[[] for _ in range(rungs)], promoted=[[] for _ in range(rungs)])

    def document(self) -> dict[str, Any]:
        """The state as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Proposed:
    """A new trial. ``epochs``: of a whole job of it; ``None``: its settings are not valid."""

    epochs: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial up to a rung."""

    value: float | None
    """``None``: not finite, or there is none."""
    failed: bool = False


class World(Protocol):
    """What a course acts on."""

    def propose(self, trial: int) -> Proposed | None:
        """Start a new trial; ``None``: its settings are not known yet."""

    def promote(self, trial: int, rung: int) -> None:
        """Let a trial go on to a rung."""

    def outcome(self, trial: int, rung: int) -> Outcome | None:
        """The result of a trial at a rung; ``None``: it has none yet."""

    def record(self, trial: int, rung: int, outcome: Outcome) -> None:
        """Record a result whose turn it is."""

    def decide(self, rung: int, promoted: Sequence[Sequence[Any]], stopped: Sequence[Sequence[Any]]) -> None:
        """Record which trials of a rung go on, and stop others."""

    def exhausted(self, why: str) -> None:
        """Record that nothing more will be started."""

    def conclude(self, winner: Sequence[Any] | None, rung: int, ended_by: str | None) -> None:
        """End the sweep."""


class Course:
    """Decides as far as the results that are there allow."""

    def __init__(self, plan: Plan, state: State, world: World) -> None:
        self.plan, self.state, self.world = plan, state, world

    def advance(self) -> bool:
        """Take every decision that can be taken now; returns whether the sweep is over."""
        state = self.state
        while self._fill():
            if state.ended_by == FAILURES or not state.running:
                self._conclude()
                return True
            following = min(state.running)
            _, trial, rung = following
            outcome = self.world.outcome(trial, rung)
            if outcome is None:
                return False
            state.running.remove(following)
            state.clock = following[0]
            state.results[rung].append([trial, outcome.value])
            self.world.record(trial, rung, outcome)
            if outcome.failed:
                self._count_failure()
        return False

    def _fill(self) -> bool:
        """Start what can be started; returns whether all of it was known."""
        state, plan = self.state, self.plan
        while len(state.running) < plan.parallel and state.ended_by is None:
            promoted = self._next_promotion()
            if promoted is not None:
                trial, rung = promoted
                cost = plan.rungs[rung] - plan.rungs[rung - 1]
                if self._afford(cost):
                    self.world.promote(trial, rung)
                    state.running.append([state.clock + cost, trial, rung])
                continue
            if state.proposed >= plan.trials:
                break
            if not self._affordable(plan.rungs[0]):
                self._exhaust(BUDGET)
                break
            made = self.world.propose(state.proposed)
            if made is None:
                return False
            trial = state.proposed
            state.proposed += 1
            if made.epochs is None:
                state.results[0].append([trial, None])
                self._count_failure()
                continue
            cost = min(plan.rungs[0], made.epochs) if len(plan.rungs) > 1 else made.epochs
            state.spent += cost * plan.seeds
            state.running.append([state.clock + cost, trial, 0])
        return True

    def _next_promotion(self) -> tuple[int, int] | None:
        state, plan = self.state, self.plan
        last = len(plan.rungs) - 1
        if plan.asynchronous:
            for rung in reversed(range(last)):
                ranked = plan.rank(state.results[rung])
                for trial, value in ranked[: len(ranked) // plan.factor]:
                    if value is not None and trial not in state.promoted[rung]:
                        state.promoted[rung].append(trial)
                        self.world.decide(rung, [[trial, value]], [])
                        return trial, rung + 1
            return None
        if not state.waiting and not state.running and state.proposed >= plan.trials and state.stage < last:
            self._close_stage()
        return (state.waiting.pop(0), state.stage) if state.waiting else None

    def _close_stage(self) -> None:
        """All trials of a rung have arrived: the best go on, the others stop."""
        state, plan = self.state, self.plan
        ranked = plan.rank(state.results[state.stage])
        count = max(1, len(ranked) // plan.factor)
        chosen = [item for item in ranked[:count] if item[1] is not None]
        self.world.decide(state.stage, chosen, [item for item in ranked if item not in chosen])
        state.stage += 1
        state.waiting = [trial for trial, _ in chosen]
        if not chosen:
            state.stage = len(plan.rungs) - 1

    def _afford(self, cost: int) -> bool:
        if not self._affordable(cost):
            self._exhaust(BUDGET)
            return False
        self.state.spent += cost * self.plan.seeds
        return True

    def _affordable(self, cost: int) -> bool:
        budget = self.plan.budget
        return budget is None or self.state.spent + cost * self.plan.seeds <= budget

    def _count_failure(self) -> None:
        self.state.failed += 1
        if self.plan.max_failed is not None and self.state.failed > self.plan.max_failed:
            self._exhaust(FAILURES)

    def _exhaust(self, why: str) -> None:
        if self.state.ended_by is None:
            self.state.ended_by = why
            self.world.exhausted(why)

    def _conclude(self) -> None:
        for rung in reversed(range(len(self.plan.rungs))):
            ranked = self.plan.rank(self.state.results[rung])
            if ranked and ranked[0][1] is not None:
                self.world.conclude(ranked[0], rung, self.state.ended_by)
                return
        self.world.conclude(None, 0, self.state.ended_by)
