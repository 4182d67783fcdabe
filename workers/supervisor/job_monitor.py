"""The monitor of one running job, in the supervisor: executes the operations of its child, and ends its lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from service.errors import LeaseLost
from service.jobs import leases
from service.jobs.leases import Claim, Position
from service.jobs.renewals import Renewal
from service.states import Request
from service.storage.database import Database
from workers.messages import Done, MachineFault, Preparing, Progress, Stop, Train
from workers.operations import OUTAGE_ERRORS, Call, Execution
from workers.supervisor.child_process import ChildProcess, Exited
from workers.supervisor.lease_keeper import LeaseKeeper
from workers.usage import ChildMeter

REPORT_POLL_INTERVAL_S: Final = 0.25
"""How often deadlines are checked, at least."""
RETRY_INTERVAL_S: Final = 0.5
STUCK_S: Final = 60.0
"""Time after which a monitor hangs; a transaction ends within half of it, see ``service.storage.database``."""
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
log = structlog.get_logger()


class StoppedDuringOutage(Exception):
    """The worker stops without waiting for the database; the lease will expire."""


class JobMonitor:
    """Executes the operations of a child on its job, passes requests on to it, and kills it if it exceeds a deadline.

    Create it before the child gets its command.

    Args:
        keeper: renews the lease.
        draining: set when the worker stops: it does not wait for a database that does not respond.
        releasing: set while the worker releases its jobs.
        requested_at: when the claim was requested, by this process's monotonic clock; the lease starts no earlier.
        early_deaths: number of consecutive children before this one that died before they received their command.
        on_fault: called with a fault of this machine, before the child releases the job.
        on_commit: called with the seconds that a commit of epochs or of the result took.
    """

    def __init__(
        self,
        database: Database,
        keeper: LeaseKeeper,
        claim: Claim,
        child: ChildProcess,
        draining: threading.Event,
        releasing: threading.Event,
        *,
        requested_at: float,
        early_deaths: int = 0,
        on_fault: Callable[[MachineFault], None] = lambda fault: None,
        on_commit: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.claim = claim
        self._database, self._keeper, self._requested_at = database, keeper, requested_at
        self._child, self._draining, self._releasing, self.early_deaths = child, draining, releasing, early_deaths
        self._on_fault, self._on_commit = on_fault, on_commit
        self._meter = ChildMeter(claim, child.pid)
        self._end_lock = threading.Lock()
        """Held to kill the child, and to end the monitor: the child may get another job then."""
        self._has_ended = self._is_fenced = self._is_lost = False
        self.has_begun = False
        """Whether the child has received its command. A death before that does not count against the job, unless
        ``MAX_EARLY_DEATHS`` consecutive children died in this way."""
        self.is_child_reusable = False
        """Whether the child has ended the job properly and waits for another command."""
        self._execution: Execution | None = None
        """Of the call for whose reply the child waits."""
        self._called_at = self._attempt_at = 0.0
        self._request: Request | None = None
        self._stop_sent_at: float | None = None
        self._retries_end_at: float | None = None
        self._last_report_at = self._turned_at = time.monotonic()
        self._deadline_s = START_DEADLINE_S
        self._position: Position | None = None
        self._rate_baseline: tuple[float, int] | None = None

    def run(self) -> str:
        """Have the child train the job, and monitor it until its lease has ended; returns the outcome, for the log.

        Raises:
            LeaseLost: another worker has the job.
            StoppedDuringOutage: the worker stops, and the database does not respond.
        """
        self._keeper.add(self, requested_at=self._requested_at)
        try:
            self._child.send(Train(self.claim))  # may wait for a child that hangs: see ``is_stuck``
            return self._run()
        finally:
            self._keeper.remove(self)
            with self._end_lock:
                self._has_ended = True

    def _run(self) -> str:
        while True:
            self._turned_at = time.monotonic()
            report = self._child.report(REPORT_POLL_INTERVAL_S)
            self.has_begun = self.has_begun or not (report is None or isinstance(report, Exited))
            match report:
                case Done(outcome, is_reusable):
                    self.is_child_reusable = is_reusable
                    return outcome
                case Exited(exit_code):
                    return self._end_after_exit(exit_code)
                case Call():
                    self._begin(report)
                case MachineFault():
                    self._on_fault(report)
                case Preparing():
                    self._last_report_at = time.monotonic()
                case Progress(step, steps):
                    self._record_progress(step, steps)
            self._execute_call()
            now = time.monotonic()
            if self._is_lost:
                return self._await_final_report()
            if self._keeper.is_overdue(self):  # the fence thread may not have noticed yet
                return self._release_lease("could not renew in time")
            if self._execution is not None:
                if now - self._called_at > self.claim.lease_s:
                    return self._release_lease(f"the database did not respond for {self.claim.lease_s:g} seconds")
            elif now - self._last_report_at > self._deadline_s:
                return self._record_child_loss(f"no batch was finished for {self._deadline_s:.0f} seconds")
            if self._stop_sent_at is None and (self._request is not None or self._releasing.is_set()):
                self._child.send(Stop(self._request))
                self._stop_sent_at = now
            if self._stop_sent_at is not None and now - self._stop_sent_at > STOP_GRACE_S:
                return self._release_lease(f"did not stop within {STOP_GRACE_S:.0f} seconds and was killed")

    def renewal(self) -> Renewal:
        """What a renewal of the lease reports."""
        return Renewal(claim=self.claim, position=self._position, used=self._meter.sample())

    @property
    def is_stuck(self) -> bool:
        """Whether the monitor hangs, in a query or on a full pipe, so that its lease must not be renewed for ever."""
        return time.monotonic() - self._turned_at > STUCK_S

    def on_request(self, request: Request) -> None:
        """Have a request passed on to the child."""
        self._request = request

    def on_loss(self) -> None:
        """The job has ended, or another worker has it."""
        self._is_lost = True

    def on_overdue(self) -> None:
        """Kill the child before its lease expires."""
        with self._end_lock:
            if not self._has_ended:
                self._is_fenced = True
                self._child.kill()

    def _record_progress(self, step: int, steps: int) -> None:
        now = time.monotonic()
        self._last_report_at, self._deadline_s = now, BATCH_DEADLINE_S
        if self._rate_baseline is None:
            self._rate_baseline = (now, step)
        baseline_at, baseline_step = self._rate_baseline
        rate = (step - baseline_step) / (now - baseline_at) if now - baseline_at > 0.5 else None
        self._position = Position(step=step, steps=steps, steps_per_second=rate)

    def _begin(self, message: Call) -> None:
        self._execution, self._called_at = Execution(message), time.monotonic()
        self._attempt_at = self._called_at

    def _execute_call(self) -> None:
        """Execute the call for whose reply the child waits. Without the database, the loop repeats it."""
        if self._execution is None or time.monotonic() < self._attempt_at:
            return
        is_stopping = self._stop_sent_at is not None
        reply = self._execution.attempt(self._database, self.claim, is_stopping=is_stopping)
        if reply is None:
            self._attempt_at = time.monotonic() + RETRY_INTERVAL_S
        else:
            if reply.error is None and self._execution.commits_epochs:
                self._on_commit(time.monotonic() - self._called_at)
            self._execution = None
            self._last_report_at = time.monotonic()
            self._child.send(reply)

    def _await_final_report(self) -> str:
        """After the loss of the lease, wait for the child's report: it may have ended the job itself.

        Raises:
            LeaseLost: the child has not ended the job.
        """
        self._keeper.remove(self)
        deadline = time.monotonic() + FINAL_REPORT_S
        while time.monotonic() < deadline:
            self._execute_call()  # refused, unless it only reads
            match self._child.report(REPORT_POLL_INTERVAL_S):
                case Call() as call:
                    self._begin(call)
                case Done(outcome, is_reusable):
                    self.is_child_reusable = is_reusable
                    return outcome
                case Exited():
                    break
        raise LeaseLost(self.claim.job_id, self.claim.lease)

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
        while True:
            try:
                write(self._database, self.claim, argument, used=used)
                return True
            except LeaseLost:
                return False
            except OUTAGE_ERRORS as error:
                log.warning("database unavailable; retrying", error=str(error))
            self._stop_retrying_on_exit()
            time.sleep(RETRY_INTERVAL_S)

    def _stop_retrying_on_exit(self) -> None:
        if self._draining.is_set():
            self._retries_end_at = self._retries_end_at or time.monotonic() + DRAIN_RETRY_S
            if time.monotonic() > self._retries_end_at:
                raise StoppedDuringOutage
