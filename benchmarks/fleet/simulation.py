"""Simulated workers in one process: the loops of the real ones, in threads and at their intervals, without training."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.fleet.job_data import STEPS_PER_EPOCH
from benchmarks.fleet.measuring import Recorder
from benchmarks.fleet.worker_operations import Fleet, WorkerOperations, usage
from service.errors import LeaseLost
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Claim, Position
from service.jobs.renewals import Renewal
from service.states import Request
from workers.supervisor.machine import CHECK_INTERVAL_S
from workers.supervisor.supervisor import DATABASE_POLL_INTERVAL_S
from workers.training.epochs.writer import EpochWriter

_TAIL_S: Final = 120.0
"""The most that running jobs take to end after the last claim, beyond their epochs."""


_Trained = tuple[EpochRecord, float]
"""An epoch, and when its training ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When what happens, by the monotonic clock of the machine.

    Attributes:
        start_at: the first worker starts.
        ramp_s: the last one starts so much later.
        measure_at, until: the window of the figures; after it, no jobs are claimed.
    """

    start_at: float
    ramp_s: float
    measure_at: float
    until: float
    epoch_s: float


@dataclass(eq=False, slots=True)
class _RunningJob:
    """A job of a worker, which holds its lease."""

    claim: Claim
    epochs: int
    epoch: int = 0
    is_lost: bool = False
    is_stuck: bool = False

    def renewal(self) -> Renewal:
        steps = STEPS_PER_EPOCH * self.epochs
        position = Position(step=STEPS_PER_EPOCH * self.epoch, steps=steps, steps_per_second=20.0)
        return Renewal(claim=self.claim, position=position, used=usage(position))

    def on_request(self, request: Request) -> None:
        """Nothing is requested of these jobs."""

    def on_loss(self) -> None:
        self.is_lost = True

    def on_overdue(self) -> None:
        self.is_lost = True


class SimulatedWorker:
    """One worker: a loop of heartbeats, one for each slot, and those that keep the leases."""

    def __init__(
        self, fleet: Fleet, schedule: Schedule, number: int, operations: WorkerOperations, recorder: Recorder
    ) -> None:
        self._fleet, self._schedule, self._number = fleet, schedule, number
        self._operations, self._recorder = operations, recorder
        self._lock = threading.Lock()
        self._jobs: dict[Claim, _RunningJob] = {}
        self._draining = threading.Event()
        self._slots_ended = threading.Event()
        self._slots: list[threading.Thread] = []
        self._loops: list[threading.Thread] = []
        self.epochs: list[tuple[str, int]] = []
        """The epochs whose commits were acknowledged."""
        self.ended: list[str] = []
        """The jobs whose results were acknowledged."""
        self.lost: list[str] = []
        """The jobs whose leases could not be renewed in time, or were lost, and why. They are queued again."""

    def start(self, share: float) -> None:
        """Start the loops after this share of the ramp, and the slots evenly spread over it."""
        start_at, ramp_s, slots = self._schedule.start_at, self._schedule.ramp_s, self._fleet.slots
        shares = [(share + slot / slots) % 1 for slot in range(slots)]
        self._slots = [self._thread(self._run_slot, start_at + ramp_s * part) for part in shares]
        start_at += ramp_s * min(shares)
        self._loops = [
            self._thread(self._repeat, self._beat, start_at, lambda: DATABASE_POLL_INTERVAL_S),
            self._thread(self._repeat, self._operations.check_machine, start_at, lambda: CHECK_INTERVAL_S),
            self._thread(self._repeat, self._operations.keep_leases, start_at, self._keeper_interval),
        ]

    def drain(self) -> None:
        """Claim no more jobs."""
        self._draining.set()

    def join(self, deadline: float) -> bool:
        """Wait until the running jobs have ended; returns whether they have."""
        for thread in self._slots:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._slots_ended.set()
        for thread in self._loops:
            thread.join(10)
        return not any(thread.is_alive() for thread in self._slots)

    def _thread(self, loop: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=loop, args=arguments, daemon=True)
        thread.start()
        return thread

    def _repeat(self, operation: Callable[[], None], start_at: float, interval_s: Callable[[], float]) -> None:
        """Repeat an operation; as in the product, the interval begins when the last one has ended."""
        due = start_at
        while not self._slots_ended.wait(max(0.0, due - time.monotonic())):
            self._recorder.add("lateness", time.monotonic() - due)
            with self._counting_errors():
                operation()
            due = time.monotonic() + interval_s()

    def _beat(self) -> None:
        self._operations.heartbeat(len(self._jobs), draining=self._draining.is_set())

    def _keeper_interval(self) -> float:
        return self._operations.keeper.interval_s

    def _run_slot(self, start_at: float) -> None:
        """Claim jobs and train them one after the other; without one, wait for the next poll."""
        _sleep_until(start_at)
        while not self._draining.is_set():
            requested_at = time.monotonic()
            claim = None
            with self._counting_errors():
                claim = self._operations.claim()
            if claim is None:
                self._draining.wait(DATABASE_POLL_INTERVAL_S)
                continue
            job = _RunningJob(claim, self._fleet.epochs)
            with self._lock:
                self._jobs[claim] = job
            self._operations.keeper.add(job, requested_at=requested_at)
            try:
                self._train(job)
            except (LeaseLost, SQLAlchemyError) as error:
                self.lost.append(f"{claim.job_id} after epoch {job.epoch}: {error}")
                with self._counting_errors(), suppress(LeaseLost):
                    self._operations.release(claim)
            finally:
                self._operations.keeper.remove(job)
                with self._lock:
                    del self._jobs[claim]

    def _train(self, job: _RunningJob) -> None:
        claim = job.claim
        job.epoch = self._operations.begin(claim)

        def commit(records: Sequence[_Trained]) -> None:
            self._operations.commit_epochs(claim, [record for record, _ in records])
            for record, trained_at in records:
                self._recorder.add("epoch age", time.monotonic() - trained_at)
                self.epochs.append((claim.job_id, record.epoch))
                job.epoch = record.epoch

        def store(trained: Sequence[tuple[int, float]]) -> Sequence[_Trained]:
            return [(self._operations.epoch_record(claim, epoch), trained_at) for epoch, trained_at in trained]

        with EpochWriter(store, commit, size=lambda trained: 0) as writer:
            trained_at = time.monotonic() + self._schedule.epoch_s
            for epoch in range(job.epoch + 1, self._fleet.epochs + 1):
                _sleep_until(trained_at)
                self._recorder.add("lateness", time.monotonic() - trained_at)
                if job.is_lost or self._operations.keeper.is_overdue(job):
                    raise LeaseLost(claim.job_id, claim.lease)
                writer.wait()
                trained_at = time.monotonic() + self._schedule.epoch_s
                writer.start((epoch, time.monotonic()))
        self._operations.succeed(claim)
        self.ended.append(claim.job_id)

    @contextmanager
    def _counting_errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError:
            self._recorder.count_error()


def run(pipe: Connection, fleet: Fleet, numbers: Sequence[int], count: int) -> None:
    """The main function of a process: say that it is ready, get the schedule, run some of the workers, and send what
    was measured.

    Args:
        numbers: of this process's workers, of ``count``.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    recorder = Recorder()
    recorder.listen()
    pipe.send("ready")
    schedule: Schedule = pipe.recv()
    workers = []
    for number in numbers:
        operations = WorkerOperations(fleet, number, recorder)
        workers.append((operations, SimulatedWorker(fleet, schedule, number, operations, recorder)))
    for number, (_, worker) in zip(numbers, workers, strict=True):
        worker.start(number / count)
    _sleep_until(schedule.measure_at)
    cpu_s = recorder.take()["cpu_s"]
    _sleep_until(schedule.until)
    measured = recorder.take()
    measured["cpu_s"] -= cpu_s
    for _, worker in workers:
        worker.drain()
    deadline = time.monotonic() + fleet.epochs * schedule.epoch_s + _TAIL_S
    unfinished = sum(not worker.join(deadline) for _, worker in workers)
    for operations, _ in workers:
        operations.close()
    acknowledged: dict[str, Any] = {
        "epochs": [epoch for _, worker in workers for epoch in worker.epochs],
        "ended": [job for _, worker in workers for job in worker.ended],
        "lost": [job for _, worker in workers for job in worker.lost],
        "unfinished": unfinished,
    }
    pipe.send((measured, acknowledged))


def _sleep_until(at: float) -> None:
    while (left := at - time.monotonic()) > 0:
        time.sleep(left)
