"""Workers and children are frozen while they train; some resume once another worker has their job."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from service.maintenance import store_id
from service.states import TERMINAL, Status
from service.storage.stores import ArtifactFolder
from tests.faults.harness import COMMITS_EACH_EPOCH, LONG_LEASE_S, FaultHarness, all_exited
from tests.faults.invariants import Reference
from tests.restored import copied
from tests.waiting import wait_until
from tests.workers.conftest import children_of, parent_of

pytestmark = pytest.mark.timeout(400)


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel tells of a parent's death")
@pytest.mark.parametrize(
    "frozen", [*(pytest.param(name, marks=pytest.mark.nightly) for name in ("child", "adopted")), "both"]
)
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


def freeze_and_resume(harness: FaultHarness, reference: Reference, place: str) -> None:
    """Freeze a worker at ``place``, and resume it once another worker has trained its job."""
    harness.extra_environ |= COMMITS_EACH_EPOCH
    job_id = harness.submit()
    harness.arm(place, "stop")
    worker = harness.start()
    child = harness.until_reached(place)
    while not harness.freeze(worker) and child == worker.pid:  # it held a lock elsewhere, and ran on past the failpoint
        worker.send_signal(signal.SIGCONT)
        harness.until_end(job_id)
        harness.arm(place, "stop")
        job_id = harness.submit()
        child = harness.until_reached(place)
    harness.start("workers.scheduler")
    harness.start()
    harness.until_end(job_id)
    events_before = [(event.seq, event.type) for event in harness.log(job_id)]
    os.kill(child, signal.SIGCONT)
    os.kill(worker.pid, signal.SIGCONT)
    if child != worker.pid:
        wait_until(lambda: all_exited([child]), "the frozen child's end")
    harness.submit()  # the service works as before
    harness.until_all_end()
    assert [(event.seq, event.type) for event in harness.log(job_id)] == events_before, "F04: the frozen worker wrote"
    assert harness.job(job_id).lease == 2
    harness.check(reference)


@pytest.mark.stack
@pytest.mark.parametrize(
    "place",
    [
        pytest.param("claimed", marks=pytest.mark.nightly),
        pytest.param("began", marks=pytest.mark.nightly),
        "files_stored.2",
        pytest.param("epoch_committed.3", marks=pytest.mark.nightly),
    ],
)
def test_a_worker_frozen_longer_than_its_lease_changes_nothing(
    harness: FaultHarness, reference: Reference, place: str
) -> None:
    """F04: after the claim, at the start, before an epoch's commit, and before that of the end."""
    freeze_and_resume(harness, reference, place)


@pytest.mark.nightly
def test_a_worker_whose_lease_a_restored_database_issued_again_changes_nothing(
    sqlite_harness: FaultHarness, reference: Reference
) -> None:
    """A copy of the database, in which the job is queued, is put in place under two workers: both get lease 1."""
    sqlite_harness.extra_environ |= {**COMMITS_EACH_EPOCH, "TAPELINE_LEASE_S": str(LONG_LEASE_S)}
    store_id.verify(sqlite_harness.database, ArtifactFolder(sqlite_harness.settings.artifacts))  # registers the folder
    job_id = sqlite_harness.submit()
    restore = copied(sqlite_harness.database)
    children, workers = [], []
    for _ in range(2):
        sqlite_harness.arm("files_stored.2", "stop")
        workers.append(sqlite_harness.start())
        children.append(sqlite_harness.until_reached("files_stored.2"))
        sqlite_harness.freeze(workers[-1])
        if len(workers) == 1:
            restore()
    held = sqlite_harness.job(job_id)
    assert (held.status, held.epoch, held.lease) == (Status.RUNNING, 1, 1)
    for process in (children[0], workers[0].pid):
        os.kill(process, signal.SIGCONT)
    wait_until(
        lambda: all_exited(children[:1]) or sqlite_harness.job(job_id).status in TERMINAL,
        "the end of the first child, or of its job",
    )
    found = sqlite_harness.job(job_id)
    assert (found.status, found.last_seq) == (Status.RUNNING, held.last_seq), "the first worker wrote"
    for process in (children[1], workers[1].pid):
        os.kill(process, signal.SIGCONT)
    sqlite_harness.until_all_end()
    assert sqlite_harness.job(job_id).lease == 1
    sqlite_harness.check(reference)


WITHOUT_LEASE_GUARD = """
from sqlalchemy import select
from service.jobs import leases, renewals
from service.storage.tables import Job

def unfenced(session, held, **values):
    job = session.get_one(Job, held.job_id)
    for name, value in values.items():
        setattr(job, name, value)
    job.lease_expires_ms = leases.expiry(held.lease_s)
    return job

def lock_unfenced(connection, held, statement):
    query = select(*(item["expr"] for item in statement.column_descriptions))
    return connection.execute(query.where(Job.id == held.job_id)).first()

leases.guard, leases.lock = unfenced, lock_unfenced
renewals.renew = lambda database, due: renewals.Pending({item.claim: None for item in due}, ())
renewals.requested = lambda database, claims: renewals.Pending(dict.fromkeys(claims), ())
"""


@pytest.mark.nightly
def test_without_the_lease_guard_a_frozen_worker_violates_an_invariant(
    sqlite_harness: FaultHarness, reference: Reference
) -> None:
    """F04 with the lease guard disabled: the check must fail."""
    sqlite_harness.patch(WITHOUT_LEASE_GUARD)
    with pytest.raises(AssertionError, match=r"F04|end"):
        freeze_and_resume(sqlite_harness, reference, "files_stored.2")


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
