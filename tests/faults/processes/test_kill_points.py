"""A child process dies at every failpoint in every epoch, and at points that a power cut could hit."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from service.errors import LeaseLost
from service.jobs import actions, commits, leases
from service.jobs.queries import lookup
from service.runtime import failpoints
from service.states import Request, Status
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Job
from tests.faults.conftest import InProcess, NoSupervisor, newest_checkpoints
from tests.faults.invariants import Reference

EACH_EPOCH = ("batch_done", "epoch_trained", "handed_over", "files_stored", "epoch_committing", "epoch_committed")
EACH_FILE = ("file_written", "file_renamed")
TRAINED_FILES = (ArtifactKind.CHECKPOINT, ArtifactKind.SAMPLE)
SCHEDULES: dict[str, list[str]] = {
    **{place: [f"{place}.{epoch}" for epoch in (1, 2, 3)] for place in EACH_EPOCH},
    **{f"{place}.{kind}": [f"{place}.{kind}"] * 2 for place in EACH_FILE for kind in TRAINED_FILES},
    **{place: [place, place] for place in ("began", "restored")},
    **{place: [place] for place in ("tested", "succeeding", "succeeded")},
}


QUICK_ONES = ("files_stored", "epoch_committing", "epoch_committed", "succeeding")


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(schedule, id=name, marks=() if name in QUICK_ONES else pytest.mark.faults)
        for name, schedule in SCHEDULES.items()
    ],
)
def test_a_child_that_dies_there_changes_nothing(process: InProcess, reference: Reference, schedule: list[str]) -> None:
    job_id = process.submit()
    for place in schedule:
        process.die(place)
    if process.workers.job(job_id).status == Status.QUEUED:
        assert process.train() == "succeeded"
    process.check(reference)
    assert process.workers.job(job_id).attempt == 1 + len(schedule) - (schedule == ["succeeded"])


@pytest.mark.parametrize("place", ["succeeding", "succeeded"])
def test_a_child_that_dies_while_older_checkpoints_go_leaves_the_best_and_the_latest(
    process: InProcess, reference: Reference, place: str
) -> None:
    """The spec says nothing of retention: the rows go with the end, the files after it."""
    job_id = process.submit(checkpoint={})
    process.die(place)
    if place == "succeeding":  # rolled back: nothing is gone, and the next one goes on from the newest
        assert len(newest_checkpoints(process, job_id)) == 3
        assert process.train() == "succeeded"
    process.check(None)  # what the dead one left is removed as orphaned, and each row has its file
    job = process.workers.job(job_id)
    assert (job.status, job.result_digest) == (Status.SUCCEEDED, reference.result_digest)
    with process.database.read() as session:
        kept = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
        assert {row.epoch for row in kept} == {job.best_epoch, 3}
        assert job.size_bytes == sum(row.size_bytes for row in lookup.artifacts(session, job_id))


@pytest.mark.parametrize("place", ["handing_back", "handed_back"])
def test_a_worker_that_dies_while_it_hands_back_loses_no_job(
    process: InProcess, reference: Reference, place: str
) -> None:
    process.submit()
    process.arm(place)
    held, endpoint = process.claim(), NoSupervisor()
    endpoint.after_batches = 20
    with pytest.raises(failpoints.SimulatedKill):
        process.train(held, endpoint)
    if place == "handing_back":  # its transaction was rolled back
        leases.record_child_loss(process.database, held, "died")
    assert process.train() == "succeeded"
    process.check(reference)


@pytest.mark.parametrize(
    "batches", [1, pytest.param(17, marks=pytest.mark.faults), 18, pytest.param(50, marks=pytest.mark.faults)]
)
def test_a_job_handed_back_after_any_batch_ends_as_if_it_had_not_been(
    process: InProcess, reference: Reference, batches: int
) -> None:
    process.submit()
    endpoint = NoSupervisor()
    endpoint.after_batches = batches
    assert process.train(endpoint=endpoint) == "handed back"
    assert process.train() == "succeeded"
    process.check(reference)


def test_an_epoch_is_trained_while_the_one_before_is_committed(process: InProcess, reference: Reference) -> None:
    """In order: nothing of the second is written before the first one's row."""
    job_id = process.submit()
    process.arm("files_stored.1", "wait")
    process.arm("overlapping.2", "note")
    assert process.train() == "succeeded"
    assert list(process.points.glob("overlapping.2.reached-*"))
    told = [event.data["epoch"] for event in process.workers.log(job_id) if event.type == "metrics"]
    assert told == [1, 2, 3]
    process.check(reference)


@pytest.mark.parametrize("batches", [18, 33])
def test_a_job_is_handed_back_after_the_commit_that_is_under_way(
    process: InProcess, reference: Reference, batches: int
) -> None:
    job_id = process.submit()
    process.arm("files_stored.1", "wait")
    endpoint = NoSupervisor()
    endpoint.after_batches = batches
    assert process.train(endpoint=endpoint) == "handed back"
    assert process.workers.job(job_id).epoch == 1
    assert process.train() == "succeeded"
    process.check(reference)
    assert [row.lease for row in process.epochs(job_id)] == [1, 2, 2]


