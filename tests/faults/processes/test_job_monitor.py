"""How a worker monitors its child while the database or the child does not respond.

The monitor's clock is the test's: the fake children and the failing queries say how long they take.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

from service.errors import LeaseLost
from service.jobs import commits, leases, renewals
from service.jobs.leases import Claim
from service.states import Request, Status
from service.storage.database import Database
from tests.faults.conftest import InProcessHarness, outage_error
from tests.waiting import wait_until
from workers import operations, pace
from workers.messages import Command, Done, Preparing, Progress, Report, Train
from workers.operations import Call, Reply
from workers.supervisor import job_monitor, lease_keeper
from workers.supervisor.child_process import Exited
from workers.supervisor.lease_keeper import LeaseKeeper


class Clock:
    """A monotonic clock that only the test advances; sleeping advances it, too."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._reads = Counter[str]()
        """By thread."""

    def monotonic(self) -> float:
        self._reads[threading.current_thread().name] += 1
        return self.now

    def sleep(self, seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():
            self.now += seconds

    def fence_reads(self) -> int:
        return self._reads["fence"]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (job_monitor, lease_keeper):
        monkeypatch.setattr(module, "time", clock)
    return clock


class FakeChild:
    """A fake child that trains forever. Between its reports the leases are kept, as another thread does otherwise.

    Args:
        batch_s: how far each report advances the clock.
    """

    keeper: LeaseKeeper

    def __init__(self, clock: Clock, batch_s: float = 0.1) -> None:
        self.clock, self.batch_s = clock, batch_s
        self.closed_at: float | None = None
        self.pid = os.getpid()

    @property
    def closed(self) -> bool:
        return self.closed_at is not None

    def report(self, timeout_s: float) -> Report | Exited | None:
        self.clock.now += self.batch_s
        with contextlib.suppress(SQLAlchemyError):
            self.keeper.keep()
        return Exited(-9) if self.closed else self.next_report()

    def next_report(self) -> Report | None:
        return Progress(1, 10)

    def send(self, command: Any) -> None:
        pass

    def kill(self) -> None:
        self.closed_at = self.closed_at or self.clock.now

    close = kill


def monitor(
    database: Database, held: Claim, child: FakeChild, draining: threading.Event, *, requested_s_ago: float = 0
) -> str:
    fake: Any = child
    child.keeper = LeaseKeeper(database)
    requested_at = child.clock.now - requested_s_ago
    return job_monitor.JobMonitor(
        database, child.keeper, held, fake, draining, draining, requested_at=requested_at
    ).run()


def test_a_worker_that_cannot_renew_stops_the_child_and_hands_the_job_back_later(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """An outage longer than the lease does not count as a worker loss."""
    job_id = process.submit()
    held, child, began = process.claim(lease_s=20), FakeChild(clock), clock.now

    def fail_until_the_lease_is_over(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if clock.now < began + 2 * held.lease_s:
                clock.now += 0.5
                raise outage_error()
            return function(*arguments, **named)

        return call

    for module, name in ((renewals, "renew"), (renewals, "requested"), (leases, "release_lease")):
        monkeypatch.setattr(module, name, fail_until_the_lease_is_over(getattr(module, name)))
    assert monitor(process.database, held, child, threading.Event()) == "could not renew in time; released"
    assert child.closed_at is not None
    assert child.closed_at < began + held.lease_s
    job = process.workers.job(job_id)
    assert (job.status, job.attempt, job.deaths) == (Status.QUEUED, 1, 0)


def test_a_child_that_does_not_read_its_command_is_killed(process: InProcessHarness, clock: Clock) -> None:
    """The command may be larger than the pipe."""
    process.submit()
    held = process.claim(lease_s=6)

    class Deaf(FakeChild):
        def send(self, command: Any) -> None:
            assert isinstance(command, Train)
            self.clock.now += held.lease_s
            threading.Thread(target=self.keeper._fence_repeatedly, name="fence", daemon=True).start()
            wait_until(lambda: self.closed, "the fence")

    assert monitor(process.database, held, Deaf(clock), threading.Event()) == "could not renew in time; released"


def test_a_query_that_hangs_does_not_keep_the_child_beyond_its_lease(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    job_id = process.submit()
    held, child, began = process.claim(lease_s=6), FakeChild(clock), clock.now
    renew, hung = renewals.renew, []

    def hang(*arguments: Any) -> Any:
        threading.Thread(target=child.keeper._fence_repeatedly, name="fence", daemon=True).start()
        while not child.closed and clock.now < began + 2 * held.lease_s:
            clock.now += 0.1
            reads = clock.fence_reads()
            # At its second look at the clock, it has acted on the first.
            wait_until(lambda reads=reads: child.closed or clock.fence_reads() >= reads + 2, "the fence's next look")
        hung.append(True)
        monkeypatch.setattr(renewals, "renew", renew)
        raise outage_error()

    monkeypatch.setattr(renewals, "renew", hang)
    assert monitor(process.database, held, child, threading.Event()) == "could not renew in time; released"
    assert len(hung) == 1
    assert child.closed_at is not None
    assert child.closed_at < began + held.lease_s
    assert process.workers.job(job_id).deaths == 0


def test_a_lease_runs_from_the_request_not_the_response(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """If the response to the claim was late, the rest of the lease is shorter by the delay."""
    monkeypatch.setattr(job_monitor, "BATCH_DEADLINE_S", -1.0)  # the silence of the child is not blamed, either
    monkeypatch.setattr(FakeChild, "report", lambda child, timeout_s: Progress(1, 10))  # nothing is renewed
    process.submit()
    held, child = process.claim(lease_s=600), FakeChild(clock)
    late = monitor(process.database, held, child, threading.Event(), requested_s_ago=500)
    assert late == "could not renew in time; released"


def test_a_stopping_worker_does_not_wait_for_the_database(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    process.submit()
    held, draining = process.claim(lease_s=0.5), threading.Event()
    draining.set()
    attempts_at: list[float] = []

    def fail(*_: Any) -> Any:
        raise outage_error()

    def fail_to_release(*_: Any, **__: Any) -> Any:
        attempts_at.append(clock.now)
        assert len(attempts_at) < 100, "it never gives up"
        raise outage_error()

    for name in ("renew", "requested"):
        monkeypatch.setattr(renewals, name, fail)
    monkeypatch.setattr(leases, "release_lease", fail_to_release)
    with pytest.raises(job_monitor.StoppedDuringOutage):
        monitor(process.database, held, FakeChild(clock), draining)
    assert len(attempts_at) > 1
    assert attempts_at[-1] - attempts_at[0] <= job_monitor.DRAIN_RETRY_S + job_monitor.RETRY_INTERVAL_S


def test_a_stopping_worker_retries_its_queries(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """A brief outage of the database while workers are replaced does not count as a worker loss."""
    job_id = process.submit()
    held, draining = process.claim(), threading.Event()
    draining.set()
    release_lease, failures = leases.release_lease, [outage_error()] * 3

    def call(*arguments: Any, **named: Any) -> None:
        if failures:
            raise failures.pop()
        release_lease(*arguments, **named)

    monkeypatch.setattr(leases, "release_lease", call)
    assert "did not stop" in monitor(process.database, held, FakeChild(clock), draining)
    assert not failures
    assert (process.workers.job(job_id).status, process.workers.job(job_id).deaths) == (Status.QUEUED, 0)


class CallingChild(FakeChild):
    """A child that has an operation executed, and ends when it has the reply."""

    def __init__(self, clock: Clock, message: Call) -> None:
        super().__init__(clock)
        self.message: Call | None = message
        self.sent: list[Command] = []

    def next_report(self) -> Report | None:
        message, self.message = self.message, None
        return message or (Done("so") if any(isinstance(item, Reply) for item in self.sent) else None)

    def send(self, command: Any) -> None:
        self.sent.append(command)

    @property
    def reply(self) -> Reply:
        (reply,) = (item for item in self.sent if isinstance(item, Reply))
        return reply


LOG_LINE = operations.call(commits.log, "info", "c", "m", is_interruptible=True)


def fail_times(monkeypatch: pytest.MonkeyPatch, count: int, *, committed: bool = False) -> None:
    """Make the next transactions fail, before their commit or after it."""
    execute, failures = operations.execute, [outage_error()] * count

    def call(*arguments: Any) -> Reply:
        if not failures:
            return execute(*arguments)
        if committed:
            execute(*arguments)
        raise failures.pop()

    monkeypatch.setattr(operations, "execute", call)


def test_an_operation_is_repeated_until_the_database_responds(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    job_id = process.submit()
    held, child = process.claim(), CallingChild(clock, LOG_LINE)
    fail_times(monkeypatch, 3)
    assert monitor(process.database, held, child, threading.Event()) == "so"
    assert child.reply.result() is None
    assert [event.data["code"] for event in process.workers.log(job_id) if event.type == "log"] == ["c"]
    assert clock.now >= 1000 + 3 * job_monitor.RETRY_INTERVAL_S


def test_a_stop_ends_the_wait_for_the_database_but_not_of_the_release_that_follows(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    process.submit()
    held, releasing = process.claim(), threading.Event()
    releasing.set()
    child = CallingChild(clock, LOG_LINE)
    fail_times(monkeypatch, 1000)
    assert monitor(process.database, held, child, releasing) == "so"
    with pytest.raises(operations.Interrupted):
        child.reply.result()
    assert clock.now < 1000 + job_monitor.STOP_GRACE_S
    stubborn = CallingChild(clock, operations.call(commits.log, "info", "c", "m", is_interruptible=False))
    assert "did not stop" in monitor(process.database, held, stubborn, releasing)


@pytest.mark.parametrize(("attempts", "error"), [(1, LeaseLost), (2, operations.OutcomeUnknown)])
def test_a_lease_lost_after_a_lost_response_may_have_been_used(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock, attempts: int, error: type[LeaseLost]
) -> None:
    """The commit of the first attempt ended the lease, or another worker has it: the child must keep its files."""
    process.submit()
    held = process.claim()
    message = operations.call(commits.fail, {"code": "internal", "message": "m"}, is_interruptible=True)
    if attempts == 1:
        leases.record_child_loss(process.database, held, "silent")
    else:
        fail_times(monkeypatch, 1, committed=True)
    child = CallingChild(clock, message)
    with contextlib.suppress(LeaseLost):  # the keeper notices, too
        monitor(process.database, held, child, threading.Event())
    with pytest.raises(LeaseLost) as caught:
        child.reply.result()
    assert type(caught.value) is error


def test_an_unexpected_error_of_an_operation_reaches_the_child(process: InProcessHarness, clock: Clock) -> None:
    process.submit()
    held = process.claim()
    child = CallingChild(clock, operations.call(commits.pinned_checkpoint, {}, {}, is_interruptible=True))
    monitor(process.database, held, child, threading.Event())
    with pytest.raises(operations.OperationFailed):
        child.reply.result()


def test_a_request_that_crosses_the_end_of_a_job_does_not_stop_the_next_job_of_its_child(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """The keeper has read the request, and passes it on after the child has returned to the pool."""
    process.submit()
    held, child, holders = process.claim(), CallingChild(clock, LOG_LINE), list[Any]()
    monkeypatch.setattr(LeaseKeeper, "add", lambda keeper, holder, *, requested_at: holders.append(holder))
    assert monitor(process.database, held, child, threading.Event()) == "so"
    holders[0].on_request(Request.PAUSE)
    holders[0].on_overdue()
    assert [type(item) for item in child.sent] == [Train, Reply]
    assert not child.closed


def test_a_lease_is_not_renewed_for_a_monitor_that_hangs(process: InProcessHarness, clock: Clock) -> None:
    """It hangs in a query whose server has gone: another worker must get the job."""
    process.submit()
    held, child = process.claim(), FakeChild(clock)
    fake: Any = child
    keeper = LeaseKeeper(process.database)
    stopping = threading.Event()
    hung = job_monitor.JobMonitor(process.database, keeper, held, fake, stopping, stopping, requested_at=clock.now)
    keeper.add(hung, requested_at=clock.now)
    clock.now += held.lease_s / 2
    keeper.keep()
    clock.now += held.lease_s / 2
    assert not keeper.is_overdue(hung)
    clock.now += job_monitor.STUCK_S
    keeper.keep()
    assert keeper.is_overdue(hung)
    hung.on_overdue()
    assert child.closed


def test_slow_polls_do_not_delay_a_renewal(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    requested, durations = renewals.requested, itertools.chain([0.0], itertools.repeat(0.1))

    def slow(*arguments: Any) -> Any:
        clock.now += next(durations)
        return requested(*arguments)

    monkeypatch.setattr(renewals, "requested", slow)
    monkeypatch.setattr(pace, "time", clock)
    process.submit()
    held, stopping = process.claim(lease_s=6), threading.Event()
    fake: Any = FakeChild(clock)
    keeper = LeaseKeeper(process.database)
    holder = job_monitor.JobMonitor(process.database, keeper, held, fake, stopping, stopping, requested_at=clock.now)
    keeper.add(holder, requested_at=clock.now)
    for _ in range(11):
        keeper.keep()
    assert keeper.interval_s == pytest.approx(1.0), "the renewal is due after 2 seconds, and 1 of them has passed"
    clock.now += 1.0
    keeper.keep()
    assert keeper.interval_s == pytest.approx(2.0), "it was renewed"
    clock.now += 1.9
    assert keeper.interval_s == lease_keeper.REQUESTS_INTERVAL_S


def test_a_job_is_released_if_its_operation_fails_for_the_duration_of_the_lease(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Its lease is renewed, so only inserts fail: a full disk is no fault of the job."""
    job_id = process.submit()
    held, child = process.claim(), CallingChild(clock, LOG_LINE)
    fail_times(monkeypatch, 1000)
    assert "did not respond for 30 seconds; released" in monitor(process.database, held, child, threading.Event())
    assert (process.workers.job(job_id).status, process.workers.job(job_id).deaths) == (Status.QUEUED, 0)


class HungChild(FakeChild):
    """A child that finishes one batch and then hangs; its process lives."""

    has_reported = False

    def next_report(self) -> Report | None:
        first, self.has_reported = not self.has_reported, True
        return Progress(1, 10) if first else None


def test_a_child_that_hangs_is_ended_although_its_lease_is_renewed(process: InProcessHarness, clock: Clock) -> None:
    """F22."""
    job_id = process.submit()
    held, child, began = process.claim(), HungChild(clock, batch_s=2), clock.now
    assert "no batch was finished" in monitor(process.database, held, child, threading.Event())
    job = process.workers.job(job_id)
    assert child.closed_at is not None
    assert child.closed_at - began > 2 * held.lease_s
    assert (job.status, job.deaths, job.attempt) == (Status.QUEUED, 1, 2)
    assert process.train() == "succeeded"


class StuckChild(FakeChild):
    """A child that never finishes a batch; for a while, it reports that it prepares (downloads)."""

    preparing_reports = 30

    def next_report(self) -> Report | None:
        self.preparing_reports -= 1
        return Preparing() if self.preparing_reports >= 0 else None


def test_a_child_without_a_first_batch_is_ended_but_not_while_it_prepares(
    process: InProcessHarness, clock: Clock
) -> None:
    """F22: it hangs in a read, and its lease is renewed."""
    process.submit()
    held, child, began = process.claim(lease_s=600), StuckChild(clock, batch_s=50), clock.now
    assert "no batch was finished" in monitor(process.database, held, child, threading.Event())
    assert child.preparing_reports < 0
    assert child.closed_at is not None
    assert child.closed_at - began > 30 * child.batch_s + job_monitor.START_DEADLINE_S
    assert process.train() == "succeeded"
