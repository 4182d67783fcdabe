"""The invariants of messages to webhooks: each event is announced in its transaction, once, and arrives."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Final

from service.features.webhooks.delivery.deliveries import LEASE_S
from tests.simulation.kernel.runtime import CURRENT
from tests.simulation.kernel.violation import require
from tests.simulation.kernel.world import World
from tests.simulation.parts.databases import Transaction
from tests.simulation.parts.postgresql import Reader
from tests.simulation.parts.receivers import TYPES

_QUERY: Final = """
SELECT webhook_deliveries.webhook_id, event_id, type, data, status, lease, next_ms, webhooks.url, webhooks.owner
FROM webhook_deliveries JOIN webhooks ON webhooks.id = webhook_deliveries.webhook_id ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class _Message:
    webhook_id: str
    event_id: str
    type: str
    data: str
    status: str
    lease: str | None
    next_ms: int | None
    url: str
    owner: str | None

    @property
    def subject(self) -> str:
        return str(json.loads(self.data)["id"])


class Messages:
    """The messages after the last step."""

    def __init__(self, world: World, connection: sqlite3.Connection | Reader) -> None:
        self._world, self._connection = world, connection
        self._before: dict[tuple[str, str], _Message] = {}
        self._went_back = False
        self._leased_ms: dict[str, int] = {}
        """Since when each lease may have begun, by the database's clock."""

    def forget(self) -> None:
        """The database went back."""
        self._before, self._went_back = self._read(), True

    def check(self, transaction: Transaction | None, announced: Counter[tuple[str, str]]) -> None:
        """Check what a transaction did to messages.

        Args:
            announced: the events that it is to announce: their types and subjects.
        """
        before, now = self._before, self._read()
        self._before = now
        new = [message for key, message in now.items() if key not in before]
        written = Counter((m.webhook_id, m.type, m.subject) for m in new if m.type in TYPES)
        require(written == self._expected(announced), "each event has its message", f"{announced}, written: {written}")
        lost = [(m.webhook_id, m.subject) for m in now.values() if m.type == "worker.lost"]
        require(len(lost) == len(set(lost)), "a lost worker is told of once", f"{lost}")
        require(before.keys() <= now.keys(), "announced messages stay", f"{before.keys() - now.keys()} are gone")
        for key, message in now.items():
            if message != before.get(key):
                self._check_change(transaction, before.get(key), message)

    def _expected(self, announced: Counter[tuple[str, str]]) -> Counter[tuple[str, str, str]]:
        expected: Counter[tuple[str, str, str]] = Counter()
        for kind, subject in announced:
            query = """SELECT webhooks.id FROM webhooks WHERE disabled_ms IS NULL AND owner IS NOT DISTINCT FROM
                COALESCE((SELECT owner FROM jobs WHERE id = ?), (SELECT owner FROM sweeps WHERE id = ?))"""
            for (webhook_id,) in self._connection.execute(query, (subject, subject)):
                expected[webhook_id, kind, subject] += announced[kind, subject]
        return expected

    def _check_change(self, transaction: Transaction | None, old: _Message | None, message: _Message) -> None:
        claimed = transaction.message if transaction is not None else None
        if old is not None and claimed is not None:
            is_own = (old.lease, old.event_id) == (claimed.lease, claimed.event_id)
            require(is_own, "a late sender records nothing", f"{message.event_id}, leased to another")
        if old is not None and old.lease is not None and message.lease not in (None, old.lease):
            held_ms = self._world.database_ms - self._leased_ms.get(old.lease, 0)
            is_over = held_ms >= 1000 * LEASE_S
            require(is_over, "a message has one sender", f"{message.event_id}, leased {held_ms / 1000} s ago")
        if message.lease is not None:
            now_ms = self._world.database_ms  # the clock may have been set back meanwhile
            began_ms = min(transaction.clock_ms, now_ms) if transaction is not None else now_ms
            self._leased_ms.setdefault(message.lease, began_ms)
        if message.status == "delivered":
            bodies = CURRENT.receivers.received[message.url, message.event_id]
            require(bodies, "delivered messages have arrived", f"{message.event_id} has not arrived")
            require(
                len(set(bodies)) == 1 or self._went_back,
                "a message is the same each time",
                f"{message.event_id}: {bodies}",
            )

    @property
    def next_ms(self) -> int | None:
        """When the next message is due."""
        enabled = {row[0] for row in self._connection.execute("SELECT id FROM webhooks WHERE disabled_ms IS NULL")}
        due = [m.next_ms for m in self._before.values() if m.next_ms is not None and m.webhook_id in enabled]
        return min(due, default=None)

    def check_end(self) -> None:
        """Every message to a webhook that is enabled has arrived."""
        enabled = {row[0] for row in self._connection.execute("SELECT id FROM webhooks WHERE disabled_ms IS NULL")}
        left = [m.event_id for m in self._before.values() if m.webhook_id in enabled and m.status != "delivered"]
        require(not left, "every message arrives", f"{left}")

    def _read(self) -> dict[tuple[str, str], _Message]:
        return {(row[0], row[1]): _Message(*row) for row in self._connection.execute(_QUERY)}
