"""How a worker watches its child: while the database does not respond, and while the child does not."""

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
from tests.faults.conftest import InProcess, away
from workers.messages import Done, Preparing, Progress, Report
from workers.supervisor import job_monitor
from workers.supervisor.child_process import Exited


class PlayedChild:
    """A child that trains for ever."""

    def __init__(self) -> None:
        self.closed = False
        self.pid = os.getpid()

    def report(self, timeout_s: float) -> Report | Exited | None:
        time.sleep(0.01)
        return Exited(-9) if self.closed else Progress(1, 10)

    def send(self, order: Any) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def watch(database: Database, held: Claim, child: PlayedChild, draining: threading.Event) -> str:
    played: Any = child
    return job_monitor.JobMonitor(database, held, played, draining, since=time.monotonic()).run()


def test_a_worker_that_could_not_renew_stops_in_time_and_hands_back_once_it_can(
    process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An outage longer than the lease is nobody's death."""
    job_id = process.submit()
    held, child = process.claim(lease_s=2), PlayedChild()
    broken = time.monotonic() + 3

    def unless_away(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if time.monotonic() < broken:
                raise away()
            assert child.closed, "the child was stopped before the lease was over"
            return function(*arguments, **named)

        return call

    for name in ("renew", "requested", "release_lease"):
        monkeypatch.setattr(leases, name, unless_away(getattr(leases, name)))
    assert watch(process.database, held, child, threading.Event()) == "could not renew in time; handed back"
    job = process.workers.job(job_id)
    assert (job.status, job.attempt, job.deaths) == (Status.QUEUED, 1, 0)


def test_a_question_that_hangs_does_not_keep_the_child_beyond_its_lease(
    process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = process.submit()
    held, child = process.claim(lease_s=6), PlayedChild()
    renew, ended = leases.renew, []

    def hang(*arguments: Any) -> Any:
        began = time.monotonic()
        while not child.closed and time.monotonic() - began < 10:
            time.sleep(0.02)
        ended.append(time.monotonic() - began)
        monkeypatch.setattr(leases, "renew", renew)
        raise away()

    monkeypatch.setattr(leases, "renew", hang)
    began = time.monotonic()
    assert watch(process.database, held, child, threading.Event()) == "could not renew in time; handed back"
    assert len(ended) == 1
    assert time.monotonic() - began < held.lease_s
    assert process.workers.job(job_id).deaths == 0


def test_a_lease_is_as_old_as_the_question_for_it(process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the claim's answer came late, there is that much less of the lease left."""
    monkeypatch.setattr(job_monitor, "BATCH_DEADLINE_S", -1.0)  # nor is it the child's fault that it said nothing
    process.submit()
    held, child = process.claim(lease_s=600), PlayedChild()
    played: Any = child
    late = job_monitor.JobMonitor(process.database, held, played, threading.Event(), since=time.monotonic() - 500)
    assert late.run() == "could not renew in time; handed back"


def test_a_worker_that_is_to_stop_does_not_wait_for_the_database(
    process: InProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process.submit()
    held, draining = process.claim(lease_s=0.5), threading.Event()
    draining.set()

    def call(*_: Any, **__: Any) -> Any:
        raise away()

    for name in ("renew", "requested", "release_lease"):
        monkeypatch.setattr(leases, name, call)
    began = time.monotonic()
    with pytest.raises(job_monitor.AbandonedOnExit):
        watch(process.database, held, PlayedChild(), draining)
    assert time.monotonic() - began < 5


def test_a_stopping_worker_retries_its_queries(process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hiccup of the database while workers are replaced is nobody's death."""
    job_id = process.submit()
    held, draining = process.claim(), threading.Event()
    draining.set()
    release_lease, failures = leases.release_lease, [away()] * 3

    def call(*arguments: Any, **named: Any) -> None:
        if failures:
            raise failures.pop()
        release_lease(*arguments, **named)

    monkeypatch.setattr(leases, "release_lease", call)
    monkeypatch.setattr(job_monitor, "STOP_GRACE_S", 0.1)
    assert "did not stop" in watch(process.database, held, PlayedChild(), draining)
    assert not failures
    assert (process.workers.job(job_id).status, process.workers.job(job_id).deaths) == (Status.QUEUED, 0)


class HungChild(PlayedChild):
    """A child that finished one batch, and then nothing more; its process lives."""

    reported = False

    def report(self, timeout_s: float) -> Report | Exited | None:
        time.sleep(0.01)
        first, self.reported = not self.reported, True
        return Progress(1, 10) if first else None


class TalkativeChild(PlayedChild):
    """A child that has reported many batches, and then its end, while nobody read."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[Report] = [*(Progress(step, 100) for step in range(100)), Done("so")]

    def report(self, timeout_s: float) -> Report | Exited | None:
        return self.reports.pop(0)


def test_reports_do_not_pile_up_behind_a_slow_database(process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    process.submit()
    held, asked = process.claim(lease_s=600), []

    def slow(*_: Any) -> None:
        asked.append(True)
        time.sleep(2 * job_monitor.REPORT_POLL_INTERVAL_S)

    for name in ("renew", "requested"):
        monkeypatch.setattr(leases, name, slow)
    assert watch(process.database, held, TalkativeChild(), threading.Event()) == "so"
    assert len(asked) < 10  # and not a hundred


def test_a_child_that_hangs_is_ended_though_its_lease_is_renewed(
    process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F22."""
    monkeypatch.setattr(job_monitor, "BATCH_DEADLINE_S", 0.3)
    job_id = process.submit()
    held, child = process.claim(), HungChild()
    assert "no batch was finished" in watch(process.database, held, child, threading.Event())
    job = process.workers.job(job_id)
    assert child.closed
    assert (job.status, job.deaths, job.attempt) == (Status.QUEUED, 1, 2)
    assert process.train() == "succeeded"


class StuckChild(PlayedChild):
    """A child that never comes to its first batch; for a while it says that it downloads."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = words

    def report(self, timeout_s: float) -> Report | Exited | None:
        time.sleep(0.05)
        self.words -= 1
        return Preparing() if self.words >= 0 else None


def test_a_child_that_never_begins_is_ended_but_not_while_it_prepares(
    process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F22: it hangs in a read, and its lease is renewed."""
    monkeypatch.setattr(job_monitor, "START_DEADLINE_S", 0.5)
    process.submit()
    held, child = process.claim(), StuckChild(words=30)
    assert "no batch was finished" in watch(process.database, held, child, threading.Event())
    assert child.words < 0
    assert child.closed
    assert process.train() == "succeeded"
