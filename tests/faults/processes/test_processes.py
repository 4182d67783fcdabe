"""Workers are killed, drained, starved and duplicated while they train."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest

from service.jobs import actions
from service.jobs.queries import lookup
from service.states import Status
from tests.faults.harness import COMMITS_EACH_EPOCH, LONG_LEASE_S, FaultHarness, all_exited, open_harness
from tests.faults.invariants import Reference
from tests.waiting import wait_until
from tests.workers.conftest import children_of, kill_groups, parent_of

pytestmark = pytest.mark.timeout(400)

PLACES_BEFORE_COMMIT = [
    ["began", "restored", "batch_done"],
    ["epoch_trained", "file_written.checkpoint", "file_renamed.sample"],
    ["files_stored", "handed_over", "file_renamed.checkpoint"],
]


@pytest.mark.nightly  # test_kill_points.py kills at each failpoint
def test_children_killed_at_21_points_do_not_change_the_results(harness: FaultHarness, reference: Reference) -> None:
    """F01. Each kill before an epoch's commit is followed by one right after it: three losses without a new
    epoch would fail the job."""
    harness.extra_environ |= COMMITS_EACH_EPOCH
    points = []
    for places in PLACES_BEFORE_COMMIT:
        harness.submit()
        for epoch, place in enumerate(places, 1):
            in_epoch = place in ("batch_done", "epoch_trained", "files_stored", "handed_over")
            points += [f"{place}.{epoch}" if in_epoch else place, f"epoch_committed.{epoch}"]
        points.append("tested")
    harness.arm(points[0], "stop")
    harness.start()
    for point, following in itertools.zip_longest(points, points[1:]):
        harness.kill_at(point, arm_next=following)
    harness.until_all_end()
    assert harness.worker_losses() == len(points) == 21
    harness.check(reference)


@pytest.mark.stack
def test_a_child_killed_during_a_pending_commit_trains_both_epochs_again(
    harness: FaultHarness, reference: Reference
) -> None:
    """F01, while one epoch is committed and the next one is trained."""
    job_id = harness.submit()
    harness.arm("files_stored.1", "wait its_death")  # which ends the wait
    harness.arm("overlapping.2", "note")
    harness.start()
    child = harness.until_reached("overlapping.2")
    assert harness.until_reached("files_stored.1") == child
    os.kill(child, signal.SIGKILL)
    harness.until_all_end()
    with harness.database.read() as session:
        assert [row.lease for row in lookup.epochs(session, job_id)] == [2, 2, 2]
    assert harness.worker_losses() == 1
    harness.check(reference)


@pytest.mark.stack
@pytest.mark.parametrize(
    "place",
    [
        "epoch_committing.2",
        # tests/simulation kills at all of them, without processes
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("claimed", "succeeding", "succeeded")),
    ],
)
def test_a_worker_killed_at_a_claim_a_commit_or_an_end_is_replaced(
    harness: FaultHarness, reference: Reference, place: str
) -> None:
    """F02: after a claim, inside the transaction of an epoch, inside and after that of the end."""
    harness.submit()
    harness.arm(place)
    worker = harness.start()
    pid = harness.until_reached(place)
    children = [pid, *children_of(worker.pid)]
    kill_groups([worker])
    wait_until(lambda: all_exited(children), "the end of all children")
    harness.start("workers.scheduler")
    harness.start()
    harness.until_all_end()
    assert harness.job(harness.accepted[0]).lease == (1 if place == "succeeded" else 2)
    harness.check(reference)


@pytest.mark.nightly
def test_children_exit_when_only_their_worker_is_killed(harness: FaultHarness, reference: Reference) -> None:
    """F02: they notice only by the closed pipe."""
    harness.submit(epochs=10_000)
    worker = harness.start()
    harness.until(harness.accepted[0], lambda job: job.epoch >= 1)
    children = children_of(worker.pid)
    assert children
    worker.kill()
    worker.wait()
    wait_until(lambda: all_exited(children), "the end of all children")
    last = harness.job(harness.accepted[0]).epoch
    assert last < 10_000, "it trained to the end"
    harness.start("workers.scheduler")
    harness.start()
    harness.until(harness.accepted[0], lambda job: job.epoch > last)
    actions.cancel(harness.database, harness.accepted[0])
    harness.submit()
    harness.until_all_end()
    harness.check(None)


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children are not forked")
def test_without_the_fork_server_a_job_continues_and_the_next_starts(
    harness: FaultHarness, reference: Reference
) -> None:
    """The kernel may kill it when memory runs out."""
    harness.lease_s = LONG_LEASE_S
    harness.submit()
    harness.submit()
    harness.arm("epoch_committed.1", "stop")
    worker = harness.start()
    child = harness.until_reached("epoch_committed.1")
    (fork_server,) = {parent_of(pid) for pid in children_of(worker.pid)}
    os.kill(fork_server, signal.SIGKILL)
    wait_until(lambda: all_exited([fork_server]), "the kill")
    harness.until_all_end()  # the death of its parent has woken the child
    assert harness.job(harness.accepted[0]).lease == 1
    assert not all_exited([child]), "it waits for another job"
    assert harness.worker_losses() == 0
    harness.check(reference)


@pytest.mark.nightly
def test_running_jobs_survive_a_power_cut_of_all_workers(harness: FaultHarness, reference: Reference) -> None:
    """F03."""
    for _ in range(4):
        harness.submit()
    workers = [harness.start() for _ in range(2)]
    harness.until(harness.accepted[0], lambda job: job.epoch >= 1)
    for worker in workers:
        kill_groups([worker])
    harness.start("workers.scheduler")
    for _ in range(2):
        harness.start()
    harness.until_all_end()
    harness.check(reference)


@pytest.mark.nightly
@pytest.mark.parametrize("place", ["releasing", pytest.param("released", marks=pytest.mark.nightly)])
def test_an_interrupted_drain_loses_nothing(harness: FaultHarness, reference: Reference, place: str) -> None:
    """F06: after SIGTERM, the worker dies while it releases its job, or the child after that."""
    job_id = harness.submit(epochs=3)
    harness.add_failpoint("sent", "workers.supervisor.child_process:ChildProcess.send", after=True)
    harness.arm("epoch_trained.1", "stop")
    worker = harness.start()
    child = harness.until_reached("epoch_trained.1")
    harness.arm(place)
    harness.arm("sent.Stop", "note")
    worker.send_signal(signal.SIGTERM)
    harness.until_reached("sent.Stop")
    os.kill(child, signal.SIGCONT)
    harness.until_reached(place)
    has_released = place == "released"
    assert worker.wait(20) == (0 if has_released else -signal.SIGKILL)
    assert harness.job(job_id).status == (Status.QUEUED if has_released else Status.RUNNING)
    harness.start("workers.scheduler")
    harness.start()
    harness.until_all_end()
    harness.check(reference)


@pytest.mark.nightly
def test_a_child_that_has_just_ended_its_job_does_not_count_as_lost(sqlite_harness: FaultHarness) -> None:
    """Its worker checks the lease after the commit, but before the child has reported it."""
    sqlite_harness.add_failpoint("refused", "workers.supervisor.job_monitor:JobMonitor._await_final_report")
    sqlite_harness.patch("from workers.supervisor import job_monitor\njob_monitor.FINAL_REPORT_S = 600.0\n")
    sqlite_harness.arm("refused", "note")
    sqlite_harness.submit()
    sqlite_harness.arm("succeeded", "stop")
    sqlite_harness.start()
    child = sqlite_harness.until_reached("succeeded")
    sqlite_harness.until_reached("refused")
    os.kill(child, signal.SIGCONT)
    wait_until(lambda: '"outcome": "succeeded"' in sqlite_harness.logs(), "the child's report")
    assert "the lease is lost" not in sqlite_harness.logs()


FAILING_MONITOR = """
from workers.supervisor.job_monitor import JobMonitor
real = JobMonitor.run

