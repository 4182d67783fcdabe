"""One job under way, as its supervisor watches it. It loads no NumPy."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.errors import LeaseLost
from service.jobs import leases
from service.jobs.leases import Claim, Position
from service.storage.database import Database
from workers.messages import Child
from workers.retry import retry_on_outage
from workers.usage import ChildMeter

REPORT_POLL_INTERVAL_S: Final = 0.25
"""How often a request to cancel or pause is looked for."""
RENEW_S: Final = 1.0
STOP_GRACE_S: Final = 8.0
"""How long a child may take from a stop to the end of its batch."""
BATCH_DEADLINE_S: Final = 120.0
"""How long a child may take for one batch, counted from its first."""
START_DEADLINE_S: Final = 1800.0
"""How long it may take until then without a word: another one may be downloading what it waits for."""
LAST_WORD_S: Final = 2.0
"""How long a child whose lease is over may take to say that it was itself who ended it."""
LEAVE_S: Final = 2.0
"""How long a worker that stops asks a database that does not answer to take a job back."""
FENCE: Final = 0.7
"""So much of a lease may pass without a renewal: then the child is ended, well before somebody else may begin."""

log = structlog.get_logger()


class Leaving(Exception):
    """This worker stops, and cannot wait for the database."""


class JobWatch:
    """One job under way: what the child reports and uses, what the database asks, and the clocks that stop both.

    To be made before the child gets its order.

    Args:
        since: when the claim was asked for, on this process's monotonic clock: the lease is no younger.
    """

    def __init__(
        self, database: Database, held: Claim, child: Child, draining: threading.Event, *, since: float
    ) -> None:
        self._database, self._held, self._child, self._draining = database, held, child, draining
        self._meter = ChildMeter(held, child.pid)
        now = time.monotonic()
        self._renewed = since
        self._over = threading.Event()
        self._fenced = False
        self.has_begun = False
        """Whether the child has its order: where it dies before that, the job had no part in it."""
        self._next_renewal = now + RENEW_S
        self._next_look = now
        self._stop_sent: float | None = None
        self._last_sign = now
        self._deadline_s = START_DEADLINE_S
        self._position: Position | None = None
        self._rate_from: tuple[float, int] | None = None

    def until_the_end(self) -> str:
        """Watch until the child has let go or had to be ended; gives what happened, for the log.

        Raises:
            LeaseLost: the job belongs to somebody else now.
            Leaving: the worker stops, and the database does not answer.
        """
        threading.Thread(target=self._fence, name=f"fence-{self._held.job_id}", daemon=True).start()
        try:
            return self._until_the_end()
        finally:
            self._over.set()

    def _until_the_end(self) -> str:
        while True:
            report = self._child.report(REPORT_POLL_INTERVAL_S)
            if "done" in report:
                return str(report["done"])
            if "gave_up" in report:
                return self._hand_back(str(report["gave_up"]))
            if "gone" in report:
                if self._fenced:
                    return self._hand_back("could not renew in time")
                if not self.has_begun:
                    return self._hand_back("the training process ended before it had its order")
                return self._record_worker_loss(f"the training process ended with code {report['gone']}")
            self.has_begun = self.has_begun or bool(report)
            if "preparing" in report:
                self._last_sign = time.monotonic()
            if "step" in report:
                self._note(report)
            now = time.monotonic()
            if self._is_overdue():  # the fence may not have come to it yet
                return self._hand_back("could not renew in time")
            if now - self._last_sign > self._deadline_s:
                return self._record_worker_loss(f"no batch was finished for {self._deadline_s:.0f} seconds")
            if self._stop_sent is not None and now - self._stop_sent > STOP_GRACE_S:
                return self._take_from_child()
            if now >= self._next_look:
                try:
                    self._keep(now)
                except LeaseLost as error:
                    return self._last_word(error)
                # From now on: where answers are slow, reports would pile up if each waited for one.
                self._next_look = time.monotonic() + REPORT_POLL_INTERVAL_S

    def _fence(self) -> None:
        """End the child before the lease does. In a thread of its own: a question to the database may hang."""
        while not self._over.wait(REPORT_POLL_INTERVAL_S):
            if self._is_overdue():
                self._fenced = True
                self._child.close()
                return

    def _is_overdue(self) -> bool:
        return time.monotonic() - self._renewed > FENCE * self._held.lease_s

    def _note(self, report: dict[str, Any]) -> None:
        now, step = time.monotonic(), report["step"]
        self._last_sign, self._deadline_s = now, BATCH_DEADLINE_S
        if self._rate_from is None:
            self._rate_from = (now, step)
        began, first = self._rate_from
        rate = (step - first) / (now - began) if now - began > 0.5 else None
        self._position = Position(step=step, steps=report["steps"], steps_per_second=rate)

    def _keep(self, now: float) -> None:
        """Renew when it is time and pass on what was asked."""
        try:
            if now >= self._next_renewal:
                requested = leases.renew(self._database, self._held, self._position, self._meter.sample())
                self._renewed, self._next_renewal = now, now + RENEW_S
            else:
                requested = leases.requested(self._database, self._held)
        except SQLAlchemyError as error:
            log.warning("the lease could not be renewed", error=str(error))
            return
        if self._stop_sent is None and (requested is not None or self._draining.is_set()):
            self._stop_sent = now
            self._child.stop(requested)

    def _last_word(self, lost: LeaseLost) -> str:
        """Where a lease is over, its child may just have ended the job, and not have told yet.

        Raises:
            LeaseLost: it has not.
        """
        self._over.set()  # the fence has nothing to keep any more
        deadline = time.monotonic() + LAST_WORD_S
        report: dict[str, Any] = {}
        while "gone" not in report and time.monotonic() < deadline:
            report = self._child.report(REPORT_POLL_INTERVAL_S)
            if "done" in report:
                return str(report["done"])
        raise lost

    def _take_from_child(self) -> str:
        """End a child that does not let go: we asked it to, so nobody died."""
        used = self._meter.sample()
        self._child.close()
        if not self._settle(lambda: leases.hand_back(self._database, self._held, None, used=used)):
            return "gone, after its last word"
        return f"did not let go within {STOP_GRACE_S:.0f} seconds, and was ended"

    def _hand_back(self, why: str) -> str:
        """End the child; nobody died, so the job goes back once the database answers."""
        used = self._meter.sample()
        self._child.close()
        handed_back = self._settle(lambda: leases.hand_back(self._database, self._held, None, used=used))
        return f"{why}; {'handed back' if handed_back else 'in other hands by now'}"

    def _record_worker_loss(self, message: str) -> str:
        used = self._meter.sample()
        self._child.close()
        if not self._settle(lambda: leases.report_death(self._database, self._held, message, used=used)):
            return "gone, after its last word"  # the child wrote its end, and died before it could report
        return message

    def _settle(self, write: Callable[[], None]) -> bool:
        """Make the last write of a lease, however long the database is away; False where it was not ours any more.

        Raises:
            Leaving: nobody answered, and this worker stops.
        """
        leave_at: float | None = None

        def leave() -> None:
            nonlocal leave_at
            if self._draining.is_set():
                leave_at = leave_at or time.monotonic() + LEAVE_S
                if time.monotonic() > leave_at:
                    raise Leaving

        try:
            retry_on_outage(write, patience_s=math.inf, between=leave)
        except LeaseLost:
            return False
        return True
