"""Workers, their children and the process that forks them are killed while they train. ``tests/simulation`` kills at
every point, without processes."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest

from service.jobs import actions
from service.jobs.queries import lookup
from tests.faults.harness import LONG_LEASE_S, FaultHarness, all_exited, open_harness
from tests.faults.invariants import Reference
from tests.waiting import wait_until
from tests.workers.conftest import children_of, kill_groups, parent_of

pytestmark = pytest.mark.timeout(400)


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
def test_a_worker_killed_inside_a_commit_is_replaced(harness: FaultHarness, reference: Reference) -> None:
    """F02: the server rolls back the transaction of an epoch."""
    harness.submit()
    harness.arm("epoch_committing.2")
    worker = harness.start()
    pid = harness.until_reached("epoch_committing.2")
    children = [pid, *children_of(worker.pid)]
    kill_groups([worker])
    wait_until(lambda: all_exited(children), "the end of all children")
    harness.start("workers.scheduler")
    harness.start()
    harness.until_all_end()
    assert harness.job(harness.accepted[0]).lease == 2
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
