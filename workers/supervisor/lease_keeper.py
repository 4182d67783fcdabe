"""Renews the leases of all jobs of a worker, and kills a child whose lease could not be renewed in time."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Final, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.jobs import renewals
from service.jobs.leases import Claim
from service.jobs.renewals import Pending, Renewal
from service.states import Request
from service.storage.database import Database
from workers.pace import Pace

REQUESTS_INTERVAL_S: Final = 0.5
"""How often requests (cancel, pause) are read, in one statement for all jobs."""
_EXPECTED_READ_S: Final = 0.002
_MAX_SLOWDOWN: Final = 4.0
"""While that takes longer, because many workers share the database, it is done less often, by up to this factor."""
RENEWALS: Final = 3
"""How often a lease is renewed within its duration: once may fail."""
FENCE: Final = 0.7
"""Fraction of the lease after which the child is killed if there was no renewal, well before the lease expires."""
FENCE_INTERVAL_S: Final = 0.25
STUCK_S: Final = 5.0
"""Time after which a round hangs."""

log = structlog.get_logger()


class Holder(Protocol):
    """Whoever uses a lease: the monitor of a job."""

    @property
    def claim(self) -> Claim:
        """The claim of the lease."""
        ...

    @property
    def is_stuck(self) -> bool:
        """Whether the holder hangs: its lease is not renewed."""
        ...

    def renewal(self) -> Renewal:
        """What a renewal reports now."""
        ...

    def on_request(self, request: Request) -> None:
        """Something is requested; called until the lease ends."""
        ...

    def on_loss(self) -> None:
        """The lease is held no more."""
        ...

    def on_overdue(self) -> None:
        """The lease may expire soon; must not use the database. Called until the lease ends."""
        ...


class LeaseKeeper:
    """Renews leases in one thread, all in one statement, and watches the time in another, since a query may hang."""

    def __init__(self, database: Database) -> None:
        self._to_renew, self._to_read = database.with_reserve(), database.if_free()
        self._lock = threading.Lock()
        self._round_began_at: float | None = None
        self._renewed_at: dict[Holder, float] = {}
        """When the last renewal of each lease was requested, by this process's monotonic clock."""
        self._due_at: dict[Holder, float] = {}
        self._has_leases = threading.Event()
        self._pace = Pace(_EXPECTED_READ_S, _MAX_SLOWDOWN)

    def start(self) -> None:
        """Start both threads."""
        for name, loop in (("leases", self._keep_repeatedly), ("fence", self._fence_repeatedly)):
            threading.Thread(target=loop, name=name, daemon=True).start()

    def add(self, holder: Holder, *, requested_at: float) -> None:
        """Keep a lease.

        Args:
            requested_at: when its claim was requested: the lease starts no earlier.
        """
        with self._lock:
            self._renewed_at[holder] = requested_at
            self._due_at[holder] = requested_at + holder.claim.lease_s / RENEWALS
            self._has_leases.set()

    def remove(self, holder: Holder) -> None:
        """Keep a lease no more."""
        with self._lock:
            self._renewed_at.pop(holder, None)
            self._due_at.pop(holder, None)
            if not self._renewed_at:
                self._has_leases.clear()

    def is_overdue(self, holder: Holder) -> bool:
        """Whether a lease was not renewed in time."""
        with self._lock:
            renewed_at = self._renewed_at.get(holder)
        return renewed_at is not None and time.monotonic() - renewed_at > FENCE * holder.claim.lease_s

    def keep(self) -> None:
        """Renew the leases if one is due, all together, or read what is requested.

        Raises:
            SQLAlchemyError: the database does not respond.
        """
        with self._lock:
            holders, is_due = list(self._due_at), any(due <= time.monotonic() for due in self._due_at.values())
        holders = [holder for holder in holders if not holder.is_stuck]
        if not holders:
            return
        now, pending = time.monotonic(), Pending(requests={}, lost=frozenset())
        if is_due:
            pending = renewals.renew(self._to_renew, [holder.renewal() for holder in holders])
        else:
            # Not with a connection of its own, for something that renewals read, too.
            with suppress(PoolTimeout), self._pace.measured():
                pending = renewals.requested(self._to_read, [holder.claim for holder in holders])
        for holder in holders:
            if holder.claim in pending.lost:
                holder.on_loss()
            elif holder.claim in pending.requests:
                if is_due:
                    self._record_renewal(holder, now)
                if (request := pending.requests[holder.claim]) is not None:
                    holder.on_request(request)

    def _record_renewal(self, holder: Holder, now: float) -> None:
        with self._lock:
            if holder in self._renewed_at:
                self._renewed_at[holder], self._due_at[holder] = now, now + holder.claim.lease_s / RENEWALS

    @property
    def interval_s(self) -> float:
        """The time until the next round, in which no renewal becomes late, nor the first one of the next lease."""
        with self._lock:
            due_in_s = min(self._due_at.values(), default=0.0) - time.monotonic()
        return max(REQUESTS_INTERVAL_S, min(REQUESTS_INTERVAL_S * self._pace.factor, due_in_s))

    @property
    def is_stuck(self) -> bool:
        """Whether a query hangs, so that no lease is renewed: no job should be claimed."""
        began_at = self._round_began_at
        return began_at is not None and time.monotonic() - began_at > STUCK_S

    def _keep_repeatedly(self) -> None:
        while True:
            self._has_leases.wait()
            self._round_began_at = time.monotonic()
            try:
                self.keep()
            except SQLAlchemyError as error:
                log.warning("the leases could not be renewed", error=str(error))
            except Exception as error:  # noqa: BLE001 - without this thread all jobs would be killed
                log.error("the leases could not be renewed", error=repr(error))
            self._round_began_at = None
            time.sleep(self.interval_s)

    def _fence_repeatedly(self) -> None:
        while True:
            self._has_leases.wait()
            with self._lock:
                holders = list(self._renewed_at)
            for holder in holders:
                if self.is_overdue(holder):
                    holder.on_overdue()
            time.sleep(FENCE_INTERVAL_S)
