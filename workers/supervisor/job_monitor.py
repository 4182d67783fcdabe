"""The monitor of one running job, in the supervisor."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.errors import LeaseLost
from service.jobs import leases
from service.jobs.leases import Claim, Position
from service.storage.database import Database
from workers.lease_session import LeaseSession
from workers.messages import Done, LeaseNotEnded, MachineFault, Preparing, Progress, Stop
from workers.supervisor.child_process import ChildProcess, Exited
from workers.usage import ChildMeter

REPORT_POLL_INTERVAL_S: Final = 0.25
"""How often reports and requests (cancel, pause) are read."""
RENEWALS: Final = 3
"""How often a lease is renewed within its duration: once may fail."""
STOP_GRACE_S: Final = 8.0
"""Time for a child to finish its batch after a stop."""
BATCH_DEADLINE_S: Final = 120.0
"""Maximum time for a batch, after the first one."""
START_DEADLINE_S: Final = 1800.0
"""Maximum time without a report before the first batch ends: the child may wait for another process's download."""
FINAL_REPORT_S: Final = 2.0
"""How long to wait, after the lease is lost, for the child's report that it ended the lease itself."""
DRAIN_RETRY_S: Final = 2.0
"""How long a stopping worker retries the last write of a lease."""
MAX_EARLY_DEATHS: Final = 5
"""When this many children in a row have died before they received their command, such deaths count against the job: no
child of this worker may ever begin, and the job must not wait for one forever."""
FENCE: Final = 0.7
"""Fraction of the lease after which the child is killed if there was no renewal, well before the lease expires."""

log = structlog.get_logger()


class StoppedDuringOutage(Exception):
    """The worker stops without waiting for the database; the lease will expire."""


