"""How a worker monitors its child while the database or the child does not respond."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.jobs import leases
from service.jobs.leases import Claim
from service.states import Status
from service.storage.database import Database
from tests.faults.conftest import InProcessHarness, outage_error
from workers.messages import Done, Preparing, Progress, Report
from workers.supervisor import job_monitor
from workers.supervisor.child_process import Exited


class FakeChild:
    """A fake child that trains forever."""

    def __init__(self) -> None:
        self.closed = False
        self.pid = os.getpid()

    def report(self, timeout_s: float) -> Report | Exited | None:
        time.sleep(0.01)
        return Exited(-9) if self.closed else Progress(1, 10)

    def send(self, command: Any) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def monitor(database: Database, held: Claim, child: FakeChild, draining: threading.Event) -> str:
    fake: Any = child
    return job_monitor.JobMonitor(database, held, fake, draining, requested_at=time.monotonic()).run()


@pytest.mark.slow
def test_a_worker_that_cannot_renew_stops_the_child_and_hands_the_job_back_later(
    process: InProcessHarness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An outage longer than the lease does not count as a worker loss."""
    job_id = process.submit()
    held, child = process.claim(lease_s=2), FakeChild()
    outage_end = time.monotonic() + 3

    def fail_until_outage_end(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if time.monotonic() < outage_end:
                raise outage_error()
            assert child.closed, "the child was stopped before the lease was over"
            return function(*arguments, **named)

        return call

    for name in ("renew", "requested", "release_lease"):
        monkeypatch.setattr(leases, name, fail_until_outage_end(getattr(leases, name)))
    assert monitor(process.database, held, child, threading.Event()) == "could not renew in time; handed back"
    job = process.workers.job(job_id)
    assert (job.status, job.attempt, job.deaths) == (Status.QUEUED, 1, 0)


@pytest.mark.slow
def test_a_query_that_hangs_does_not_keep_the_child_beyond_its_lease(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = process.submit()
    held, child = process.claim(lease_s=6), FakeChild()
    renew, durations_s = leases.renew, []

    def hang(*arguments: Any) -> Any:
        began = time.monotonic()
        while not child.closed and time.monotonic() - began < 10:
            time.sleep(0.02)
        durations_s.append(time.monotonic() - began)
        monkeypatch.setattr(leases, "renew", renew)
        raise outage_error()

    monkeypatch.setattr(leases, "renew", hang)
    began = time.monotonic()
    assert monitor(process.database, held, child, threading.Event()) == "could not renew in time; handed back"
    assert len(durations_s) == 1
    assert time.monotonic() - began < held.lease_s
    assert process.workers.job(job_id).deaths == 0


def test_a_lease_runs_from_the_request_not_the_response(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the response to the claim was late, the rest of the lease is shorter by the delay."""
    monkeypatch.setattr(job_monitor, "BATCH_DEADLINE_S", -1.0)  # the silence of the child is not blamed, either
    process.submit()
    held, child = process.claim(lease_s=600), FakeChild()
    fake: Any = child
    late_monitor = job_monitor.JobMonitor(
        process.database, held, fake, threading.Event(), requested_at=time.monotonic() - 500
    )
    assert late_monitor.run() == "could not renew in time; handed back"


def test_a_stopping_worker_does_not_wait_for_the_database(
    process: InProcessHarness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process.submit()
    held, draining = process.claim(lease_s=0.5), threading.Event()
    draining.set()

    def call(*_: Any, **__: Any) -> Any:
        raise outage_error()

    for name in ("renew", "requested", "release_lease"):
        monkeypatch.setattr(leases, name, call)
    began = time.monotonic()
    with pytest.raises(job_monitor.AbandonedOnExit):
        monitor(process.database, held, FakeChild(), draining)
    assert time.monotonic() - began < 5


def test_a_stopping_worker_retries_its_queries(process: InProcessHarness, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(job_monitor, "STOP_GRACE_S", 0.1)
    assert "did not stop" in monitor(process.database, held, FakeChild(), draining)
    assert not failures
    assert (process.workers.job(job_id).status, process.workers.job(job_id).deaths) == (Status.QUEUED, 0)


class HungChild(FakeChild):
    """A child that finishes one batch and then hangs; its process lives."""

    reported = False

    def report(self, timeout_s: float) -> Report | Exited | None:
        time.sleep(0.01)
        first, self.reported = not self.reported, True
        return Progress(1, 10) if first else None


class BackloggedChild(FakeChild):
    """A child that has reported many batches and its end before any report is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[Report] = [*(Progress(step, 100) for step in range(100)), Done("so")]

    def report(self, timeout_s: float) -> Report | Exited | None:
        return self.reports.pop(0)


def test_reports_do_not_pile_up_behind_a_slow_database(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.submit()
    held, queries = process.claim(lease_s=600), []

    def slow(*_: Any) -> None:
        queries.append(True)
        time.sleep(2 * job_monitor.REPORT_POLL_INTERVAL_S)

    for name in ("renew", "requested"):
        monkeypatch.setattr(leases, name, slow)
    assert monitor(process.database, held, BackloggedChild(), threading.Event()) == "so"
    assert len(queries) < 10  # and not a hundred


def test_a_child_that_hangs_is_ended_although_its_lease_is_renewed(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F22."""
    monkeypatch.setattr(job_monitor, "BATCH_DEADLINE_S", 0.3)
    job_id = process.submit()
    held, child = process.claim(), HungChild()
    assert "no batch was finished" in monitor(process.database, held, child, threading.Event())
    job = process.workers.job(job_id)
    assert child.closed
    assert (job.status, job.deaths, job.attempt) == (Status.QUEUED, 1, 2)
    assert process.train() == "succeeded"


class StuckChild(FakeChild):
    """A child that never finishes a batch; for a while, it reports that it prepares (downloads)."""

    def __init__(self, preparing_reports: int) -> None:
        super().__init__()
        self.preparing_reports = preparing_reports

    def report(self, timeout_s: float) -> Report | Exited | None:
        time.sleep(0.05)
        self.preparing_reports -= 1
        return Preparing() if self.preparing_reports >= 0 else None


def test_a_child_without_a_first_batch_is_ended_but_not_while_it_prepares(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F22: it hangs in a read, and its lease is renewed."""
    monkeypatch.setattr(job_monitor, "START_DEADLINE_S", 0.5)
    process.submit()
    held, child = process.claim(), StuckChild(preparing_reports=30)
    assert "no batch was finished" in monitor(process.database, held, child, threading.Event())
    assert child.preparing_reports < 0
    assert child.closed
    assert process.train() == "succeeded"
