"""An urgent job while workers are killed, and a budget that is spent while a job trains."""

from __future__ import annotations

import pytest

from service.jobs import actions, worker_registry
from service.jobs.request_bodies import JobPatch
from service.states import Status
from tests.faults.harness import LONG_LEASE_S, FaultHarness
from tests.faults.invariants import Reference
from tests.waiting import wait_until
from tests.workers.conftest import kill_groups

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(400)]


def reasons(harness: FaultHarness, job_id: str) -> list[str]:
    return [event.data["reason"] for event in harness.log(job_id) if event.type == "status"]


def check_results(harness: FaultHarness, reference: Reference) -> None:
    """Not the files, which have the spec in them, with priority and budget."""
    assert {harness.job(job_id).result_digest for job_id in harness.accepted} == {reference.result_digest}
    harness.check(None)


def test_the_slots_of_a_killed_worker_are_not_waited_for(harness: FaultHarness) -> None:
    """Nor are those of the worker that replaces it, and is killed, too."""
    harness.lease_s = LONG_LEASE_S
    harness.start("workers.scheduler")
    harness.start(TAPELINE_WORKERS="1", TAPELINE_WORKER_NAME="busy")
    for _ in range(2):
        idle = harness.start(TAPELINE_WORKERS="2", TAPELINE_WORKER_NAME="idle")
        wait_until(lambda pid=idle.pid: pid in live(harness), "its heartbeat")
        kill_groups([idle])
    harness.arm("batch_done.2", "wait urgent")
    victim = harness.submit(priority=3)
    harness.until_reached("batch_done.2")
    harness.submit(priority=9)
    harness.until(victim, lambda job: job.requested == "preempt")
    assert idle.pid in live(harness), "not because its row is old"
    harness.arm("urgent", "note")
    harness.until_all_end()
    harness.check(None)


def live(harness: FaultHarness) -> set[int]:
    """The processes of the workers whose rows are shown."""
    with harness.database.read() as session:
        return {worker.pid for worker in worker_registry.live_workers(session)}


def test_a_spent_budget_pauses_a_job_which_continues_with_a_larger_one(
    harness: FaultHarness, reference: Reference
) -> None:
    job_id = harness.submit(budget={"seconds": 0.001})
    harness.start()
    harness.until(job_id, lambda job: job.status == Status.PAUSED)
    job = harness.job(job_id)
    assert (job.epoch, reasons(harness, job_id)[-1]) == (0, "budget"), "it stops after its first batch"
    actions.change(harness.database, job_id, JobPatch(budget={"seconds": 1000}))
    actions.resume(harness.database, job_id)
    harness.until_all_end()
    check_results(harness, reference)
