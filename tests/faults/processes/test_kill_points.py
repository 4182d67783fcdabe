"""A child dies at failpoints, also where a power cut could hit, and the job ends with the same bits."""

from __future__ import annotations

import pytest

from service.errors import LeaseLost
from service.jobs import actions, leases
from service.jobs.queries import lookup
from service.runtime import failpoints
from service.states import Request, Status
from service.storage.artifacts import ArtifactKind
from service.storage.stores import ArtifactFolder
from tests.faults.conftest import InProcessHarness, NoSupervisor, checkpoints_newest_first
from tests.faults.invariants import Reference
from workers.messages import Preparing, Progress
from workers.training.epochs import writer


@pytest.mark.parametrize(
    "schedule",
    [
        ["batch_done.1", "batch_done.2", "batch_done.3"],
        ["file_written.checkpoint", "file_renamed.sample"],
        ["epoch_committing.1", "epoch_committing.2", "epoch_committing.3"],
        ["epoch_committed.1", "epoch_committed.2"],
        ["succeeding"],
    ],
    ids=lambda schedule: schedule[0],
)
def test_a_child_that_dies_at_a_failpoint_does_not_change_the_result(
    process: InProcessHarness, reference: Reference, schedule: list[str]
) -> None:
    """With the engine's bits, and files in a folder; ``tests/simulation`` kills at every point."""
    job_id = process.submit()
    for place in schedule:
        process.die_at(place)
    if process.workers.job(job_id).status == Status.QUEUED:
        assert process.train() == "succeeded"
    process.check(reference)
    assert process.workers.job(job_id).attempt == 1 + len(schedule)