def test_a_lease_that_is_lost_during_a_commit_ends_the_training_and_leaves_no_file(
    process: InProcess, reference: Reference
) -> None:
    job_id = process.submit()
    held = process.claim()
    process.arm("files_stored.1", "wait")

    class Rival(NoSupervisor):
        batches = 0

        def progress(self, step: int, steps: int) -> None:
            self.batches += 1
            if step == 18:  # the first of the second epoch
                leases.record_child_loss(process.database, held, "silent")

    rival = Rival()
    with pytest.raises(LeaseLost):
        process.train(held, rival)
    assert rival.batches <= 34, "it went on after the second epoch"
    assert process.workers.job(job_id).epoch == 0
    assert not list(process.artifacts.stored(job_id))
    assert process.train() == "succeeded"
    process.check(reference)


def test_a_failure_of_an_epochs_commit_comes_before_one_of_the_next_epoch(process: InProcess) -> None:
    job_id = process.submit()
    process.arm("files_stored.1", "wait")
    process.arm("epoch_committing.1", "memory")
    process.arm("overlapping.2", "error")
    assert process.train() == "failed"
    job = process.workers.job(job_id)
    assert job.error is not None
    assert (job.error["code"], job.epoch) == ("out_of_memory", 0)


def test_every_place_is_tried_somewhere() -> None:
    tried = {name.partition(".")[0] for schedule in SCHEDULES.values() for name in schedule}
    tried |= {"handing_back", "handed_back"}  # above
    tried |= {"claimed", "submitted", "overlapping"}  # test_processes
    tried |= {"deciding", "decided"}  # test_sweeps
    tried |= {"reuse_stored", "reusing", "reused"}  # test_reuse
    tried |= {"concluding"}  # test_differences
    tried |= {"cleaned", "reported", "commanded"}  # test_reused_children
    assert tried == set(failpoints.PLACES)


def test_a_cancellation_takes_precedence_over_a_worker_loss(process: InProcess) -> None:
    job_id = process.submit()
    held = process.claim()
    process.arm("epoch_committing.2")
    with pytest.raises(failpoints.SimulatedKill):
        process.train(held)
    actions.cancel(process.database, job_id)
    leases.record_child_loss(process.database, held, "died")
    assert process.workers.job(job_id).status == Status.CANCELLED
    process.check(None)


def test_three_deaths_without_an_epoch_between_them_are_the_jobs_own_fault(process: InProcess) -> None:
    job_id = process.submit()
    for place in ("epoch_committed.1", "batch_done.2", "batch_done.2"):
        process.die(place)
    job = process.workers.job(job_id)
    assert (job.status, job.deaths) == (Status.FAILED, 3)
    process.check(None)


def test_running_out_of_memory_fails_the_job_and_a_retry_continues(process: InProcess, reference: Reference) -> None:
    """F21, where the allocation itself is refused: the same spec may fit once there is more."""
    job_id = process.submit()
    process.arm("epoch_trained.2", "memory")
    assert process.train() == "failed"
    job = process.workers.job(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"], job.epoch) == (Status.FAILED, "out_of_memory", 1)
    actions.retry(process.database, job_id)
    assert process.train() == "succeeded"
    process.check(reference)


def test_deaths_behind_an_epoch_that_is_trained_again_count_too(process: InProcess) -> None:
    """With a checkpoint every third epoch, the first two are trained again each time: no progress, for ever."""
    job_id = process.submit(checkpoint={"every_epochs": 3, "keep_last": 2}, early_stopping=None)
    for _ in range(3):
        process.die("epoch_trained.2")
    job = process.workers.job(job_id)
    assert (job.status, job.epoch, job.deaths) == (Status.FAILED, 1, 3)


def test_a_worker_without_the_fence_is_found_out(
    process: InProcess, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was away longer than its lease comes back, and another one has the job: once with the fence, once
    without."""

    def zombie() -> None:
        process.submit()
        stale = process.claim()
        process.arm("files_stored.2")
        with pytest.raises(failpoints.SimulatedKill):
            process.train(stale)
        leases.record_child_loss(process.database, stale, "silent")
        endpoint = NoSupervisor()
        endpoint.after_batches = 20
        process.train(endpoint=endpoint)  # another one trains on, and hands back
        fresh = process.claim()
        with contextlib.suppress(LeaseLost):  # the zombie's last words
            leases.release_lease(process.database, stale, Request.PAUSE)
        assert process.train(fresh) == "succeeded"
        with contextlib.suppress(LeaseLost):
            commits.succeed(process.database, stale, "sha256:stale")

    zombie()
    process.check(reference)

    def unfenced(session: Any, held: Any, **values: Any) -> Job:
        job = session.get_one(Job, held.job_id)
        for name, value in values.items():
            setattr(job, name, value)
        return job  # type: ignore[no-any-return]

    monkeypatch.setattr(leases, "guard", unfenced)
    with pytest.raises(AssertionError):  # noqa: PT012 - wherever it turns red
        zombie()
        process.check(reference)
