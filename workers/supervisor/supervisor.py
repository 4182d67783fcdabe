"""The supervisor of a worker process: claims jobs and gives each a child and a monitor."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import threading
import time
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.datasets import builtins
from service.datasets.formats.array_folders import ArrayCache
from service.errors import LeaseLost
from service.jobs import leases, worker_registry
from service.jobs.leases import Claim
from service.runtime import tracing
from service.runtime.failpoints import failpoint
from service.runtime.settings import Settings
from service.runtime.tracing import OpenSpan
from service.spec.versions import SPEC_VERSION
from service.states import Drain
from service.storage.database import Database
from service.storage.tables import Worker
from tapeline.version import VERSION
from workers.heartbeat import Heartbeat
from workers.supervisor import job_monitor
from workers.supervisor.child_pool import ChildPool
from workers.supervisor.child_process import ChildProcess, prepare
from workers.supervisor.job_monitor import JobMonitor, StoppedDuringOutage
from workers.supervisor.lease_keeper import LeaseKeeper
from workers.supervisor.machine import MachineState
from workers.supervisor.totals import WorkerTotals

DATABASE_POLL_INTERVAL_S: Final = worker_registry.HEARTBEAT_INTERVAL_S
"""How often a worker polls the database for jobs, besides messages."""
FIRST_CHECK_S: Final = 5.0
"""How long a starting worker waits for the first check of its machine; a lost network share may not respond."""
DEREGISTER_TIMEOUT_S: Final = 3.0
"""How long a stopping worker tries to delete its row."""
GOOD_OUTCOMES: Final = ("succeeded", "paused", "released", "investigated")
"""What the outcome of an attempt without an error begins with, in its trace."""

log = structlog.get_logger()


class Supervisor:
    """All jobs of one worker process."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._id = worker_registry.new_id(settings)
        self._version, self._cpu = VERSION, worker_registry.cpu_name()
        self._cache = ArrayCache(settings.datasets_cache, settings.cache_bytes)
        self._slots = threading.Semaphore(settings.workers)
        self._held_claims: set[Claim] = set()
        self._claim_lock = threading.Lock()
        self._may_hold_unknown_claims = False
        """The response to a committed claim may have been lost, or a monitor failed."""
        self._early_deaths = 0
        """Number of consecutive children that died before they received their command."""
        self._draining = threading.Event()
        self._releasing = threading.Event()
        """Set while running jobs are released: the process stops, or was drained with ``release``."""
        self._ordered: Drain | None = None
        """As of the worker's row."""
        self._was_signalled = False
        """An order that the row does not have yet."""
        self._row_lock = threading.Lock()
        self._close_lock = threading.Lock()
        self._is_closed = False
        # Children that have trained return while the spare child waits: at most one for each slot, and the spare.
        self._leases = LeaseKeeper(database)
        self._children = ChildPool(self._draining, size=settings.workers + 1)
        self._provenance: dict[str, Any] | None = None
        """The provenance of jobs on this worker; known once a child is ready."""
        self._totals = WorkerTotals()
        self._machine = MachineState(settings, database, self._totals)
        self._heartbeat = Heartbeat(settings.home, "worker")
        self._poller = threading.Thread(target=self._poll_repeatedly, name="poll", daemon=True)

    def start(self) -> None:
        """Start a spare child, and polling; the broker is not needed."""
        prepare(portable_bits=self._settings.portable_bits)
        # In the background: the first child takes a second.
        self._children.restock_in_background()
        check = functools.partial(self._machine.check_repeatedly, self._draining)
        threading.Thread(target=check, name="machine", daemon=True).start()
        self._leases.start()
        self._machine.is_checked.wait(FIRST_CHECK_S)
        self._poller.start()

    def run_waiting_jobs(self) -> None:
        """Claim and train jobs until none waits, this worker is full, or its machine has a fault."""
        while self._may_claim() and self._slots.acquire(blocking=False):
            try:
                if not self._run_next_job():
                    return
            except SQLAlchemyError as error:
                log.warning("the database does not respond", error=str(error))
                return
            finally:
                self._slots.release()

    @property
    def is_draining(self) -> bool:
        """Whether the worker is stopping."""
        return self._draining.is_set()

    def _may_claim(self) -> bool:
        is_drained = self._draining.is_set() or self._was_signalled or self._ordered is not None
        return not is_drained and self._machine.fault is None and not self._leases.is_stuck

    def claim_no_more(self) -> None:
        """Finish the running jobs, and claim no others, until the worker is undrained."""
        self._was_signalled = True

    def drain(self) -> None:
        """Claim no more jobs, and stop every child: the process stops."""
        self._draining.set()
        self._releasing.set()

    def close(self) -> None:
        """Drain, wait for the children, and end all processes."""
        self.drain()
        with self._close_lock:  # a second caller waits for the first
            if not self._is_closed:
                self._is_closed = True
                self._close()

    def _close(self) -> None:
        deadline = time.monotonic() + job_monitor.STOP_GRACE_S + 2
        for _ in range(self._settings.workers):
            self._slots.acquire(timeout=max(0.0, deadline - time.monotonic()))
        self._children.close(timeout_s=max(0.0, deadline - time.monotonic()))
        deregister = threading.Thread(target=self._deregister, name="deregister", daemon=True)  # the database may hang
        deregister.start()
        deregister.join(DEREGISTER_TIMEOUT_S)

    def _deregister(self) -> None:
        try:
            with self._claim_lock:
                self._release_unknown_claims()
            if self._poller.is_alive():
                self._poller.join()  # no heartbeat may follow the deregistration
            worker_registry.deregister(self._database, self._id)
        except SQLAlchemyError as error:
            log.warning("could not deregister", error=str(error))

    def _run_next_job(self) -> bool:
        """Claim a job and train it; returns whether to try another one."""
        # Get a child first: a job that cannot be trained here must not be claimed.
        child = self._children.take()
        if child is None:
            return False
        # Only with a child: a worker whose children die immediately is not healthy, although its loop runs.
        self._heartbeat.beat()
        if child.provenance != self._provenance:
            self._provenance = child.provenance
            with contextlib.suppress(SQLAlchemyError):  # the poll does it again
                self._record_heartbeat()
        claim = None
        requested_at = time.monotonic()
        try:
            if self._may_claim():  # starting the child can be slow
                claim = self._claim()
        finally:
            if claim is None:
                self._children.return_child(child)
        if claim is None:
            return False
        has_ended = False
        try:
            self._children.restock_in_background()
            has_begun = self._train(claim, child, requested_at=requested_at)
            has_ended = True
        finally:
            with self._claim_lock:
                self._held_claims.discard(claim)
                # If the monitor failed, this worker may still hold the claim.
                self._may_hold_unknown_claims = self._may_hold_unknown_claims or not has_ended
        return has_begun  # if children die before they get their command, leave the job to another worker

    def _claim(self) -> Claim | None:
        with self._claim_lock:
            self._release_unknown_claims()
            self._may_hold_unknown_claims = True
            claim = leases.claim(self._database, self._id, self._settings.lease_s, datasets=self._datasets())
            self._may_hold_unknown_claims = False
            if claim is not None:
                failpoint("claimed")
                self._held_claims.add(claim)
            return claim

    def _release_unknown_claims(self) -> None:
        """Requeue jobs whose claim by this worker was not acknowledged."""
        if self._may_hold_unknown_claims:
            for job_id in leases.release_unacknowledged_claims(self._database, self._id, self._held_claims):
                log.warning("released a claim whose response was lost", job=job_id)
            self._may_hold_unknown_claims = False

    def _release_unknown_claims_if_idle(self) -> None:
        """Likewise, unless a claim does so now: a worker that is drained, or whose machine has a fault, claims nothing,
        and the lease would expire as that of a lost worker."""
        if self._may_hold_unknown_claims and self._claim_lock.acquire(blocking=False):
            try:
                self._release_unknown_claims()
            finally:
                self._claim_lock.release()

    def _train(self, claim: Claim, child: ChildProcess, *, requested_at: float) -> bool:
        """Monitor a job until its lease has ended; returns whether the child received its command."""
        with tracing.attempt(claim.trace, claim.traceparent, requested_at, claim.span_attributes) as attempt:
            with tracing.span("claim", since=requested_at):
                pass
            return self._monitor(claim, child, attempt, requested_at=requested_at)

    def _monitor(self, claim: Claim, child: ChildProcess, attempt: OpenSpan, *, requested_at: float) -> bool:
        tokens = structlog.contextvars.bind_contextvars(**claim.log_fields)
        log.info("training", child=child.pid)
        monitor = None
        try:
            monitor = JobMonitor(
                self._database,
                self._leases,
                claim,
                child,
                self._draining,
                self._releasing,
                requested_at=requested_at,
                early_deaths=self._early_deaths,
                on_fault=self._machine.report,
                on_commit=self._totals.count_commit,
            )
            outcome = monitor.run()
            self._early_deaths = 0 if monitor.has_begun else monitor.early_deaths
            attempt.attributes["tapeline.outcome"] = outcome
            if not outcome.startswith(GOOD_OUTCOMES):
                attempt.error = outcome
            log.info("lease ended", outcome=outcome)
            return monitor.has_begun
        except LeaseLost:
            attempt.error = "lease lost"
            log.warning("the lease is lost; the child was killed")
        except StoppedDuringOutage:
            attempt.error = "the database did not respond before exit"
            log.warning("the database did not respond before exit; the job is requeued when its lease expires")
        finally:
            if monitor is not None and monitor.is_child_reusable:
                child.has_trained = True
                self._children.return_child(child)
            else:
                child.close()
            structlog.contextvars.reset_contextvars(**tokens)
        return True

    def _poll_repeatedly(self) -> None:
        while not self._draining.is_set():
            try:
                # Continue during an outage: the poll checks that a child is ready, and beats the heartbeat.
                with contextlib.suppress(SQLAlchemyError):
                    self._record_heartbeat()
                    self._release_unknown_claims_if_idle()
                self._children.trim()
                if len(self._held_claims) < self._settings.workers:
                    threading.Thread(target=self.run_waiting_jobs, name="poll", daemon=True).start()
            except Exception as error:  # noqa: BLE001 - the loop must survive a failed round
                log.warning("the poll failed", error=str(error))
            if self._held_claims:
                self._heartbeat.beat()
            self._draining.wait(DATABASE_POLL_INTERVAL_S)
        with contextlib.suppress(SQLAlchemyError):
            self._record_heartbeat()  # as draining

    def _datasets(self) -> list[str] | None:
        """The names of the datasets that this machine has, besides uploads; ``None``: all, since it is the only one."""
        return None if self._database.is_sqlite else builtins.names(self._settings.data)

    def _record_heartbeat(self) -> None:
        with self._row_lock:  # orders are read in the order of their writes
            was_signalled = self._was_signalled
            self._ordered = worker_registry.record_heartbeat(
                self._database,
                Worker(
                    id=self._id,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    slots=self._settings.workers,
                    running=len(self._held_claims),
                    draining=self._draining.is_set() or was_signalled,
                    provenance=self._provenance,
                    blocked=self._machine.blocked,
                    version=self._version,
                    cpu=self._cpu,
                    datasets=self._datasets(),
                    cache={"used_bytes": self._cache.used_bytes(), "limit_bytes": self._cache.limit_bytes},
                    drain=Drain.FINISH if was_signalled else None,
                    totals=self._totals.document(),
                    spec_version=SPEC_VERSION,
                ),
            )
            if was_signalled:
                self._was_signalled = False  # the row has it
            if self._ordered is Drain.RELEASE:
                self._releasing.set()
            elif not self._draining.is_set():
                self._releasing.clear()
