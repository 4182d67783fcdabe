"""Decides which trials of a sweep start, continue or stop, as a function of results alone.

Decisions must not depend on the number of workers, or on which of them are killed. So results are processed in
the order in which ``parallel`` equal workers would produce them, each taking one unit of time per epoch: the
*virtual time* of a result is known when its trial starts. A result that arrives early waits for its turn, and
the trial scheduler waits for one that is late. Ties go to the trial with the lower number.

Synchronous halving follows Jamieson and Talwalkar 2016 (arXiv:1502.07943), in one bracket: a rung is decided
when all of its trials have arrived. Asynchronous halving is ASHA, Algorithm 2 of Li et al. 2020
(arXiv:1810.05934), in virtual time.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Protocol, Self

BUDGET: Final = "budget"
FAILURES: Final = "failures"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """The parts of a sweep's spec that determine its decisions."""

    trials: int
    seeds: int
    rungs: Sequence[int]
    """The epoch of each rung; the last one is the end of a job. A single rung means no halving."""
    factor: int
    asynchronous: bool
    parallel: int
    maximize: bool
    max_failed: int | None
    budget: int | None
    """Maximum number of epochs of all jobs together."""
    own_epochs: bool = False
    """Whether each trial has its own number of epochs, because ``/epochs`` is searched. Then there is no halving."""

    def max_total_epochs(self) -> int:
        """Maximum number of epochs of all jobs together, without the budget.

        Asynchronous halving promotes at most one further trial with each result, from result number
        ``factor`` on. It promotes that many if every result is better than those before it.
        """
        total = self.trials * self.rungs[0]
        remaining = self.trials
        for before, after in itertools.pairwise(self.rungs):
            remaining = max(0, remaining - self.factor + 1) if self.asynchronous else max(1, remaining // self.factor)
            total += remaining * (after - before)
        return total * self.seeds

    def epochs_at_most(self) -> int | None:
        """Maximum number of epochs of all jobs together within the budget; ``None`` if it depends on the settings of
        the trials."""
        limits = [] if self.own_epochs else [self.max_total_epochs()]
        if self.budget is not None:
            limits.append(self.budget)
        return min(limits, default=None)

    def rank(self, results: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """Sort results (trial, value), best first. A missing value ranks last; ties go to the lower trial number."""
        sign = -1 if self.maximize else 1
        return sorted(results, key=lambda item: (item[1] is None, sign * (item[1] or 0.0), item[0]))


@dataclass(slots=True, kw_only=True)
class State:
    """The state of a trial scheduler, stored as JSON between two decisions."""

    clock: int = 0
    running: list[list[int]] = field(default_factory=list)
    """Expected results: virtual time, trial, rung."""
    proposed: int = 0
    failed: int = 0
    spent: int = 0
    """Epochs that were started, of all jobs."""
    stage: int = 0
    """Synchronous: the rung that trials are training towards."""
    waiting: list[int] = field(default_factory=list)
    """Synchronous: trials that are promoted, but not started yet."""
    results: list[list[list[Any]]] = field(default_factory=list)
    """For each rung: trials and values, in order of virtual time."""
    promoted: list[list[int]] = field(default_factory=list)
    """Asynchronous: for each rung, the promoted trials."""
    ended_by: str | None = None
    """Why no more trials are started before all are done; ``None`` otherwise."""

    @classmethod
    def of(cls, document: dict[str, Any] | None, plan: SweepPlan) -> Self:
        """Read a state from JSON; for ``None``, return the initial state."""
        if document:
            return cls(**copy.deepcopy(document))
        rungs = len(plan.rungs)
        return cls(results=[[] for _ in range(rungs)], promoted=[[] for _ in range(rungs)])

    def document(self) -> dict[str, Any]:
        """The state as JSON, which shares its lists."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class Proposed:
    """A new trial. ``epochs`` is the number of epochs of its jobs, or ``None`` if its settings are invalid."""

    epochs: int | None
    is_started: bool = True
    """False: it has more epochs than were allowed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a trial at a rung."""

    value: float | None
    """``None`` if there is no finite value."""
    failed: bool = False


class SweepBackend(Protocol):
    """The interface through which a trial scheduler acts."""

    def propose(self, trial: int, max_epochs: int | None) -> Proposed | None:
        """Start a new trial, unless its jobs have more than ``max_epochs`` epochs; ``None`` if its settings
        are not known yet, or its turn is in the next transaction."""

    def promote(self, trial: int, rung: int) -> None:
        """Let a trial continue to a rung."""

    def outcome(self, trial: int, rung: int) -> Outcome | None:
        """The result of a trial at a rung; ``None`` if there is none yet."""

    def record(self, trial: int, rung: int, outcome: Outcome, best: Sequence[Any] | None) -> None:
        """Record a result whose turn it is, and the best result (trial, value) so far."""

    def decide(self, rung: int, promoted: Sequence[Sequence[Any]], stopped: Sequence[Sequence[Any]]) -> None:
        """Record which trials of a rung are promoted, and stop the others."""

    def exhausted(self, reason: str) -> None:
        """Record that no more trials will be started."""

    def conclude(self, winner: Sequence[Any] | None, rung: int, ended_by: str | None) -> None:
        """End the sweep."""


class TrialScheduler:
    """Makes all decisions that the available results permit."""

    def __init__(self, plan: SweepPlan, state: State, backend: SweepBackend) -> None:
        self.plan, self.state, self.backend = plan, state, backend

    def advance(self) -> bool:
        """Make every decision that can be made now; returns whether the sweep has ended."""
        state = self.state
        while self._fill():
            if state.ended_by == FAILURES or not state.running:
                self.backend.conclude(*self._best(), state.ended_by)
                return True
            next_result = min(state.running)
            _, trial, rung = next_result
            outcome = self.backend.outcome(trial, rung)
            if outcome is None:
                return False
            state.running.remove(next_result)
            state.clock = next_result[0]
            state.results[rung].append([trial, outcome.value])
            self.backend.record(trial, rung, outcome, self._best()[0])
            if outcome.failed:
                self._count_failure()
        return False

    def _fill(self) -> bool:
        """Start as many trials as possible; returns whether all of them were started."""
        state, plan = self.state, self.plan
        while len(state.running) < plan.parallel and state.ended_by is None:
            promoted = self._next_promotion()
            if promoted is not None:
                trial, rung = promoted
                cost = plan.rungs[rung] - plan.rungs[rung - 1]
                if self._try_spend(cost):
                    self.backend.promote(trial, rung)
                    state.running.append([state.clock + cost, trial, rung])
                continue
            if state.proposed >= plan.trials:
                break
            if not plan.own_epochs and not self._can_afford(plan.rungs[0]):
                self._exhaust(BUDGET)
                break
            proposal = self.backend.propose(state.proposed, self._remaining_epochs() if plan.own_epochs else None)
            if proposal is None:
                return False
            if not proposal.is_started:
                self._exhaust(BUDGET)
                break
            trial = state.proposed
            state.proposed += 1
            if proposal.epochs is None:
                state.results[0].append([trial, None])
                self._count_failure()
                continue
            cost = min(plan.rungs[0], proposal.epochs) if len(plan.rungs) > 1 else proposal.epochs
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
                        self.backend.decide(rung, [[trial, value]], [])
                        return trial, rung + 1
            return None
        if not state.waiting and not state.running and state.proposed >= plan.trials and state.stage < last:
            self._close_stage()
        return (state.waiting.pop(0), state.stage) if state.waiting else None

    def _close_stage(self) -> None:
        """All trials of a rung have arrived: promote the best, stop the others."""
        state, plan = self.state, self.plan
        ranked = plan.rank(state.results[state.stage])
        count = max(1, len(ranked) // plan.factor)
        chosen = [item for item in ranked[:count] if item[1] is not None]
        self.backend.decide(state.stage, chosen, [item for item in ranked if item not in chosen])
        state.stage += 1
        state.waiting = [trial for trial, _ in chosen]
        if not chosen:
            state.stage = len(plan.rungs) - 1

    def _try_spend(self, cost: int) -> bool:
        if not self._can_afford(cost):
            self._exhaust(BUDGET)
            return False
        self.state.spent += cost * self.plan.seeds
        return True

    def _can_afford(self, cost: int) -> bool:
        remaining = self._remaining_epochs()
        return remaining is None or cost <= remaining

    def _remaining_epochs(self) -> int | None:
        """The number of epochs that the budget leaves for each job of a trial; ``None`` without a budget."""
        budget = self.plan.budget
        return None if budget is None else (budget - self.state.spent) // self.plan.seeds

    def _count_failure(self) -> None:
        self.state.failed += 1
        if self.plan.max_failed is not None and self.state.failed > self.plan.max_failed:
            self._exhaust(FAILURES)

    def _exhaust(self, reason: str) -> None:
        if self.state.ended_by is None:
            self.state.ended_by = reason
            self.backend.exhausted(reason)

    def _best(self) -> tuple[Sequence[Any] | None, int]:
        """The best result (trial, value) of the highest rung that has one, and that rung.

        Trials that failed or had no finite value at any rung are excluded with all of their results.
        """
        excluded = {trial for results in self.state.results for trial, value in results if value is None}
        for rung in reversed(range(len(self.plan.rungs))):
            ranked = self.plan.rank([result for result in self.state.results[rung] if result[0] not in excluded])
            if ranked:
                return ranked[0], rung
        return None, 0
