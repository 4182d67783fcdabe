"""The supervisor: claims jobs, keeps their leases, and watches the children that train. It loads no NumPy."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from dataclasses import asdict
from typing import Final
from uuid import uuid4

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.errors import LeaseLost
from service.jobs import leases, worker_registry
from service.jobs.estimation import calibrations
from service.jobs.leases import Claim
from service.runtime.failpoints import reach
from service.runtime.settings import Settings
from service.storage.database import Database
from service.storage.tables import Worker
from workers.heartbeat import Heartbeat
from workers.messages import Child, prepare
from workers.supervisor import watching
from workers.supervisor.watching import JobWatch, Leaving

DATABASE_POLL_INTERVAL_S: Final = 5.0
"""How often a worker looks into the database without having been told to."""
GOODBYE_S: Final = 3.0
"""How long a worker that stops may take to say that it is gone."""
CALIBRATION_S: Final = 30.0
"""How long the measurement of a machine may take; alone it takes a third of a second."""
READY_S: Final = 60.0
"""How long a child may take to load NumPy and ourselves."""

log = structlog.get_logger()


class Supervisor:
    """All jobs of one worker process."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._id = f"{socket.gethostname()[:40]}-{os.getpid()}-{uuid4().hex[:8]}"
        self._slots = threading.Semaphore(settings.workers)
        self._held: set[Claim] = set()
        self._claiming = threading.Lock()
        self._unsure = False
        """Whether jobs may run in our name that we do not hold: a claim was cut off, yet perhaps committed; or a watch
        failed."""
        self._draining = threading.Event()
        self._closing = threading.Lock()
        self._closed = False
        self._spare: Child | None = None
        self._spare_lock = threading.Lock()
        self._restocking = threading.Lock()
        self._calibrating: Child | None = None
        self._heartbeat = Heartbeat(settings.home, "worker")
        self._looking = threading.Thread(target=self._keep_looking, name="look", daemon=True)

    def start(self) -> None:
        """Have a child ready and begin to look, whether the broker answers or not."""
        prepare(portable_bits=self._settings.portable_bits)
        threading.Thread(target=self._begin, name="restock", daemon=True).start()  # the first one takes a second
        self._looking.start()

    def look(self) -> None:
        """Train the best waiting job, and the next, until none waits or this worker is full."""
        while not self._draining.is_set() and self._slots.acquire(blocking=False):
            try:
                if not self._train_one():
                    return
            except SQLAlchemyError as error:
                log.warning("the database does not answer", error=str(error))
                return
            finally:
                self._slots.release()

    @property
    def is_draining(self) -> bool:
        """Whether it was told to stop."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Claim nothing more, and have every child let go."""
        self._draining.set()

    def close(self) -> None:
        """Wait for the children to let go, then leave no process behind."""
        self.drain()
        with self._closing:  # the second caller waits for the first, and finds nothing to do
            if not self._closed:
                self._closed = True
                self._close()

    def _close(self) -> None:
        deadline = time.monotonic() + watching.STOP_GRACE_S + 2
        for _ in range(self._settings.workers):
            self._slots.acquire(timeout=max(0.0, deadline - time.monotonic()))
        # For good: a child that begins while Python ends is not ended with it. From 3.13 on, Python then waits for a
        # process of its own, which waits for that child, which waits for us.
        self._restocking.acquire(timeout=max(0.0, deadline - time.monotonic()))
        if self._calibrating is not None:
            self._calibrating.close()
        with self._spare_lock:
            if self._spare is not None:
                self._spare.close()
                self._spare = None
        goodbye = threading.Thread(target=self._say_goodbye, name="goodbye", daemon=True)  # the database may be silent
        goodbye.start()
        goodbye.join(GOODBYE_S)

    def _say_goodbye(self) -> None:
        try:
            with self._claiming:
                self._release_unacknowledged_claims()
            if self._looking.is_alive():
                self._looking.join()  # or it would check in afterwards
            worker_registry.sign_off(self._database, self._id)
        except SQLAlchemyError as error:
            log.warning("could not say goodbye", error=str(error))

    def _train_one(self) -> bool:
        """Claim a job and train it; whether there may be another one."""
        # The child first: a job that nobody here can train must not be claimed.
        child = self._take_child()
        if child is None:
            return False
        # Only now: a worker whose children end at once goes round and round, and is not well.
        self._heartbeat.beat()
        held = None
        asked = time.monotonic()
        try:
            if not self._draining.is_set():  # to have a child may have taken long
                held = self._claim()
        finally:
            if held is None:
                self._give_back(child)
        if held is None:
            return False
        settled = False
        try:
            with contextlib.suppress(RuntimeError):  # no thread left: then the next job waits for its child
                threading.Thread(target=self._restock, name="restock", daemon=True).start()
            begun = self._train(held, child, since=asked)
            settled = True
        finally:
            with self._claiming:
                self._held.discard(held)
                self._unsure = self._unsure or not settled  # nobody watches it now, though it may be ours
        return begun  # where children die before they have their order, another worker may have more luck

    def _claim(self) -> Claim | None:
        with self._claiming:
            self._release_unacknowledged_claims()
            self._unsure = True
            held = leases.claim(
                self._database,
                self._id,
                self._settings.lease_s,
                max_running=self._settings.quotas.running,
            )
            self._unsure = False
            if held is not None:
                reach("claimed")
                self._held.add(held)
            return held

    def _release_unacknowledged_claims(self) -> None:
        """Hand back what runs in our name without our holding it."""
        if self._unsure:
            for job_id in leases.release_unacknowledged_claims(self._database, self._id, self._held):
                log.warning("ours without our holding it; handed back", job=job_id)
            self._unsure = False

    def _train(self, held: Claim, child: Child, *, since: float) -> bool:
        """TrainingDiagnostics a job until it is settled; whether the child had its order."""
        bound = structlog.contextvars.bind_contextvars(job=held.job_id, lease=held.lease, attempt=held.attempt)
        log.info("training", child=child.pid)
        try:
            watch = JobWatch(self._database, held, child, self._draining, since=since)
            child.order(asdict(held))
            outcome = watch.until_the_end()
            log.info("let go", outcome=outcome)
            return watch.has_begun
        except LeaseLost:
            log.warning("the lease is lost; the child is stopped")
        except Leaving:
            log.warning("left without an answer of the database; the job is taken back when its lease is over")
        finally:
            child.close()
            structlog.contextvars.reset_contextvars(**bound)
        return True

    def _take_child(self) -> Child | None:
        with self._spare_lock:
            child, self._spare = self._spare, None
        if child is not None and not child.alive:
            child.close()
            child = None
        child = child or self._spawn()
        if child is None:
            return None
        if child.wait_until_ready(READY_S):
            return child
        child.close()
        log.error("a training process ended, or hung, before it was ready; see what it wrote")
        return None

    def _give_back(self, child: Child) -> None:
        with self._spare_lock:
            if self._spare is None and not self._draining.is_set():
                self._spare = child
                return
        child.close()

    def _restock(self) -> None:
        with self._restocking:  # it may take long; whoever needs a child does not wait for this lock
            if self._spare is None and not self._draining.is_set():
                child = self._spawn()
                if child is not None:
                    self._give_back(child)

    def _begin(self) -> None:
        self._restock()
        try:
            self._calibrate()
        except (SQLAlchemyError, RuntimeError) as error:
            log.warning("this machine is not calibrated", error=str(error))

    def _calibrate(self) -> None:
        """Have a child measure how fast this machine computes, unless that is known of a short while ago."""
        host = socket.gethostname()
        if calibrations.is_fresh(self._database, host):
            return
        with self._restocking:  # as any child that nobody waits for: see _close
            child = None if self._draining.is_set() else self._spawn()
            self._calibrating = child
        if child is None:
            return
        try:
            factors = self._measured_by(child)
        finally:
            child.close()
        if factors:
            calibrations.store(self._database, host, factors)
            log.info("calibrated", **factors)

    def _measured_by(self, child: Child) -> dict[str, float]:
        """What a child found, nothing where it took too long or this worker stops."""
        if child.wait_until_ready(READY_S):
            child.order({"calibrate": True})
            deadline = time.monotonic() + CALIBRATION_S
            while not self._draining.is_set() and time.monotonic() < deadline:
                if report := child.report(watching.REPORT_POLL_INTERVAL_S):
                    return dict(report.get("calibrated", {}))
        return {}

    def _spawn(self) -> Child | None:
        try:
            return Child()
        except (OSError, RuntimeError) as error:  # no process, thread or memory left
            log.error("a training process cannot be started", error=str(error))
            return None

    def _keep_looking(self) -> None:
        while not self._draining.is_set():
            try:
                # Without an answer, too: the look finds out whether a child stands ready, and beats the heart.
                with contextlib.suppress(SQLAlchemyError):
                    self._check_in()
                if len(self._held) < self._settings.workers:
                    threading.Thread(target=self.look, name="look", daemon=True).start()
            except Exception as error:  # noqa: BLE001 - this loop must outlive whatever goes wrong in a round
                log.warning("could not look", error=str(error))
            if self._held:
                self._heartbeat.beat()
            self._draining.wait(DATABASE_POLL_INTERVAL_S)
        with contextlib.suppress(SQLAlchemyError):
            self._check_in()  # as one that takes no more jobs

    def _check_in(self) -> None:
        worker_registry.check_in(
            self._database,
            Worker(
                id=self._id,
                host=socket.gethostname(),
                pid=os.getpid(),
                slots=self._settings.workers,
                running=len(self._held),
                draining=self._draining.is_set(),
            ),
        )
