"""Files of a job that are damaged, missing or unreadable, or that cannot be written or deleted."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.jobs import actions, leases
from service.states import Status
from service.storage.tables import Event
from tests.faults.conftest import InProcessHarness, NoSupervisor, checkpoints_newest_first
from tests.faults.invariants import Reference
from workers.messages import MachineFault, Report


def test_files_that_cannot_be_deleted_at_the_end_do_not_fail_the_job(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = process.submit(checkpoint={})
    held = process.claim()
    unlink, refused_paths = Path.unlink, []

    def refuse(path: Path, *arguments: Any, **named: Any) -> None:
        if path.suffix == ".safetensors":
            refused_paths.append(path)
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert process.train(held) == "succeeded"
    assert refused_paths
    assert process.workers.job(job_id).status == Status.SUCCEEDED
    process.check(None)


def train_on_a_full_disk(process: InProcessHarness) -> list[Report]:
    """Train until no checkpoint can be stored; return what the supervisor was told."""
    process.arm("file_written.checkpoint", "error")
    endpoint = NoSupervisor()
    process.train(endpoint=endpoint)
    return endpoint.reports


def test_a_job_on_a_full_disk_is_released_and_continues_once_there_is_space(
    process: InProcessHarness, reference: Reference
) -> None:
    job_id = process.submit()
    (fault,) = train_on_a_full_disk(process)
    assert isinstance(fault, MachineFault)
    assert (fault.reason, fault.folder) == ("store", str(process.artifacts.root))
    job = process.workers.job(job_id)
    assert (job.status, job.error, job.attempt, job.epoch, job.deaths) == (Status.QUEUED, None, 1, 0, 0)
    *_, logged, released = process.workers.log(job_id)
    assert (logged.data["code"], released.data["reason"]) == ("machine_fault", "storage")
    assert "No space left" in logged.data["message"]
    assert process.train() == "succeeded"
    assert fault.size_bytes >= checkpoints_newest_first(process, job_id)[0].stat().st_size
    process.check(reference)


def test_a_job_that_no_machine_can_store_fails_and_can_be_retried(
    process: InProcessHarness, reference: Reference
) -> None:
    job_id = process.submit()
    for _ in range(leases.MAX_MACHINE_FAULTS + 1):
        train_on_a_full_disk(process)
        assert process.workers.job(job_id).status == Status.QUEUED, "an outage that many workers meet at once"
    earlier = Event.created_ms - int(1000 * process.workers.settings.store_timeout_s)
    with process.database.write() as session:
        session.execute(update(Event).values(created_ms=earlier))
    train_on_a_full_disk(process)
    job = process.workers.job(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == (Status.FAILED, "storage")
    assert "No space left" in job.error["message"]
    actions.retry(process.database, job_id)
    train_on_a_full_disk(process)
    assert process.workers.job(job_id).status == Status.QUEUED, "the count starts again"
    assert process.train() == "succeeded"
    process.check(reference)


def test_a_cancelled_job_is_not_queued_again_by_a_full_disk(process: InProcessHarness) -> None:
    job_id = process.submit()
    held = process.claim()
    actions.cancel(process.database, job_id)
    process.arm("file_written.checkpoint", "error")
    process.train(held)
    assert process.workers.job(job_id).status == Status.CANCELLED
    process.check(None)


@pytest.mark.parametrize("broken", ["fsync", "rename"])
def test_a_file_that_cannot_be_synced_or_renamed_never_becomes_a_checkpoint(
    process: InProcessHarness, reference: Reference, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """F18: pages may be lost even if the next sync succeeds, so the file is discarded."""
    job_id = process.submit()
    endpoint, calls = NoSupervisor(), 0
    endpoint.after_batches = 1
    assert process.train(endpoint=endpoint) == "released"  # the dataset's own files are written by now

    def fail(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*arguments)

    target: Any = os if broken == "fsync" else Path
    real = getattr(target, broken)
    monkeypatch.setattr(target, broken, fail)
    process.train()
    monkeypatch.undo()
    assert process.workers.job(job_id).status == Status.QUEUED
    assert calls == 3
    assert process.train() == "succeeded"
    process.check(reference)


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "count"),
    [
        pytest.param(flip_bit, 1, id="a flipped bit in the newest"),
        pytest.param(Path.unlink, 1, id="the newest gone"),
        pytest.param(truncate, 99, id="all truncated"),
    ],
)
def test_damaged_checkpoints_do_not_change_the_result(
    process: InProcessHarness, reference: Reference, damage: Any, count: int
) -> None:
    job_id = process.submit()
    process.die_at("epoch_trained.3")
    for path in checkpoints_newest_first(process, job_id)[:count]:
        damage(path)
    assert process.train() == "succeeded"
    process.check(reference)
    codes = [event.data["code"] for event in process.workers.log(job_id) if event.type == "log"]
    assert codes == ["checkpoint_damaged"] * min(count, 2)


def test_temporarily_unreadable_checkpoints_are_kept(
    process: InProcessHarness, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unavailable network share or missing permissions say nothing about the contents."""
    job_id = process.submit()
    process.die_at("epoch_trained.3")
    count = len(checkpoints_newest_first(process, job_id))

    real_open = os.open

    def open_stale(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith(".safetensors"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real_open(path, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", open_stale)
        assert process.train().startswith("released")
    assert process.workers.job(job_id).status == Status.QUEUED
    assert len(checkpoints_newest_first(process, job_id)) == count
    assert process.train() == "succeeded"
    process.check(reference)


# Deliberate defects: with a safeguard disabled, the same schedules must fail.


def test_without_the_checksum_a_flipped_bit_violates_an_invariant(
    process: InProcessHarness, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Any, path: str, sha256: str) -> bytes:
        return bytes((self.root / path).read_bytes())

    job_id = process.submit()
    process.die_at("epoch_trained.3")
    flip_bit(checkpoints_newest_first(process, job_id)[0])
    monkeypatch.setattr("service.storage.stores.ArtifactFolder.read", read)
    process.train()
    with pytest.raises(AssertionError, match=r"I5|I6|I10"):
        process.check(reference)


def test_a_disk_that_lies_about_syncing_violates_an_invariant(
    process: InProcessHarness, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F18: each sync silently truncates the file to 1000 bytes, which goes unnoticed until the end."""

    def lose_pages(descriptor: int) -> None:
        if os.fstat(descriptor).st_size > 1000 and os.readlink(f"/proc/self/fd/{descriptor}").endswith(".tmp"):
            os.truncate(os.readlink(f"/proc/self/fd/{descriptor}"), 1000)

    process.submit()
    monkeypatch.setattr(os, "fsync", lose_pages)
    assert process.train() == "succeeded"
    monkeypatch.undo()
    with pytest.raises(AssertionError, match="I9"):
        process.check(reference)


def test_a_row_without_its_file_violates_an_invariant(
    process: InProcessHarness, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut would leave such a row if rows were committed before their files are synced."""
    process.submit()
    process.die_at("epoch_committed.3")
    assert process.train() == "succeeded"
    process.check(reference)
    checkpoints_newest_first(process, process.accepted[0])[0].unlink()
    with pytest.raises((AssertionError, FileNotFoundError)):
        process.check(reference)
