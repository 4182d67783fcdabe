"""Proposals of trials whose settings depend on results: each takes up to seconds, so they have turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from sqlalchemy import select

from service.states import SweepStatus
from service.storage.database import Database
from service.storage.sweep_tables import Sweep
from service.sweeps import decisions
from service.sweeps.search import proposals


class Proposer:
    """Makes the proposals that depend on results, one per turn. The next turn has the owner whose proposals have taken
    the least time, with such a sweep: neither many sweeps of one owner nor slow ones delay those of others."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.thread_time) -> None:
        self._database, self._clock = database, clock
        self._owners: dict[str, float] = {}
        self._sweeps: dict[str, float] = {}
        """The seconds that proposals took, of each owner and of each sweep."""

    def propose_all(self) -> list[str]:
        """Make every proposal that is due; returns the ids of the queued jobs."""
        queued: list[str] = []
        while (turn := self._next_turn()) is not None:
            owner, sweep_id = turn
            began = self._clock()
            with decisions.failing_on_error(self._database, sweep_id):
                queued += self._propose(sweep_id)
            used_s = self._clock() - began
            self._owners[owner] += used_s
            self._sweeps[sweep_id] += used_s
        return queued

    def _next_turn(self) -> tuple[str, str] | None:
        """An owner and a sweep."""
        with self._database.read() as session:
            query = select(Sweep).where(Sweep.status == SweepStatus.RUNNING)
            running = [
                (sweep.owner or "", sweep.id, decisions.waits_for_suggestion(sweep, decisions.state_of(sweep)))
                for sweep in session.scalars(query)
            ]
        self._owners = _with_new(self._owners, {owner for owner, _, _ in running})
        self._sweeps = _with_new(self._sweeps, {sweep_id for _, sweep_id, _ in running})
        waiting = [
            (self._owners[owner], self._sweeps[sweep_id], owner, sweep_id)
            for owner, sweep_id, waits in running
            if waits
        ]
        return min(waiting)[2:] if waiting else None

    def _propose(self, sweep_id: str) -> list[str]:
        with self._database.read() as session:
            sweep = session.get(Sweep, sweep_id)
            if sweep is None or not decisions.waits_for_suggestion(sweep, decisions.state_of(sweep)):
                return []
            seq, suggestions = sweep.last_seq, proposals.suggest(session, sweep)
        return decisions.advance_one(self._database, sweep_id, suggestions, seq)


def _with_new(used_s: Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    """The seconds of these names. New ones begin with the least of the others: who was idle has no credit."""
    start_s = min((used_s[name] for name in names if name in used_s), default=0.0)
    return {name: used_s.get(name, start_s) for name in names}
