"""How a worker monitors its child while the database or the child does not respond.

The monitor's clock is the test's: the fake children and the failing queries say how long they take.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from service.jobs import leases
from service.jobs.leases import Claim
from service.states import Status
from service.storage.database import Database
from tests.faults.conftest import InProcessHarness, outage_error
from tests.waiting import wait_until
from workers import lease_session
from workers.messages import Done, Preparing, Progress, Report
from workers.supervisor import job_monitor
from workers.supervisor.child_process import Exited


class Clock:
    """A monotonic clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._reads = Counter[str]()
        """By thread."""

    def monotonic(self) -> float:
        self._reads[threading.current_thread().name] += 1
        return self.now

    def fence_reads(self) -> int:
        return sum(count for name, count in [*self._reads.items()] if name.startswith("fence-"))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(lease_session, "RETRY_INTERVAL_S", 0.01)
    monkeypatch.setattr(job_monitor, "time", clock := Clock())
    return clock


class FakeChild:
    """A fake child that trains forever.

    Args:
        batch_s: how far each report advances the clock.
    """

    def __init__(self, clock: Clock, batch_s: float = 0.1) -> None:
        self.clock, self.batch_s = clock, batch_s
        self.closed_at: float | None = None
        self.pid = os.getpid()

    @property
    def closed(self) -> bool:
        return self.closed_at is not None

    def report(self, timeout_s: float) -> Report | Exited | None:
        self.clock.now += self.batch_s
        return Exited(-9) if self.closed else self.next_report()

    def next_report(self) -> Report | None:
        return Progress(1, 10)

    def send(self, command: Any) -> None:
        pass

    def close(self) -> None:
        self.closed_at = self.closed_at or self.clock.now


def monitor(database: Database, held: Claim, child: FakeChild, draining: threading.Event) -> str:
    fake: Any = child
    return job_monitor.JobMonitor(database, held, fake, draining, draining, requested_at=child.clock.now).run()


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

    for name in ("renew", "requested", "release_lease"):
        monkeypatch.setattr(leases, name, fail_until_the_lease_is_over(getattr(leases, name)))
    assert monitor(process.database, held, child, threading.Event()) == "could not renew in time; released"
    assert child.closed_at is not None
    assert child.closed_at < began + held.lease_s
    job = process.workers.job(job_id)
    assert (job.status, job.attempt, job.deaths) == (Status.QUEUED, 1, 0)


def test_a_query_that_hangs_does_not_keep_the_child_beyond_its_lease(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(job_monitor, "REPORT_POLL_INTERVAL_S", 0.01)
    job_id = process.submit()
    held, child, began = process.claim(lease_s=6), FakeChild(clock), clock.now
    renew, hung = leases.renew, []

    def hang(*arguments: Any) -> Any:
        while not child.closed and clock.now < began + 2 * held.lease_s:
            clock.now += 0.1
            reads = clock.fence_reads()
            # At its second look at the clock, it has acted on the first.
            wait_until(lambda reads=reads: child.closed or clock.fence_reads() >= reads + 2, "the fence's next look")
        hung.append(True)
        monkeypatch.setattr(leases, "renew", renew)
        raise outage_error()

    monkeypatch.setattr(leases, "renew", hang)
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
    process.submit()
    held = process.claim(lease_s=600)
    fake: Any = FakeChild(clock)
    late_monitor = job_monitor.JobMonitor(
        process.database, held, fake, threading.Event(), threading.Event(), requested_at=clock.now - 500
    )
    assert late_monitor.run() == "could not renew in time; released"


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
        clock.now += 0.5
        attempts_at.append(clock.now)
        assert len(attempts_at) < 100, "it never gives up"
        raise outage_error()

    for name in ("renew", "requested"):
        monkeypatch.setattr(leases, name, fail)
    monkeypatch.setattr(leases, "release_lease", fail_to_release)
    with pytest.raises(job_monitor.StoppedDuringOutage):
        monitor(process.database, held, FakeChild(clock), draining)
    assert len(attempts_at) > 1
    assert attempts_at[-1] - attempts_at[0] <= job_monitor.DRAIN_RETRY_S + 0.5


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


class HungChild(FakeChild):
    """A child that finishes one batch and then hangs; its process lives."""

    has_reported = False

    def next_report(self) -> Report | None:
        first, self.has_reported = not self.has_reported, True
        return Progress(1, 10) if first else None


class BackloggedChild(FakeChild):
    """A child that has reported many batches and its end before any report is read."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, batch_s=0.01)
        self.reports: list[Report] = [*(Progress(step, 100) for step in range(100)), Done("so")]

    def next_report(self) -> Report | None:
        return self.reports.pop(0)


def test_reports_do_not_pile_up_behind_a_slow_database(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    process.submit()
    held, queries = process.claim(lease_s=600), []

    def slow(*_: Any) -> None:
        queries.append(True)
        clock.now += 2 * job_monitor.REPORT_POLL_INTERVAL_S

    for name in ("renew", "requested"):
        monkeypatch.setattr(leases, name, slow)
    assert monitor(process.database, held, BackloggedChild(clock), threading.Event()) == "so"
    assert 1 <= len(queries) < 10  # and not a hundred


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
    held, child, began = process.claim(lease_s=600), StuckChild(clock, batch_s=100), clock.now
    assert "no batch was finished" in monitor(process.database, held, child, threading.Event())
    assert child.preparing_reports < 0
    assert child.closed_at is not None
    assert child.closed_at - began > 30 * child.batch_s + job_monitor.START_DEADLINE_S
    assert process.train() == "succeeded"
