"""The supervisor: claims jobs, keeps their leases, and watches the children that train. It loads no NumPy."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any, Final
from uuid import uuid4

import structlog
from sqlalchemy.exc import DBAPIError

from service.contract import leases
from service.contract.database import Database
from service.contract.errors import LeaseLost
from service.contract.leases import Claim, Position
from service.contract.settings import Settings
from service.contract.tables import Worker
from workers.channel import Child

TICK_S: Final = 0.25
"""How often a request to cancel or pause is looked for."""
RENEW_S: Final = 1.0
LOOK_S: Final = 5.0
"""How often a worker looks into the database without having been told to."""
STOP_GRACE_S: Final = 8.0
"""How long a child may take from a stop to the end of its batch."""
BATCH_DEADLINE_S: Final = 120.0
"""How long a child may take for one batch, counted from its first."""

log = structlog.get_logger()


class Supervisor:
    """All jobs of one worker process."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._id = f"{socket.gethostname()[:40]}-{os.getpid()}-{uuid4().hex[:8]}"
        self._slots = threading.Semaphore(settings.workers)
        self._running = 0
        self._count = threading.Lock()
        self._draining = threading.Event()
        self._spare: Child | None = None
        self._spare_lock = threading.Lock()

    def start(self) -> None:
        """Have a child ready and begin to look, whether the broker answers or not."""
        self._restock()
        threading.Thread(target=self._keep_looking, name="look", daemon=True).start()

    def look(self) -> None:
        """Train the best waiting job, and the next, until none waits or this worker is full."""
        while not self._draining.is_set() and self._slots.acquire(blocking=False):
            try:
                held = leases.claim(self._database, self._id, self._settings.lease_s)
                if held is None:
                    return
                self._count_running(1)
                try:
                    self._train(held)
                finally:
                    self._count_running(-1)
            except DBAPIError as error:
                log.warning("the database does not answer", error=str(error.orig))
                return
            finally:
                self._slots.release()

    def drain(self) -> None:
        """Claim nothing more, and have every child let go."""
        self._draining.set()

    def close(self) -> None:
        """Wait for the children to let go, then leave no process behind."""
        self.drain()
        for _ in range(self._settings.workers):
            self._slots.acquire(timeout=STOP_GRACE_S + 2)
        with self._spare_lock:
            if self._spare is not None:
                self._spare.close()
                self._spare = None
        try:
            self._check_in()
        except DBAPIError as error:
            log.warning("could not say goodbye", error=str(error.orig))

    def _train(self, held: Claim) -> None:
        bound = structlog.contextvars.bind_contextvars(job=held.job_id, lease=held.lease)
        child = self._take_child()
        log.info("training", child=child.pid)
        try:
            child.order({"job_id": held.job_id, "lease": held.lease, "lease_s": held.lease_s})
            outcome = _Watch(self._database, held, child, self._draining).until_the_end()
            log.info("let go", outcome=outcome)
        except LeaseLost:
            log.warning("the lease is lost; the child is stopped")
        finally:
            child.close()
            structlog.contextvars.reset_contextvars(**bound)

    def _take_child(self) -> Child:
        with self._spare_lock:
            child, self._spare = self._spare, None
        if child is not None and not child.alive:
            child.close()
            child = None
        threading.Thread(target=self._restock, name="restock", daemon=True).start()
        return child or self._spawn()

    def _restock(self) -> None:
        with self._spare_lock:
            if self._spare is None and not self._draining.is_set():
                self._spare = self._spawn()

    def _spawn(self) -> Child:
        return Child(portable_bits=self._settings.portable_bits)

    def _keep_looking(self) -> None:
        while not self._draining.is_set():
            try:
                self._check_in()
                if self._running < self._settings.workers:
                    threading.Thread(target=self.look, name="look", daemon=True).start()
            except DBAPIError as error:
                log.warning("the database does not answer", error=str(error.orig))
            self._draining.wait(LOOK_S)

    def _check_in(self) -> None:
        leases.check_in(
            self._database,
            Worker(
                id=self._id,
                host=socket.gethostname(),
                pid=os.getpid(),
                slots=self._settings.workers,
                running=self._running,
                draining=self._draining.is_set(),
            ),
        )

    def _count_running(self, change: int) -> None:
        with self._count:
            self._running += change


class _Watch:
    """One job under way: what the child reports, what the database asks, and the clocks that stop both."""

    def __init__(self, database: Database, held: Claim, child: Child, draining: threading.Event) -> None:
        self._database, self._held, self._child, self._draining = database, held, child, draining
        now = time.monotonic()
        self._renewed = now
        self._next_renewal = now + RENEW_S
        self._stop_sent: float | None = None
        self._last_batch: float | None = None
        self._position: Position | None = None
        self._rate_from: tuple[float, int] | None = None

    def until_the_end(self) -> str:
        """Watch until the child has let go or had to be ended; gives what happened, for the log.

        Raises:
            LeaseLost: the job belongs to somebody else now.
        """
        while True:
            report = self._child.report(TICK_S)
            if "done" in report:
                return str(report["done"])
            if "gone" in report:
                return self._bury(f"the training process ended with code {report['gone']}")
            if "step" in report:
                self._note(report)
            now = time.monotonic()
            if self._last_batch is not None and now - self._last_batch > BATCH_DEADLINE_S:
                return self._bury(f"no batch was finished for {BATCH_DEADLINE_S:.0f} seconds")
            if self._stop_sent is not None and now - self._stop_sent > STOP_GRACE_S:
                return self._bury(f"the training process did not stop within {STOP_GRACE_S:.0f} seconds")
            if not self._keep(now):
                return "could not renew in time"

    def _note(self, report: dict[str, Any]) -> None:
        now, step = time.monotonic(), report["step"]
        self._last_batch = now
        if self._rate_from is None:
            self._rate_from = (now, step)
        began, first = self._rate_from
        rate = (step - first) / (now - began) if now - began > 0.5 else None
        self._position = Position(step=step, steps=report["steps"], steps_per_second=rate)

    def _keep(self, now: float) -> bool:
        """Renew when it is time and pass on what was asked. False: the lease may have run out meanwhile."""
        try:
            if now >= self._next_renewal:
                requested = leases.renew(self._database, self._held, self._position)
                self._renewed, self._next_renewal = now, now + RENEW_S
            else:
                requested = leases.requested(self._database, self._held)
        except DBAPIError as error:
            log.warning("the lease could not be renewed", error=str(error.orig))
            # The database's clock may already have given the job away: stop well before it does.
            return now - self._renewed < 0.7 * self._held.lease_s
        if self._stop_sent is None and (requested is not None or self._draining.is_set()):
            self._stop_sent = now
            self._child.stop(requested)
        return True

    def _bury(self, message: str) -> str:
        self._child.close()
        try:
            leases.report_death(self._database, self._held, message)
        except LeaseLost:
            return "gone, after its last word"  # the child wrote its end, and died before it could report
        return message
