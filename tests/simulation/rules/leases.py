"""The invariants of leases: who may write to a job, who may take it from a worker, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from service.states import Request, Status
from tests.simulation.kernel.runtime import CURRENT
from tests.simulation.kernel.violation import require
from tests.simulation.kernel.world import Process, World
from tests.simulation.parts.databases import Reach, Transaction
from tests.simulation.parts.users import Ledger
from tests.simulation.parts.workers import Child
from tests.simulation.rules.rows import Row

_MAX_DEATHS: Final = 3
_FENCED_MS: Final = 2000.0
"""Within this time of being able to, a worker has killed a child whose lease has expired."""
_GRACE_MS: Final = 3000.0
"""The time in which a worker that is well again renews its leases."""


class Leases:
    """All leases of a life, and how each ended."""

    def __init__(self, world: World, reach: Reach, ledger: Ledger) -> None:
        self._world, self._reach, self._ledger = world, reach, ledger
        self._tokens: set[str] = set()
        self._holders: dict[str, Process] = {}
        """The supervisor of each worker that has claimed a job, by the worker's id."""
        self._claimed_ms: dict[str, float] = {}
        """When each lease began, by its token."""
        self._taken: set[tuple[str, str | None]] = set()
        """Leases that did not end by a write of their holder: job and token."""

    def check_fence(self, transaction: Transaction | None, old: Row, rows: Mapping[str, Row]) -> None:
        """A write under a lease changes the job only while it is held, and no other job but those of its sweep."""
        if transaction is None or not transaction.claims:
            return
        claims = [claim for claim in transaction.claims if claim.job_id == old.id]
        is_of_sweep = old.sweep_id is not None and any(
            (other := rows.get(claim.job_id)) is not None and other.sweep_id == old.sweep_id
            for claim in transaction.claims
        )
        held = (old.lease, old.lease_token)
        is_held = old.status == Status.RUNNING and any((claim.lease, claim.token) == held for claim in claims)
        require(
            is_held or (not claims and is_of_sweep),
            "a dead lease writes nothing",
            f"{transaction} wrote to {old.id}, which was {old.status} under lease {old.lease}",
        )

    def check_claim(self, transaction: Transaction | None, old: Row, row: Row) -> None:
        require(row.lease == old.lease + 1, "leases are numbered", f"{row.id} got lease {row.lease} after {old.lease}")
        require(row.lease_token not in self._tokens, "a token is random", f"{row.id} got the token of another lease")
        self._tokens.add(row.lease_token or "")
        if transaction is not None:
            self._holders[row.lease_owner or ""] = transaction.process
        self._claimed_ms[row.lease_token or ""] = self._world.now_ms
        drained_ms = self._ledger.drained.get(row.lease_owner or "")
        began_ms = transaction.began_ms if transaction is not None else self._world.now_ms
        is_drained = drained_ms is not None and drained_ms < began_ms and not self._reach.restores
        require(not is_drained, "a drained worker claims nothing", f"{row.lease_owner} got {row.id}")
        self._check_no_other_child(row)

    def check_end(self, transaction: Transaction | None, old: Row, row: Row, reasons: list[str]) -> None:
        operation = transaction.operation if transaction is not None else ""
        if old.requested == Request.CANCEL:
            allowed = {Status.CANCELLED, Status.SUCCEEDED, Status.FAILED}
            require(row.status in allowed, "a request takes effect", f"{row.id}: cancelled, and {row.status}")
        if old.requested == Request.PAUSE:
            allowed = {Status.PAUSED, Status.SUCCEEDED, Status.FAILED}
            if old.sweep_id is not None:  # its sweep decides in the same transaction
                allowed |= {Status.CANCELLED} | ({Status.QUEUED} if "promoted" in reasons else set())
            require(row.status in allowed, "a request takes effect", f"{row.id}: to pause, and {row.status}")
        require(row.requested is None, "a request takes effect once", f"{row.id}: {row.requested}")
        is_lost = "lost" in reasons or "worker_lost" in reasons
        has_died = row.deaths > old.deaths
        require(not is_lost or has_died, "a lost worker is counted", f"{row.id}: {reasons}, {row.deaths} deaths")
        if has_died and row.status == Status.QUEUED:
            require("lost" in reasons, "a lost worker is counted", f"{row.id}: {reasons}")
        if operation in ("leases.record_child_loss", "rescue.rescue"):
            require(has_died, "a lost worker is counted", f"{row.id}: {reasons}")
        has_too_many = row.deaths > old.deaths >= _MAX_DEATHS - 1 and old.requested in (None, Request.PREEMPT)
        require(not has_too_many or row.status == Status.FAILED, "a lost worker is counted", f"{row.id} did not fail")
        if transaction is not None and not transaction.claims:
            self._taken.add((old.id, old.lease_token))
        if operation == "rescue.rescue":
            self._check_rescue(old)
        if operation == "leases.release_unacknowledged_claims":
            training = [c.process.name for c in self._training(old) if c.claim and c.claim.token == old.lease_token]
            require(not training, "a worker keeps what it trains", f"{training} train {old.id}, which was given back")

    def _check_rescue(self, old: Row) -> None:
        """Only a lost worker loses its job: not one that is well, after an outage of the database for all."""
        self._world.sometimes("rescued")
        holder = self._holders.get(old.lease_owner or "")
        if holder is None or holder.is_dead or self._reach.restores:
            return
        children = [child for child in CURRENT.children if old.lease_token in child.tokens]
        if not children and self._reach.back_ms > self._claimed_ms[old.lease_token or ""]:
            return  # the answer to the claim was lost, and then its worker could not give the job back
        # A worker that has killed its training no longer renews, and the rescue may come late.
        ages_ms = [self._world.now_ms - holder.troubled_ms, *(child.fenced_after_ms for child in children)]
        is_troubled = min(ages_ms) < 1000 * self._world.lease_s + _GRACE_MS
        require(is_troubled, "only a lost worker loses its job", f"{old.lease_owner} is well, and lost {old.id}")

    def _check_no_other_child(self, row: Row) -> None:
        """No training process of an earlier lease is at work: its worker has killed it, unless it could not."""
        for child in self._training(row):
            assert child.claim is not None
            assert child.process.parent is not None
            if (row.id, child.claim.token) not in self._taken or self._reach.restores:
                continue  # its own write has ended the lease, and it does not know yet
            processes = (child.process, child.process.parent)
            could_not = max(max(process.asleep_ms, process.frozen_until_ms) for process in processes)
            require(
                self._world.now_ms - could_not < _FENCED_MS,
                "a worker that could not renew stops",
                f"{child.process.name} still trains {row.id} under lease {child.claim.lease}",
            )

    @staticmethod
    def _training(row: Row) -> list[Child]:
        """The processes that train a job."""
        return [c for c in CURRENT.children if c.alive and c.claim is not None and c.claim.job_id == row.id]
