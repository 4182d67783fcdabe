"""Workers are killed, drained, starved and duplicated while they train."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from service.jobs import actions
from service.jobs.queries import lookup
from service.states import Status
from tests.faults.harness import FaultHarness, all_gone, kill_group, open_harness, wait_until
from tests.faults.invariants import Reference
from tests.workers.conftest import children_of, parent_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

BEFORE_THE_COMMIT = [
    ["began", "restored", "batch_done"],
    ["epoch_trained", "file_written.checkpoint", "file_renamed.sample"],
    ["files_stored", "epoch_committing", "file_renamed.checkpoint"],
]


def test_children_killed_at_every_point_of_every_epoch_cost_no_bit(harness: FaultHarness, reference: Reference) -> None:
    """F01. Each kill before an epoch's commit is followed by one right after it: three in a row would be poison."""
    points = []
    for places in BEFORE_THE_COMMIT:
        harness.submit()
        for epoch, place in enumerate(places, 1):
            in_epoch = place in ("batch_done", "epoch_trained", "files_stored", "epoch_committing")
            points += [f"{place}.{epoch}" if in_epoch else place, f"epoch_committed.{epoch}"]
        points.append("succeeding")
    harness.arm(points[0], "stop")
    harness.start()
    for point, following in itertools.zip_longest(points, points[1:]):
        harness.kill_at(point, then=following)
    harness.until_all_end()
    assert harness.deaths() == len(points) == 21
    harness.check(reference)


def test_a_child_killed_before_the_commit_of_the_epoch_before_trains_that_again(
    harness: FaultHarness, reference: Reference
) -> None:
    """F01, where two epochs are under way."""
    job_id = harness.submit()
    harness.arm("files_stored.1", "wait")
    harness.arm("overlapping.2")
    harness.start()
    harness.until_struck("overlapping.2")
    harness.until_all_end()
    with harness.database.read() as session:
        assert [row.lease for row in lookup.epochs(session, job_id)] == [2, 2, 2]
    assert harness.deaths() == 1
    harness.check(reference)


@pytest.mark.parametrize("place", ["claimed", "succeeded"])
def test_a_worker_killed_there_is_replaced_by_another(harness: FaultHarness, reference: Reference, place: str) -> None:
    """F02."""
    harness.submit()
    harness.arm(place)
    worker = harness.start()
    pid = harness.until_struck(place)
    children = [pid, *children_of(worker.pid)]
    kill_group(worker)
    wait_until(lambda: all_gone(children), "the end of all children", 5)
    harness.start("workers.reconcile")
    harness.start()
    harness.until_all_end()
    assert harness.job(harness.accepted[0]).lease == (2 if place == "claimed" else 1)
    harness.check(reference)


def test_a_worker_killed_alone_takes_its_children_along(harness: FaultHarness, reference: Reference) -> None:
    """F02: nobody but the pipe tells them."""
    harness.submit(epochs=400)
    worker = harness.start()
    harness.until(harness.accepted[0], lambda job: job.epoch >= 1)
    children = children_of(worker.pid)
    assert children
    worker.kill()
    worker.wait()
    wait_until(lambda: all_gone(children), "the end of all children", 5)
    last = harness.job(harness.accepted[0]).epoch
    harness.start("workers.reconcile")
    harness.start()
    harness.until(harness.accepted[0], lambda job: job.epoch > last)
    actions.cancel(harness.database, harness.accepted[0])
    harness.submit()
    harness.until_all_end()
    harness.check(None)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children are not forked")
def test_without_the_forking_process_a_job_continues_and_the_next_starts(
    harness: FaultHarness, reference: Reference
) -> None:
    """Whoever runs out of memory may kill it, too."""
    harness.submit()
    harness.submit()
    harness.arm("epoch_committed.1", "stop")
    worker = harness.start()
    child = harness.until_struck("epoch_committed.1")
    (forking,) = {parent_of(pid) for pid in children_of(worker.pid)}
    os.kill(forking, signal.SIGKILL)
    wait_until(lambda: all_gone([forking]), "the kill")
    harness.until_all_end()  # that death has woken the child
    assert harness.job(harness.accepted[0]).lease == 1
    assert not all_gone([child]), "it waits for another job"
    assert harness.deaths() == 0
    harness.check(reference)


def test_a_power_cut_of_all_workers_with_jobs_under_way(harness: FaultHarness, reference: Reference) -> None:
    """F03."""
    for _ in range(4):
        harness.submit()
    workers = [harness.start() for _ in range(2)]
    harness.until(harness.accepted[0], lambda job: job.epoch >= 1)
    for worker in workers:
        kill_group(worker)
    harness.start("workers.reconcile")
    for _ in range(2):
        harness.start()
    harness.until_all_end()
    harness.check(reference)


@pytest.mark.parametrize("place", ["handing_back", "handed_back"])
def test_a_drain_that_is_cut_short_loses_nothing(harness: FaultHarness, reference: Reference, place: str) -> None:
    """F06: SIGTERM, and the child dies while it hands back."""
    job_id = harness.submit(epochs=3)
    harness.arm("epoch_trained.2", "stop")
    worker = harness.start()
    child = harness.until_struck("epoch_trained.2")
    harness.arm(place)
    worker.send_signal(signal.SIGTERM)
    time.sleep(2)  # the order to stop is in the pipe by then
    os.kill(child, signal.SIGCONT)
    harness.until_struck(place)
    assert worker.wait(20) == 0
    assert harness.job(job_id).status == Status.QUEUED
    harness.start()
    harness.until_all_end()
    harness.check(reference)