class JobMonitor:
    """Renews the lease, passes requests on to the child, and kills a child that exceeds its deadline.

    Create it before the child gets its command.

    Args:
        draining: set when the worker stops: it does not wait for a database that does not respond.
        releasing: set while the worker releases its jobs.
        requested_at: when the claim was requested, by this process's monotonic clock; the lease starts no earlier.
        early_deaths: number of consecutive children before this one that died before they received their command.
        on_fault: called with a fault of this machine, before the child releases the job.
    """

    def __init__(
        self,
        database: Database,
        claim: Claim,
        child: ChildProcess,
        draining: threading.Event,
        releasing: threading.Event,
        *,
        requested_at: float,
        early_deaths: int = 0,
        on_fault: Callable[[MachineFault], None] = lambda fault: None,
    ) -> None:
        self._child, self._draining, self._releasing, self.early_deaths = child, draining, releasing, early_deaths
        self._on_fault = on_fault
        self._lease = LeaseSession(database, claim, timeout_s=math.inf, before_retry=self._stop_retrying_on_exit)
        self._meter = ChildMeter(claim, child.pid)
        now = time.monotonic()
        self._renewed_at = requested_at
        self._ended = threading.Event()
        self._end_lock = threading.Lock()
        """Held to kill the child for an overdue lease, and to end the monitor: the child may get another job then."""
        self._is_fenced = False
        self.has_begun = False
        """Whether the child has received its command. A death before that does not count against the job, unless
        ``MAX_EARLY_DEATHS`` consecutive children died in this way."""
        self.is_child_reusable = False
        """Whether the child has ended the job properly and waits for another command."""
        self._renewal_interval_s = claim.lease_s / RENEWALS
        self._next_renewal = now + self._renewal_interval_s
        self._next_poll = now + REPORT_POLL_INTERVAL_S
        self._stop_sent_at: float | None = None
        self._retries_end_at: float | None = None
        self._last_report_at = now
        self._deadline_s = START_DEADLINE_S
        self._position: Position | None = None
        self._rate_baseline: tuple[float, int] | None = None

    def run(self) -> str:
        """Monitor the job until its lease has ended; returns the outcome, for the log.

        Raises:
            LeaseLost: another worker has the job.
            StoppedDuringOutage: the worker stops, and the database does not respond.
        """
        threading.Thread(target=self._fence, name=f"fence-{self._lease.claim.job_id}", daemon=True).start()
        try:
            return self._run()
        finally:
            with self._end_lock:
                self._ended.set()

    def _run(self) -> str:
        while True:
            report = self._child.report(REPORT_POLL_INTERVAL_S)
            match report:
                case Done(outcome, is_reusable):
                    self.has_begun, self.is_child_reusable = True, is_reusable
                    return outcome
                case LeaseNotEnded(reason):
                    return self._release_lease(reason)
                case Exited(exit_code):
                    return self._end_after_exit(exit_code)
                case MachineFault():
                    self._on_fault(report)
                case Preparing():
                    self._last_report_at = time.monotonic()
                case Progress(step, steps):
                    self._record_progress(step, steps)
            self.has_begun = self.has_begun or report is not None
            now = time.monotonic()
            if self._is_overdue():  # the fence thread may not have noticed yet
                return self._release_lease("could not renew in time")
            if now - self._last_report_at > self._deadline_s:
                return self._record_child_loss(f"no batch was finished for {self._deadline_s:.0f} seconds")
            if self._stop_sent_at is not None and now - self._stop_sent_at > STOP_GRACE_S:
                return self._release_lease(f"did not stop within {STOP_GRACE_S:.0f} seconds and was killed")
            if now >= self._next_poll:
                try:
                    self._poll_database(now)
                except LeaseLost as error:
                    return self._await_final_report(error)
                # Counted from now: with a slow database, reports would pile up otherwise.
                self._next_poll = time.monotonic() + REPORT_POLL_INTERVAL_S

    def _fence(self) -> None:
        """Kill the child before its lease expires. Runs in its own thread, since a query may hang."""
        while not self._ended.wait(REPORT_POLL_INTERVAL_S):
            with self._end_lock:
                if self._ended.is_set():
                    return
                if self._is_overdue():
                    self._is_fenced = True
                    self._child.close()
                    return

    def _is_overdue(self) -> bool:
        return time.monotonic() - self._renewed_at > FENCE * self._lease.claim.lease_s

    def _record_progress(self, step: int, steps: int) -> None:
        now = time.monotonic()
        self._last_report_at, self._deadline_s = now, BATCH_DEADLINE_S
        if self._rate_baseline is None:
            self._rate_baseline = (now, step)
        baseline_at, baseline_step = self._rate_baseline
        rate = (step - baseline_step) / (now - baseline_at) if now - baseline_at > 0.5 else None
        self._position = Position(step=step, steps=steps, steps_per_second=rate)

    def _poll_database(self, now: float) -> None:
        """Renew the lease when due, and pass requests on to the child."""
        try:
            if now >= self._next_renewal:
                request = self._lease.renew(self._position, self._meter.sample())
                self._renewed_at, self._next_renewal = now, now + self._renewal_interval_s
            else:
                request = self._lease.requested()
        except SQLAlchemyError as error:
            log.warning("the lease could not be renewed", error=str(error))
            return
        if self._stop_sent_at is None and (request is not None or self._releasing.is_set()):
            self._stop_sent_at = now
            self._child.send(Stop(request))

    def _await_final_report(self, error: LeaseLost) -> str:
        """After the loss of the lease, wait for the child's report: it may have ended the job itself.

        Raises:
            LeaseLost: the child has not ended the job.
        """
        self._ended.set()  # stop the fence thread
        deadline = time.monotonic() + FINAL_REPORT_S
        while time.monotonic() < deadline:
            match self._child.report(REPORT_POLL_INTERVAL_S):
                case Done(outcome, is_reusable):
                    self.is_child_reusable = is_reusable
                    return outcome
                case Exited():
                    break
        raise error

    def _end_after_exit(self, exit_code: int | None) -> str:
        if self._is_fenced:
            return self._release_lease("could not renew in time")
        if not self.has_begun:
            self.early_deaths += 1
            message = "the training process ended before it received its command"
            if self.early_deaths < MAX_EARLY_DEATHS:
                return self._release_lease(message)
            return self._record_child_loss(f"{message}, like {self.early_deaths - 1} before it: see the worker's log")
        return self._record_child_loss(f"the training process ended with code {exit_code}")

    def _release_lease(self, reason: str) -> str:
        """Kill the child and release the job, which is not a worker loss: it is queued once the database responds."""
        is_released = self._end_lease(leases.release_lease, None)
        return f"{reason}; {'released' if is_released else 'the lease had ended'}"

    def _record_child_loss(self, message: str) -> str:
        if not self._end_lease(leases.record_child_loss, message):
            return "the child had ended the lease before it died"
        return message

    def _end_lease(self, write: Callable[..., None], argument: object) -> bool:
        """Kill the child and make the last write of its lease, retried without limit; false if the lease had ended.

        Raises:
            StoppedDuringOutage: the database does not respond, and this worker stops.
        """
        used = self._meter.sample()
        self._child.close()
        try:
            self._lease.call(write, argument, used=used)
        except LeaseLost:
            return False
        return True

    def _stop_retrying_on_exit(self) -> None:
        if self._draining.is_set():
            self._retries_end_at = self._retries_end_at or time.monotonic() + DRAIN_RETRY_S
            if time.monotonic() > self._retries_end_at:
                raise StoppedDuringOutage