def fail(self):
    JobMonitor.run = real
    raise RuntimeError("can't start new thread")

JobMonitor.run = fail
"""


@pytest.mark.nightly
def test_a_job_whose_monitor_fails_is_released_without_a_worker_loss(
    sqlite_harness: FaultHarness, reference: Reference
) -> None:
    sqlite_harness.lease_s = LONG_LEASE_S
    sqlite_harness.patch(FAILING_MONITOR)
    job_id = sqlite_harness.submit()
    sqlite_harness.start()
    sqlite_harness.until_all_end()
    assert sqlite_harness.worker_losses() == 0
    assert sqlite_harness.job(job_id).lease == 2
    sqlite_harness.check(reference)


@pytest.mark.nightly
def test_copies_of_a_running_service_continue_to_the_same_results(
    sqlite_harness: FaultHarness, reference: Reference, tmp_path: Path
) -> None:
    """F20, a power cut approximated: all processes are frozen, the disk is copied, the copy is started."""
    sqlite_harness.submit()
    places = ("file_written.checkpoint", "epoch_committing.2", "epoch_committed.3")
    copies = []
    for place in places:
        sqlite_harness.arm(place, "stop")
    worker = sqlite_harness.start()
    for number, place in enumerate(places):
        child = sqlite_harness.until_reached(place)
        os.kill(worker.pid, signal.SIGSTOP)
        copy = tmp_path / f"copy-{number}"
        copy.mkdir()
        shutil.copytree(sqlite_harness.home, copy / "home")
        for path in tmp_path.glob("tapeline.db*"):
            shutil.copy(path, copy / path.name)
        copies.append(copy)
        os.kill(child, signal.SIGCONT)
        os.kill(worker.pid, signal.SIGCONT)
    sqlite_harness.until_all_end()
    sqlite_harness.check(reference)
    for copy in copies:
        with closing(open_harness(copy / "home", f"sqlite:///{copy / 'tapeline.db'}")) as copied:
            copied.accepted = list(sqlite_harness.accepted)
            copied.start("workers.scheduler")
            copied.start()
            copied.until_all_end()
            copied.check(reference)


@pytest.mark.nightly
def test_a_job_that_kills_its_workers_fails_and_the_next_one_runs(harness: FaultHarness, reference: Reference) -> None:
    """F21: killed as by the kernel when memory runs out; the supervisor survives."""
    harness.extra_environ |= COMMITS_EACH_EPOCH
    poison = harness.submit()
    harness.arm("epoch_trained.2", "stop")
    worker = harness.start()
    for following in ("epoch_trained.2", "epoch_trained.2", None):
        harness.kill_at("epoch_trained.2", arm_next=following)
    job = harness.until_end(poison)
    assert job.error is not None
    assert (job.status, job.error["code"], job.epoch) == (Status.FAILED, "worker_lost", 1)
    assert worker.poll() is None
    harness.submit()
    harness.until_all_end()
    actions.retry(harness.database, poison)  # no failpoint is armed any more
    harness.until(poison, lambda job: job.status == Status.SUCCEEDED, 60)
    harness.check(reference)


@pytest.mark.nightly
@pytest.mark.parametrize("hours", [pytest.param(1, marks=pytest.mark.nightly), -1])
def test_clocks_of_a_worker_and_the_scheduler_off_by_an_hour_have_no_effect(
    harness: FaultHarness, reference: Reference, hours: int
) -> None:
    """F25: no early rescue, no lease that never expires, no file mistaken for an old one."""
    harness.lease_s = 15  # at 3 s, a worker without CPU time for two seconds would stop its own child
    for _ in range(3):
        harness.submit()
    harness.arm("batch_done.2", "kill")
    clock_patch = f"import time\nreal = time.time\ntime.time = lambda: real() + {3600 * hours}\n"
    unshifted = harness.start()
    harness.patch(clock_patch)
    harness.start("workers.scheduler")
    harness.start()
    harness.until_reached("batch_done.2")
    harness.until_all_end()
    assert unshifted.poll() is None
    assert harness.worker_losses() == 1
    harness.check(reference)


@pytest.mark.nightly  # tests/faults/concurrency/test_races.py
def test_two_schedulers_and_many_workers_claim_each_job_once(harness: FaultHarness) -> None:
    """F26."""
    harness.lease_s = LONG_LEASE_S
    tiny = {"epochs": 1, "batch_size": 400, "layers": [{"units": 10, "activation": "softmax"}]}
    for _ in range(24):
        harness.submit(**tiny)
    for _ in range(2):
        harness.start("workers.scheduler")
    for _ in range(3):
        harness.start(TAPELINE_WORKERS="2")
    harness.until_all_end(200)
    assert [harness.job(job_id).lease for job_id in harness.accepted] == [1] * 24
    harness.check(Reference.of(harness.database, harness.accepted[0]))


@pytest.mark.nightly
def test_a_job_resumed_on_another_cpu_type_logs_mixed_provenance(sqlite_harness: FaultHarness) -> None:
    """F27."""
    job_id = sqlite_harness.submit()
    sqlite_harness.arm("epoch_trained.2", "stop")
    worker = sqlite_harness.start()
    sqlite_harness.until_reached("epoch_trained.2")
    kill_groups([worker])
    interrupted = sqlite_harness.job(job_id)
    assert interrupted.provenance is not None
    other_cpu = "Nehalem" if "Nehalem" not in str(interrupted.provenance["blas"]) else "Sandybridge"
    sqlite_harness.start("workers.scheduler")
    sqlite_harness.start(OPENBLAS_CORETYPE=other_cpu)
    sqlite_harness.until_end(job_id)
    if sqlite_harness.job(job_id).provenance == interrupted.provenance:
        pytest.skip("this BLAS cannot be made to take another processor's kernels")
    codes = [event.data["code"] for event in sqlite_harness.log(job_id) if event.type == "log"]
    assert codes[0] == "mixed_provenance"