def test_a_child_that_has_just_ended_its_job_does_not_count_as_lost(light: FaultHarness) -> None:
    """Its worker looks after the commit, and before it has told."""
    light.patch("from workers.supervisor import job_monitor\njob_monitor.FINAL_REPORT_S = 30.0\n")
    light.submit()
    light.arm("succeeded", "stop")
    light.start()
    child = light.until_struck("succeeded")
    time.sleep(1)  # four looks
    os.kill(child, signal.SIGCONT)
    wait_until(lambda: '"outcome": "succeeded"' in light.logs(), "the child's report")
    assert "the lease is lost" not in light.logs()


FAILING_MONITOR = """
from workers.supervisor.job_monitor import JobMonitor
real = JobMonitor.run

def fail(self):
    JobMonitor.run = real
    raise RuntimeError("can't start new thread")

JobMonitor.run = fail
"""


def test_a_job_whose_monitor_fails_is_released_and_does_not_count_as_a_loss(
    light: FaultHarness, reference: Reference
) -> None:
    light.patch(FAILING_MONITOR)
    job_id = light.submit()
    light.start()
    light.until_all_end()
    assert light.deaths() == 0
    assert light.job(job_id).lease == 2
    light.check(reference)


def test_copies_of_a_running_service_taken_at_any_moment_go_on_to_the_same_end(
    light: FaultHarness, reference: Reference, tmp_path: Path
) -> None:
    """F20, a power cut approximated: all processes stand still, the disk is copied, and the copy is started."""
    light.submit()
    places = ("file_written.checkpoint", "epoch_committing.2", "epoch_committed.3")
    copies = []
    for place in places:
        light.arm(place, "stop")
    worker = light.start()
    for number, place in enumerate(places):
        child = light.until_struck(place)
        os.kill(worker.pid, signal.SIGSTOP)
        copy = tmp_path / f"copy-{number}"
        copy.mkdir()
        shutil.copytree(light.home, copy / "home")
        for path in tmp_path.glob("tapeline.db*"):
            shutil.copy(path, copy / path.name)
        copies.append(copy)
        os.kill(child, signal.SIGCONT)
        os.kill(worker.pid, signal.SIGCONT)
    light.until_all_end()
    light.check(reference)
    for copy in copies:
        second = open_harness(copy / "home", f"sqlite:///{copy / 'tapeline.db'}")
        second.accepted = list(light.accepted)
        second.start("workers.reconcile")
        second.start()
        second.until_all_end()
        second.check(reference)
        second.database.close()


def test_a_job_that_kills_its_workers_is_given_up_and_the_next_one_runs(
    harness: FaultHarness, reference: Reference
) -> None:
    """F21: as the kernel kills a process for its memory; the supervisor lives on."""
    poison = harness.submit()
    harness.arm("epoch_trained.2", "stop")
    worker = harness.start()
    for following in ("epoch_trained.2", "epoch_trained.2", None):
        harness.kill_at("epoch_trained.2", then=following)
    job = harness.until_end(poison)
    assert job.error is not None
    assert (job.status, job.error["code"], job.epoch) == (Status.FAILED, "worker_lost", 1)
    assert worker.poll() is None
    harness.submit()
    harness.until_all_end()
    actions.retry(harness.database, poison)  # nobody kills it any more
    harness.until(poison, lambda job: job.status == Status.SUCCEEDED, 60)
    harness.check(reference)


@pytest.mark.parametrize("hours", [1, -1])
def test_an_hour_on_the_clock_of_one_worker_and_the_scheduler_decides_nothing(
    harness: FaultHarness, reference: Reference, hours: int
) -> None:
    """F25: no early rescue, no lease that stands for ever, no file mistaken for an old one."""
    harness.lease_s = 15  # a worker that gets no processor for two seconds would fence its own child: no death
    for _ in range(3):
        harness.submit()
    harness.arm("batch_done.2", "kill")
    shifted = f"import time\nreal = time.time\ntime.time = lambda: real() + {3600 * hours}\n"
    right = harness.start()
    harness.patch(shifted)
    harness.start("workers.reconcile")
    harness.start()
    harness.until_struck("batch_done.2")
    harness.until_all_end()
    assert right.poll() is None
    assert harness.deaths() == 1, harness.logs()
    harness.check(reference)


def test_two_schedulers_and_many_workers_claim_each_job_once(harness: FaultHarness) -> None:
    """F26."""
    harness.lease_s = 15  # what is slow here is no death
    tiny = {"epochs": 1, "batch_size": 400, "layers": [{"units": 10, "activation": "softmax"}]}
    for _ in range(24):
        harness.submit(**tiny)
    for _ in range(2):
        harness.start("workers.reconcile")
    for _ in range(3):
        harness.start(TAPELINE_WORKERS="2")
    harness.until_all_end(200)
    assert [harness.job(job_id).lease for job_id in harness.accepted] == [1] * 24
    harness.check(Reference.of(harness.database, harness.accepted[0]))


def test_another_kind_of_processor_is_put_on_record(light: FaultHarness) -> None:
    """F27."""
    job_id = light.submit()
    light.arm("epoch_trained.2", "stop")
    worker = light.start()
    light.until_struck("epoch_trained.2")
    kill_group(worker)
    jobs_before = light.job(job_id)
    assert jobs_before.provenance is not None
    other = "Nehalem" if "Nehalem" not in str(jobs_before.provenance["blas"]) else "Sandybridge"
    light.start("workers.reconcile")
    light.start(OPENBLAS_CORETYPE=other)
    light.until_end(job_id)
    if light.job(job_id).provenance == jobs_before.provenance:
        pytest.skip("this BLAS cannot be made to take another processor's kernels")
    codes = [event.data["code"] for event in light.log(job_id) if event.type == "log"]
    assert codes[0] == "mixed_provenance"
