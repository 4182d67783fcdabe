"""Children that train several jobs are killed, stopped and drained at every point between two of them."""

from __future__ import annotations

import json
import os
import signal

import pytest

from service.states import Status
from tests.faults.harness import FaultHarness, all_gone, wait_until
from tests.faults.invariants import Reference
from tests.workers.conftest import children_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

BETWEEN = ["succeeded", "cleaned", "reported", "commanded"]
"""Every point between the end of one job and the beginning of the next, at which a child may die."""


def children(harness: FaultHarness) -> list[int]:
    """The process of each training, in order."""
    lines = (harness.home / "workers.log").read_text().splitlines()
    return [json.loads(line)["child"] for line in lines if '"child":' in line]


def test_a_child_that_dies_between_two_jobs_affects_neither(harness: FaultHarness, reference: Reference) -> None:
    """F31: each point in turn. Only a child that has trained comes by, except for ``commanded``."""
    harness.start()
    for place in BETWEEN:
        harness.until_end(harness.submit())
        harness.arm(place)
        first, second = harness.submit(), harness.submit()
        struck = harness.until_struck(place)
        for job_id in (first, second):
            assert harness.until_end(job_id).status == Status.SUCCEEDED
        assert all_gone([struck])
    assert harness.deaths() == 0
    pids = children(harness)
    assert len(set(pids)) < len(pids), "children are used again"
    harness.check(reference)


def test_a_child_that_dies_in_its_second_job_costs_that_job_one_attempt(
    harness: FaultHarness, reference: Reference
) -> None:
    """F31: a crash costs one job."""
    harness.submit()
    worker = harness.start()
    first = harness.until_end(harness.accepted[0])
    harness.arm("batch_done.2")
    second, third = harness.submit(), harness.submit()
    struck = harness.until_struck("batch_done.2")
    assert children(harness)[:2] == [struck, struck]
    harness.until_all_end()
    assert worker.poll() is None
    assert [harness.job(job_id).attempt for job_id in (first.id, second, third)] == [1, 2, 1]
    assert harness.deaths() == 1
    harness.check(reference)


@pytest.mark.parametrize("place", BETWEEN)
def test_a_worker_killed_with_a_child_between_two_jobs_is_replaced(
    harness: FaultHarness, reference: Reference, place: str
) -> None:
    """F31, F02: worker and children are killed; a frozen child cannot outlive it."""
    harness.submit()
    worker = harness.start()
    harness.until_end(harness.accepted[0])
    harness.arm(place, "stop")
    harness.submit()
    harness.submit()
    struck = harness.until_struck(place)
    pids = [*children_of(worker.pid), struck]
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    wait_until(lambda: all_gone(pids), "the end of all children", 10)
    harness.start("workers.reconcile")
    harness.start()
    harness.until_all_end()
    harness.check(reference)


def test_a_child_that_hangs_after_the_end_of_its_job_is_replaced(light: FaultHarness, reference: Reference) -> None:
    """F31, F22."""
    light.submit()
    light.arm("cleaned", "hang")
    light.start()
    struck = light.until_struck("cleaned")
    light.until_end(light.submit())
    assert all_gone([struck])
    assert light.deaths() == 0
    light.check(reference)


def test_a_worker_that_stops_ends_the_children_that_wait(light: FaultHarness, reference: Reference) -> None:
    """F31, F05: those that have trained, and the spare one."""
    for _ in range(4):
        light.submit()
    worker = light.start(TAPELINE_WORKERS="2")
    light.until_all_end()
    wait_until(lambda: len(children_of(worker.pid)) >= 2, "those that have trained, or the spare one")
    pids = children_of(worker.pid)
    worker.terminate()
    assert worker.wait(20) == 0
    wait_until(lambda: all_gone(pids), "the end of all children", 30)
    light.check(reference)


def test_children_that_wait_for_long_are_ended_but_for_one(light: FaultHarness) -> None:
    light.patch("from workers.supervisor import child_pool\nchild_pool.MAX_IDLE_S = 6.0\n")
    for _ in range(4):
        light.submit()
    worker = light.start(TAPELINE_WORKERS="2")
    light.until_all_end()
    wait_until(lambda: len(children_of(worker.pid)) == 1, "the end of all but one", 30)
    light.until_end(light.submit())
