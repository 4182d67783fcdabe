"""Children that train several jobs: they die and hang between two of them, and end with their worker."""

from __future__ import annotations

import json

import pytest

from service.states import Status
from tests.faults.harness import FaultHarness, all_exited
from tests.faults.invariants import Reference
from tests.waiting import wait_until
from tests.workers.conftest import children_of

pytestmark = pytest.mark.timeout(400)

PLACES_BETWEEN_JOBS = ["succeeded", "cleaned", "reported", "commanded"]
"""Every failpoint between the end of one job and the beginning of the next."""


def training_pids(harness: FaultHarness) -> list[int]:
    """The process id of the child of each training, in order."""
    lines = (harness.home / "workers.log").read_text().splitlines()
    return [json.loads(line)["child"] for line in lines if '"child":' in line]


@pytest.mark.nightly
def test_a_child_that_dies_between_two_jobs_affects_neither(harness: FaultHarness, reference: Reference) -> None:
    """F31, at each point in turn. Only a child that has trained reaches them, except for ``commanded``."""
    harness.start()
    for place in PLACES_BETWEEN_JOBS:
        harness.until_end(harness.submit())
        harness.arm(place)
        first, second = harness.submit(), harness.submit()
        child = harness.until_reached(place)
        for job_id in (first, second):
            assert harness.until_end(job_id).status == Status.SUCCEEDED
        assert all_exited([child])
    assert harness.worker_losses() == 0
    pids = training_pids(harness)
    assert len(set(pids)) < len(pids), "children are used again"
    harness.check(reference)


@pytest.mark.nightly
def test_a_child_that_hangs_after_the_end_of_its_job_is_replaced(
    sqlite_harness: FaultHarness, reference: Reference
) -> None:
    """F31, F22."""
    sqlite_harness.submit()
    sqlite_harness.arm("cleaned", "hang")
    sqlite_harness.start()
    child = sqlite_harness.until_reached("cleaned")
    sqlite_harness.until_end(sqlite_harness.submit())
    assert all_exited([child])
    assert sqlite_harness.worker_losses() == 0
    sqlite_harness.check(reference)


@pytest.mark.nightly
def test_a_stopping_worker_ends_its_idle_children(sqlite_harness: FaultHarness, reference: Reference) -> None:
    """F31, F05: those that have trained, and the spare one."""
    for _ in range(4):
        sqlite_harness.submit()
    worker = sqlite_harness.start(TAPELINE_WORKERS="2")
    sqlite_harness.until_all_end()
    wait_until(lambda: len(children_of(worker.pid)) >= 2, "those that have trained, or the spare one")
    pids = children_of(worker.pid)
    worker.terminate()
    assert worker.wait(20) == 0
    wait_until(lambda: all_exited(pids), "the end of all children")
    sqlite_harness.check(reference)


@pytest.mark.nightly
def test_children_that_are_idle_for_long_are_ended_except_for_one(sqlite_harness: FaultHarness) -> None:
    sqlite_harness.patch("from workers.supervisor import child_pool\nchild_pool.MAX_IDLE_S = 1.0\n")
    for _ in range(4):
        sqlite_harness.submit()
    worker = sqlite_harness.start(TAPELINE_WORKERS="2")
    sqlite_harness.until_all_end()
    wait_until(lambda: len(children_of(worker.pid)) == 1, "the end of all but one")
    sqlite_harness.until_end(sqlite_harness.submit())