def test_a_training_on_a_table_reads_the_checkpoint_that_it_continues_from_once(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the preprocessing, with which the trainer is built, and the state of the trainer."""
    process.submit(dataset="iris", layers=[{"units": 3, "activation": "softmax"}], augmentation={"max_shift": 0})
    process.die_at("epoch_committed.2")
    read, paths = ArtifactFolder.read, list[str]()

    def record(store: ArtifactFolder, path: str, sha256: str) -> bytes:
        paths.append(path)
        return read(store, path, sha256)

    monkeypatch.setattr(ArtifactFolder, "read", record)
    assert process.train() == "succeeded"
    assert ["/checkpoint/" in path for path in paths] == [True]


@pytest.mark.parametrize(
    ("place", "is_short"),
    [("tested", False), ("files_stored.3", False), ("epoch_committing.3", True), ("epoch_committed.2", True)],
)
def test_a_kill_around_the_commit_of_the_last_epochs_and_the_result_loses_none_and_repeats_none(
    process: InProcessHarness, reference: Reference, monkeypatch: pytest.MonkeyPatch, place: str, is_short: bool
) -> None:
    """Both are one transaction, in a short job with all epochs."""
    monkeypatch.setattr(writer, "COMMIT_INTERVAL_S", 600.0)
    monkeypatch.setattr(writer, "SOON_S", 600.0 if is_short else -1.0)
    job_id = process.submit()
    process.die_at(place)
    job = process.workers.job(job_id)
    if place == "epoch_committed.2":
        assert (job.status, job.epoch) == (Status.SUCCEEDED, 3)
    else:
        # Whatever ends the training in an orderly way, as this simulated death does, commits what is not committed.
        left = 3 if place == "tested" else 0 if is_short else 1
        assert (job.status, job.epoch) == (Status.QUEUED, left)
        assert process.train() == "succeeded"
    process.check(reference)


@pytest.mark.parametrize("place", ["succeeding", "succeeded"])
def test_a_child_that_dies_while_deleting_checkpoints_keeps_the_best_and_the_latest(
    process: InProcessHarness, reference: Reference, place: str
) -> None:
    """Without retention settings, rows of old checkpoints are deleted with the end, their files after it."""
    job_id = process.submit(checkpoint={})
    process.die_at(place)
    if place == "succeeding":  # rolled back: nothing was deleted, and the next child continues from the newest
        assert len(checkpoints_newest_first(process, job_id)) == 3
        assert process.train() == "succeeded"
    process.check(None)  # the files of the dead child are removed as orphaned, and each row has its file
    job = process.workers.job(job_id)
    assert (job.status, job.result_digest) == (Status.SUCCEEDED, reference.result_digest)
    with process.database.read() as session:
        checkpoints = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
        assert {row.epoch for row in checkpoints} == {job.best_epoch, 3}
        assert job.size_bytes == sum(row.size_bytes for row in lookup.artifacts(session, job_id))


@pytest.mark.parametrize("batches", [1, 18])
def test_a_job_released_after_any_batch_ends_with_the_same_result(
    process: InProcessHarness, reference: Reference, batches: int
) -> None:
    process.submit()
    endpoint = NoSupervisor()
    endpoint.after_batches = batches
    assert process.train(endpoint=endpoint) == "released"
    assert process.train() == "succeeded"
    process.check(reference)


def test_an_epoch_is_trained_while_the_previous_one_is_committed(
    process: InProcessHarness, reference: Reference
) -> None:
    """The second epoch writes nothing until the first one's row exists."""
    job_id = process.submit()
    process.arm("files_stored.1", "wait overlapping.2")
    process.arm("overlapping.2", "note")
    assert process.train() == "succeeded"
    assert list(process.points.glob("overlapping.2.reached-*"))
    announced_epochs = [event.data["epoch"] for event in process.workers.log(job_id) if event.type == "metrics"]
    assert announced_epochs == [1, 2, 3]
    process.check(reference)


@pytest.mark.parametrize("batches", [18, 33])
def test_a_job_is_released_after_the_pending_commit(
    process: InProcessHarness, reference: Reference, batches: int
) -> None:
    job_id = process.submit()
    process.arm("files_stored.1", "wait stopped")

    class StoppingEndpoint(NoSupervisor):
        def stop(self, request: Request | None) -> None:
            super().stop(request)
            process.mark_reached("stopped")

    endpoint = StoppingEndpoint()
    endpoint.after_batches = batches
    assert process.train(endpoint=endpoint) == "released"
    assert process.workers.job(job_id).epoch == 1
    assert process.train() == "succeeded"
    process.check(reference)
    assert [row.lease for row in process.epochs(job_id)] == [1, 2, 2]


def test_a_lease_lost_during_a_commit_ends_the_training_and_leaves_no_file(
    process: InProcessHarness, reference: Reference
) -> None:
    job_id = process.submit()
    held = process.claim()
    process.arm("files_stored.1", "wait lease_lost")

    class LeaseLosingEndpoint(NoSupervisor):
        batches = 0

        def report_progress(self, report: Progress | Preparing) -> None:
            self.batches += 1
            if isinstance(report, Progress) and report.step == 18:  # the first batch of the second epoch
                leases.record_child_loss(process.database, held, "silent")
                process.mark_reached("lease_lost")

    endpoint = LeaseLosingEndpoint()
    with pytest.raises(LeaseLost):
        process.train(held, endpoint)
    assert endpoint.batches <= 34, "it went on after the second epoch"
    assert process.workers.job(job_id).epoch == 0
    assert not list(process.artifacts.stored(job_id))
    assert process.train() == "succeeded"
    process.check(reference)


def test_an_error_in_a_commit_takes_precedence_over_one_in_the_next_epoch(process: InProcessHarness) -> None:
    job_id = process.submit()
    process.arm("files_stored.1", "wait overlapping.2")
    process.arm("epoch_committing.1", "error")
    process.arm("overlapping.2", "memory")
    assert process.train() == "failed"
    job = process.workers.job(job_id)
    assert job.error is not None
    assert (job.error["code"], job.epoch) == ("internal", 0)


def test_a_worker_without_memory_repeats_a_commit(process: InProcessHarness, reference: Reference) -> None:
    process.submit()
    process.arm("epoch_committing.2", "memory")
    assert process.train() == "succeeded"
    process.check(reference)


def test_a_cancellation_takes_precedence_over_a_worker_loss(process: InProcessHarness) -> None:
    job_id = process.submit()
    held = process.claim()
    process.arm("epoch_committing.2")
    with pytest.raises(failpoints.SimulatedKill):
        process.train(held)
    actions.cancel(process.database, job_id)
    leases.record_child_loss(process.database, held, "died")
    assert process.workers.job(job_id).status == Status.CANCELLED
    process.check(None)


def test_running_out_of_memory_fails_the_job_and_a_retry_continues(
    process: InProcessHarness, reference: Reference
) -> None:
    """F21, when an allocation fails: the same spec may fit once more memory is free."""
    job_id = process.submit()
    process.arm("epoch_trained.2", "memory")
    assert process.train() == "failed"
    job = process.workers.job(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"], job.epoch) == (Status.FAILED, "out_of_memory", 1)
    actions.retry(process.database, job_id)
    assert process.train() == "succeeded"
    process.check(reference)


def test_worker_losses_in_epochs_that_are_trained_again_count_too(process: InProcessHarness) -> None:
    """With a checkpoint every third epoch, the first two are trained again each time: no progress is made."""
    job_id = process.submit(checkpoint={"every_epochs": 3, "keep_last": 2}, early_stopping=None)
    for _ in range(3):
        process.die_at("epoch_trained.2")
    job = process.workers.job(job_id)
    assert (job.status, job.epoch, job.deaths) == (Status.FAILED, 1, 3)
