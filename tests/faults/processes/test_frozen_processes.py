"""Workers and children are frozen while they train; some resume once another worker has their job."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.faults.harness import COMMITS_EACH_EPOCH, FaultHarness, all_exited
from tests.faults.invariants import Reference
from tests.waiting import wait_until
from tests.workers.conftest import children_of, parent_of

pytestmark = pytest.mark.timeout(400)


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel tells of a parent's death")
@pytest.mark.parametrize("frozen", ["adopted", "both"])
def test_frozen_processes_do_not_outlive_a_killed_worker(sqlite_harness: FaultHarness, frozen: str) -> None:
    """F02: they cannot read the closed pipe, by which running processes notice the worker's death."""
    sqlite_harness.extra_environ |= COMMITS_EACH_EPOCH
    sqlite_harness.submit()
    sqlite_harness.arm("epoch_committed.1", "hang" if frozen == "adopted" else "stop")
    worker = sqlite_harness.start()
    child = sqlite_harness.until_reached("epoch_committed.1")
    fork_server = parent_of(child)
    spare = children_of(worker.pid)
    if frozen == "both":
        os.kill(fork_server, signal.SIGSTOP)
    if frozen == "adopted":
        os.kill(fork_server, signal.SIGKILL)
        wait_until(lambda: parent_of(child) == worker.pid, "its adoption")
        os.kill(child, signal.SIGSTOP)
    worker.kill()
    worker.wait()
    wait_until(lambda: all_exited([child, fork_server, *spare]), "the end of all processes")
    sqlite_harness.start("workers.scheduler")
    sqlite_harness.start()
    sqlite_harness.until_all_end()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children are not forked")
@pytest.mark.nightly  # the cases above end one together with its fork server
def test_a_frozen_child_is_ended_even_without_the_fork_server(harness: FaultHarness, reference: Reference) -> None:
    """I8: a worker that exits ends the child, and another worker trains its job."""
    harness.extra_environ |= COMMITS_EACH_EPOCH
    harness.submit()
    harness.arm("epoch_committed.1", "hang")
    worker = harness.start(TAPELINE_WORKERS="2")
    child = harness.until_reached("epoch_committed.1")
    fork_server = parent_of(child)
    os.kill(fork_server, signal.SIGKILL)
    wait_until(lambda: parent_of(child) == worker.pid, "its adoption")
    os.kill(child, signal.SIGSTOP)  # only now: the death of its parent would wake it
    harness.until_end(harness.submit())  # by the spare child: no other one needs to be forked
    worker.terminate()
    worker.wait(60)
    wait_until(lambda: all_exited([child]), "the end of the frozen child")
    harness.start()
    harness.until_all_end()
    assert harness.worker_losses() == 0
    harness.check(reference)


@pytest.mark.stack
def test_a_worker_frozen_longer_than_its_lease_changes_nothing(harness: FaultHarness, reference: Reference) -> None:
    """F04: before the commit of an epoch. It resumes once another worker has trained its job."""
    harness.extra_environ |= COMMITS_EACH_EPOCH
    job_id = harness.submit()
    harness.arm("files_stored.2", "stop")
    worker = harness.start()
    child = harness.until_reached("files_stored.2")
    harness.freeze(worker)
    harness.start("workers.scheduler")
    harness.start()
    harness.until_end(job_id)
    events_before = [(event.seq, event.type) for event in harness.log(job_id)]
    os.kill(child, signal.SIGCONT)
    os.kill(worker.pid, signal.SIGCONT)
    wait_until(lambda: all_exited([child]), "the frozen child's end")
    harness.submit()  # the service works as before
    harness.until_all_end()
    assert [(event.seq, event.type) for event in harness.log(job_id)] == events_before, "F04: the frozen worker wrote"
    assert harness.job(job_id).lease == 2
    harness.check(reference)


@pytest.mark.nightly
def test_a_child_that_hangs_is_ended_although_its_worker_renews_the_lease(
    sqlite_harness: FaultHarness, reference: Reference
) -> None:
    """F22, with a deadline of two seconds instead of two minutes."""
    sqlite_harness.patch("from workers.supervisor import job_monitor\njob_monitor.BATCH_DEADLINE_S = 2.0\n")
    sqlite_harness.submit()
    sqlite_harness.arm("batch_done.2", "hang")
    sqlite_harness.start("workers.scheduler")
    sqlite_harness.start()
    child = sqlite_harness.until_reached("batch_done.2")
    sqlite_harness.until_all_end()
    assert all_exited([child])
    assert sqlite_harness.worker_losses() == 1
    sqlite_harness.check(reference)
