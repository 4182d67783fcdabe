"""The invariants of sweeps: they decide as if nothing had disturbed them, and each decision once."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence

from service.states import SWEEP_ENDED, Status
from tests.simulation.kernel.violation import require
from tests.simulation.kernel.world import World
from tests.simulation.parts.databases import Transaction
from tests.simulation.parts.postgresql import Reader
from tests.simulation.rules.rows import Row


class Sweeps:
    """The sweeps after the last step.

    Args:
        digests: of the decisions of each of ``SWEEPS``, undisturbed.
    """

    def __init__(self, world: World, connection: sqlite3.Connection | Reader, digests: Sequence[str]) -> None:
        self._world, self._connection, self._digests = world, connection, digests
        self.statuses: dict[str, str] = {}

    def forget(self) -> None:
        """The database went back."""
        self.statuses = self._read()

    def check(
        self, transaction: Transaction | None, announced: Counter[tuple[str, str]], rows: Mapping[str, Row]
    ) -> None:
        """Check what a transaction did to sweeps; those that have ended are to be announced."""
        before, now = self.statuses, self._read()
        self.statuses = now
        for sweep_id, status in now.items():
            if status != before.get(sweep_id) and status in SWEEP_ENDED:
                announced["sweep.ended", sweep_id] += 1
                self._check_decisions(sweep_id, status, rows)
        if now != before and transaction is not None:
            self._world.sometimes("decided by a worker" if transaction.claims else "decided by the scheduler")

    def _check_decisions(self, sweep_id: str, status: str, rows: Mapping[str, Row]) -> None:
        query = "SELECT spec, sweep_digest, error, last_seq FROM sweeps WHERE id = ?"
        spec, digest, error, last_seq = self._connection.execute(query, (sweep_id,)).fetchone()
        if any(row.sweep_id == sweep_id and row.status == Status.FAILED for row in rows.values()):
            return  # a trial has lost too many workers
        require(status == "succeeded", "sweeps decide once", f"{sweep_id} is {status}: {error}")
        require(
            digest == self._digests[json.loads(spec)["sweep"]],
            "sweeps decide once",
            f"{sweep_id} has made other decisions",
        )
        query = "SELECT seq FROM sweep_events WHERE sweep_id = ? ORDER BY seq"
        numbers = [seq for (seq,) in self._connection.execute(query, (sweep_id,))]
        require(numbers == list(range(1, last_seq + 1)), "events have no gaps", f"{sweep_id}: {numbers}")

    def _read(self) -> dict[str, str]:
        return dict(self._connection.execute("SELECT id, status FROM sweeps").fetchall())
