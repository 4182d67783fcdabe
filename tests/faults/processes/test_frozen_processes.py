"""Workers and their children stand still while they train, and some come back once another one has their job."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.faults.harness import FaultHarness, all_gone, wait_until
from tests.faults.invariants import Reference
from tests.workers.conftest import children_of, parent_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel tells of a parent's death")
@pytest.mark.parametrize("frozen", ["child", "both", "adopted"])
def test_frozen_processes_do_not_outlive_a_worker_that_was_killed(light: FaultHarness, frozen: str) -> None:
    """F02: they cannot read from the pipe that tells the others."""
    light.submit()
    light.arm("epoch_committed.1", "hang" if frozen == "adopted" else "stop")
    worker = light.start()
    child = light.until_struck("epoch_committed.1")
    forking = parent_of(child)
    spare = children_of(worker.pid)
    if frozen == "both":
        os.kill(forking, signal.SIGSTOP)
    if frozen == "adopted":
        os.kill(forking, signal.SIGKILL)
        wait_until(lambda: parent_of(child) == worker.pid, "its adoption")
        os.kill(child, signal.SIGSTOP)
    worker.kill()
    worker.wait()
    wait_until(lambda: all_gone([child, forking, *spare]), "the end of all processes", 10)
    light.start("workers.reconcile")
    light.start()
    light.until_all_end()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children are not forked")
def test_a_frozen_child_is_ended_though_the_process_that_forked_it_is_gone(
    harness: FaultHarness, reference: Reference
) -> None:
    """I8: a worker that leaves takes it along, and another one does its job."""
    harness.submit()
    harness.arm("epoch_committed.1", "hang")
    worker = harness.start(TAPELINE_WORKERS="2")
    child = harness.until_struck("epoch_committed.1")
    forking = parent_of(child)
    os.kill(forking, signal.SIGKILL)
    wait_until(lambda: parent_of(child) == worker.pid, "its adoption")
    os.kill(child, signal.SIGSTOP)  # only now: its parent's death would wake it
    harness.until_end(harness.submit())  # by a child that waited: another one need not be forked
    worker.terminate()
    worker.wait(60)
    wait_until(lambda: all_gone([child]), "the end of the frozen child", 5)
    harness.start()
    harness.until_all_end()
    assert harness.deaths() == 0
    harness.check(reference)


def freeze(harness: FaultHarness, reference: Reference, place: str) -> None:
    """A worker stands still at some point, and comes back once somebody else has done its job."""
    job_id = harness.submit()
    harness.arm(place, "stop")
    worker = harness.start()
    child = harness.until_struck(place)
    while not harness.freeze(worker) and child == worker.pid:  # it has locked the database elsewhere, and went on
        worker.send_signal(signal.SIGCONT)
        harness.until_end(job_id)
        harness.arm(place, "stop")
        job_id = harness.submit()
        child = harness.until_struck(place)
    harness.start("workers.reconcile")
    harness.start()
    harness.until_end(job_id)
    before = [(event.seq, event.type) for event in harness.log(job_id)]
    os.kill(child, signal.SIGCONT)
    os.kill(worker.pid, signal.SIGCONT)
    if child != worker.pid:
        wait_until(lambda: all_gone([child]), "the frozen child's end", 20)
    harness.submit()  # it works as before
    harness.until_all_end()
    assert [(event.seq, event.type) for event in harness.log(job_id)] == before, "F04: the frozen worker wrote"
    assert harness.job(job_id).lease == 2
    harness.check(reference)


@pytest.mark.parametrize("place", ["claimed", "began", "files_stored.2", "epoch_committed.3"])
def test_a_worker_that_was_frozen_longer_than_its_lease_changes_nothing(
    harness: FaultHarness, reference: Reference, place: str
) -> None:
    """F04: after the claim, before an epoch's commit, and before the end's."""
    freeze(harness, reference, place)


UNFENCED = """
from service.jobs import leases
from service.errors import LeaseLost
from service.storage.tables import Job

def unfenced(session, held, **values):
    job = session.get(Job, held.job_id)
    if job is None:  # a child warms up with a job that does not exist
        raise LeaseLost(held.job_id, held.lease)
    for name, value in values.items():
        setattr(job, name, value)
    job.lease_expires_ms = leases._expiry(held.lease_s)
    return job

leases.guard = unfenced
leases.requested = lambda database, held: None
"""


def test_without_the_fence_the_frozen_worker_is_found_out(light: FaultHarness, reference: Reference) -> None:
    """F04 once more, the fence switched off: it must turn red."""
    light.patch(UNFENCED)
    with pytest.raises(AssertionError, match=r"F04|end"):
        freeze(light, reference, "files_stored.2")


def test_a_child_that_hangs_is_ended_though_its_worker_renews_the_lease(
    light: FaultHarness, reference: Reference
) -> None:
    """F22: with a deadline of two seconds instead of two minutes."""
    light.patch("from workers.supervisor import job_monitor\njob_monitor.BATCH_DEADLINE_S = 2.0\n")
    light.submit()
    light.arm("batch_done.2", "hang")
    light.start("workers.reconcile")
    light.start()
    child = light.until_struck("batch_done.2")
    light.until_all_end()
    assert all_gone([child])
    assert light.deaths() == 1
    light.check(reference)
