from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service.jobs import leases, worker_registry
from tests.waiting import wait_until
from tests.workers.conftest import WorkerHarness
from workers.supervisor import job_monitor
from workers.supervisor import supervisor as module
from workers.supervisor.child_process import ChildProcess
from workers.supervisor.supervisor import Supervisor


@pytest.fixture
def supervisor(workers: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """A supervisor that polls, but trains no jobs."""
    idle_supervisor = Supervisor(workers.settings, workers.database)
    monkeypatch.setattr(idle_supervisor, "run_waiting_jobs", lambda: None)
    return idle_supervisor


def draining_flags(workers: WorkerHarness) -> Sequence[bool]:
    """For each registered worker, whether it is draining."""
    with workers.database.read() as session:
        return [worker.draining for worker in worker_registry.live_workers(session)]


def test_a_stopping_worker_is_listed_as_draining_and_then_removed(
    workers: WorkerHarness, supervisor: Supervisor
) -> None:
    supervisor._poller.start()
    wait_until(lambda: draining_flags(workers) == [False], "the worker's registration")
    supervisor.drain()
    wait_until(lambda: draining_flags(workers) == [True], "the draining state")
    supervisor.close()
    assert draining_flags(workers) == []


def test_a_worker_that_claims_no_more_gives_back_a_claim_whose_answer_was_lost(
    workers: WorkerHarness, supervisor: Supervisor
) -> None:
    """Otherwise its lease expires, and counts as a lost worker."""
    job_id = workers.submit()
    assert leases.claim(workers.database, supervisor._id, 600.0) is not None
    supervisor._may_hold_unknown_claims = True
    supervisor.claim_no_more()
    supervisor._poller.start()
    wait_until(lambda: workers.job(job_id).status == "queued", "the release of the claim")
    assert workers.job(job_id).deaths == 0
    supervisor.close()


def test_a_heartbeat_during_shutdown_does_not_keep_the_worker_registered(
    workers: WorkerHarness, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_heartbeat, started, release = worker_registry.record_heartbeat, threading.Event(), threading.Event()

    def record_slowly(*arguments: Any) -> None:
        started.set()
        release.wait()
        record_heartbeat(*arguments)

    monkeypatch.setattr(worker_registry, "record_heartbeat", record_slowly)
    supervisor._poller.start()
    started.wait()
    closing = threading.Thread(target=supervisor.close)
    closing.start()
    wait_until(lambda: any(thread.name == "deregister" for thread in threading.enumerate()), "its deregistration")
    release.set()
    closing.join()
    assert draining_flags(workers) == []


def test_an_unresponsive_database_does_not_keep_a_worker_from_exiting(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = threading.Event()
    monkeypatch.setattr(worker_registry, "deregister", lambda *_: response.wait())
    monkeypatch.setattr(module, "DEREGISTER_TIMEOUT_S", 0.1)
    closing = threading.Thread(target=supervisor.close)
    closing.start()
    closing.join(60)
    closed_before_the_response = not closing.is_alive()
    response.set()
    assert closed_before_the_response


def test_a_worker_does_not_exit_while_a_child_is_starting(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise nothing would end that child: it was unknown to Python's own exit, which hung."""
    started, release, children = threading.Event(), threading.Event(), []

    def start() -> ChildProcess:
        started.set()
        release.wait()
        children.append(ChildProcess())
        return children[0]

    monkeypatch.setattr(supervisor._children, "_start_child", start)
    threading.Thread(target=supervisor._children.restock).start()
    started.wait()
    lock, requested = supervisor._children._start_lock, threading.Event()

    def acquire(timeout: float) -> bool:
        requested.set()
        return lock.acquire(timeout=timeout)

    monkeypatch.setattr(supervisor._children, "_start_lock", SimpleNamespace(acquire=acquire))
    closing = threading.Thread(target=supervisor.close)
    closing.start()
    wait_until(requested.is_set, "the worker to wait for the child")
    assert closing.is_alive()
    release.set()
    closing.join()
    assert not children[0].alive


def test_an_idle_worker_keeps_polling_while_the_database_is_down(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its polls show that it is healthy: they beat the heartbeat as soon as there is a child."""
    polls: list[None] = []

    def refuse(*_: Any) -> None:
        raise OperationalError("", {}, ConnectionError("refused"))

    monkeypatch.setattr(worker_registry, "record_heartbeat", refuse)
    monkeypatch.setattr(module, "DATABASE_POLL_INTERVAL_S", 0.01)
    monkeypatch.setattr(supervisor, "run_waiting_jobs", lambda: polls.append(None))
    supervisor._poller.start()
    wait_until(lambda: len(polls) >= 3, "three polls")
    supervisor.close()


def test_a_child_that_dies_before_its_command_does_not_count_as_a_worker_loss(
    workers: WorkerHarness, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, claim, child = workers.submit(), leases.claim, ChildProcess()
    assert child.wait_until_ready(60)
    supervisor._children.return_child(child)
    monkeypatch.setattr(supervisor._children, "restock", lambda: None)

    def claim_late(*arguments: Any, **options: Any) -> Any:
        os.kill(child.pid, signal.SIGKILL)
        wait_until(lambda: not child.alive, "its exit")
        return claim(*arguments, **options)

    monkeypatch.setattr(leases, "claim", claim_late)
    assert not supervisor._run_next_job()  # the next child might die as well
    job = workers.job(job_id)
    assert (job.status, job.deaths) == ("queued", 0)
    assert "lost" not in [event.data.get("reason") for event in workers.log(job_id)]


@pytest.mark.stack
def test_a_job_fails_if_its_children_keep_dying_before_their_command(
    workers: WorkerHarness, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, send = workers.submit(), ChildProcess.send

    def send_late(child: ChildProcess, command: Any) -> None:
        os.kill(child.pid, signal.SIGKILL)
        wait_until(lambda: not child.alive, "its exit")
        send(child, command)

    monkeypatch.setattr(ChildProcess, "send", send_late)
    monkeypatch.setattr(supervisor._children, "restock", lambda: None)
    monkeypatch.setattr(job_monitor, "MAX_EARLY_DEATHS", 2)
    assert not supervisor._run_next_job()
    assert (workers.job(job_id).status, workers.job(job_id).deaths) == ("queued", 0)
    for _ in range(3):
        assert workers.job(job_id).status == "queued"
        supervisor._run_next_job()
    job = workers.job(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert "ended before it received its command, like 3 before it: see the worker's log" in job.error["message"]
    supervisor.close()
