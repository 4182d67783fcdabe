from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
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
    """One that looks, and finds nothing."""
    made = Supervisor(workers.settings, workers.database)
    monkeypatch.setattr(made, "run_waiting_jobs", lambda: None)
    return made


def listed(workers: WorkerHarness) -> Sequence[bool]:
    """Of each worker that is listed, whether it drains."""
    with workers.database.read() as session:
        return [worker.draining for worker in worker_registry.live_workers(session)]


def test_a_stopping_worker_is_listed_as_stopping_and_then_removed(
    workers: WorkerHarness, supervisor: Supervisor
) -> None:
    supervisor._poller.start()
    wait_until(lambda: listed(workers) == [False], "the worker's first word")
    supervisor.drain()
    wait_until(lambda: listed(workers) == [True], "its word that it drains")
    supervisor.close()
    assert listed(workers) == []


def test_a_worker_that_checks_in_while_it_stops_is_gone_all_the_same(
    workers: WorkerHarness, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_heartbeat, begun, go_on = worker_registry.record_heartbeat, threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> None:
        begun.set()
        go_on.wait()
        record_heartbeat(*arguments)

    monkeypatch.setattr(worker_registry, "record_heartbeat", slowly)
    supervisor._poller.start()
    begun.wait()
    closing = threading.Thread(target=supervisor.close)
    closing.start()
    wait_until(lambda: any(thread.name == "deregister" for thread in threading.enumerate()), "its deregistration")
    go_on.set()
    closing.join()
    assert listed(workers) == []


def test_a_silent_database_does_not_keep_a_worker_from_leaving(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(worker_registry, "deregister", lambda *_: answers.wait())
    monkeypatch.setattr(module, "DEREGISTER_TIMEOUT_S", 0.1)
    began = time.monotonic()
    supervisor.close()
    assert time.monotonic() - began < 5
    answers.set()


def test_a_worker_does_not_leave_while_a_child_begins(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would end that child: Python's own exit, which did not know of it yet, hung."""
    begun, go_on, made = threading.Event(), threading.Event(), []

    def start() -> ChildProcess:
        begun.set()
        go_on.wait()
        made.append(ChildProcess())
        return made[0]

    monkeypatch.setattr(supervisor._children, "_start_child", start)
    threading.Thread(target=supervisor._children.restock).start()
    begun.wait()
    closing = threading.Thread(target=supervisor.close)
    closing.start()
    closing.join(0.5)
    assert closing.is_alive()
    go_on.set()
    closing.join()
    assert not made[0].alive


def test_an_idle_worker_polls_while_the_database_is_away(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is healthy, which the poll shows: the heartbeat beats once there is a child."""
    polls: list[None] = []

    def away(*_: Any) -> None:
        raise OperationalError("", {}, ConnectionError("refused"))

    monkeypatch.setattr(worker_registry, "record_heartbeat", away)
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

    def claim_late(*arguments: Any, **more: Any) -> Any:
        os.kill(child.pid, signal.SIGKILL)
        wait_until(lambda: not child.alive, "its end")
        return claim(*arguments, **more)

    monkeypatch.setattr(leases, "claim", claim_late)
    assert not supervisor._run_next_job()  # another one would die as well, perhaps
    job = workers.job(job_id)
    assert (job.status, job.deaths) == ("queued", 0)
    assert "worker lost" not in " ".join(str(event.data.get("reason")) for event in workers.log(job_id))


@pytest.mark.slow
def test_children_that_always_die_before_their_command_fail_the_job_in_the_end(
    workers: WorkerHarness, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, send = workers.submit(), ChildProcess.send

    def send_late(child: ChildProcess, order: Any) -> None:
        os.kill(child.pid, signal.SIGKILL)
        wait_until(lambda: not child.alive, "its end")
        send(child, order)

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
