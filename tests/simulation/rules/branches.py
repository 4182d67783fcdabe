"""Which rare branches a transaction shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from service.states import Request, Status
from tests.simulation.kernel.sometimes import Sometimes
from tests.simulation.parts.databases import Transaction
from tests.simulation.rules.rows import Row

_OF_REASON: Final = {
    "preempted": "preempted",
    "storage": "machine fault",
    "budget": "budget spent",
    "worker_lost": "worker lost for good",
    "paused_by_sweep": "held by its sweep",
    "resumed": "resumed",
}
"""By the reason in an event."""


class Branches:
    """Tells the registry what it sees."""

    def __init__(self, sometimes: Sometimes) -> None:
        self._sometimes = sometimes
        self._probed: dict[str, str | None] = {}
        """The tokens of leases that got a renewal probe, by job."""

    def count(self, transaction: Transaction | None, old: Row | None, row: Row, reasons: Sequence[str]) -> None:
        """Count what a transaction did to a job."""
        sometimes = self._sometimes
        for reason, branch in _OF_REASON.items():
            if reason in reasons:
                sometimes(branch)
        if old is None:
            return
        if old.requested == Request.PREEMPT and {"lost", "worker_lost"} & set(reasons):
            sometimes("preemption forgotten")
        if old.status == Status.RUNNING and row.status in (Status.CANCELLED, Status.PAUSED):
            how = "cancelled" if row.status == Status.CANCELLED else "paused"
            sometimes(f"{how} while running")
        if old.epoch + 1 < row.epoch:
            sometimes("several epochs in a commit")
        if "claimed" in reasons and row.epoch:
            sometimes("continued")
        operation = transaction.operation if transaction is not None else ""
        if operation == "leases.record_child_loss":
            sometimes("child lost")
        if operation == "leases.release_unacknowledged_claims":
            sometimes("claim released")
        if operation == "rescue.rescue" and row.status == Status.RUNNING:
            self._probed[row.id] = row.lease_token
        if operation == "renewals.renew" and self._probed.pop(row.id, None) == row.lease_token is not None:
            sometimes("probed")

    def count_nothing(self, transaction: Transaction) -> None:
        """A write that changed nothing has found that it was done, or not allowed."""
        if transaction.operation == "epoch_commits.commit":
            self._sometimes("committed twice")
        if transaction.operation == "deliveries.record":
            self._sometimes("late record refused")
