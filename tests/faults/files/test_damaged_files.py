"""Files of a job that are damaged, lost or unreadable, or that the disk does not write or remove."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from service.jobs import actions
from service.states import Status
from tests.faults.conftest import InProcess, NoSupervisor, newest_checkpoints
from tests.faults.invariants import Reference


def test_files_that_cannot_be_removed_at_the_end_do_not_undo_the_success(
    process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = process.submit(checkpoint={})
    held = process.claim()
    unlink, refused = Path.unlink, []

    def refuse(path: Path, *arguments: Any, **named: Any) -> None:
        if path.suffix == ".safetensors":
            refused.append(path)
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        unlink(path, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert process.train(held) == "succeeded"
    assert refused
    assert process.workers.job(job_id).status == Status.SUCCEEDED
    process.check(None)


def test_a_full_disk_fails_the_job_and_a_retry_continues_once_there_is_space(
    process: InProcess, reference: Reference
) -> None:
    job_id = process.submit()
    process.arm("file_written.checkpoint", "error")
    held = process.claim()
    process.train(held)
    job = process.workers.job(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"], job.epoch) == (Status.FAILED, "storage", 0)
    assert "No space left" in job.error["message"]
    actions.retry(process.database, job_id)
    assert process.train() == "succeeded"
    process.check(reference)


@pytest.mark.parametrize("broken", ["fsync", "rename"])
def test_a_file_that_could_not_be_synced_or_named_never_becomes_a_checkpoint(
    process: InProcess, reference: Reference, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """F18: the pages may be lost although the next sync succeeds, so that file is given up."""
    job_id = process.submit()
    endpoint, calls = NoSupervisor(), 0
    endpoint.after_batches = 1
    assert process.train(endpoint=endpoint) == "handed back"  # the dataset's own files are written by now

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
    job = process.workers.job(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == (Status.FAILED, "storage")
    assert calls == 3
    actions.retry(process.database, job_id)
    assert process.train() == "succeeded"
    process.check(reference)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "how_many"),
    [
        pytest.param(flip, 1, id="a flipped bit in the newest"),
        pytest.param(cut, 1, id="the newest truncated", marks=pytest.mark.faults),
        pytest.param(Path.unlink, 1, id="the newest gone", marks=pytest.mark.faults),
        pytest.param(flip, 99, id="a flipped bit in all", marks=pytest.mark.faults),
        pytest.param(cut, 99, id="all truncated"),
    ],
)
def test_damaged_checkpoints_cost_time_and_no_bit(
    process: InProcess, reference: Reference, damage: Any, how_many: int
) -> None:
    job_id = process.submit()
    process.die("epoch_trained.3")
    for path in newest_checkpoints(process, job_id)[:how_many]:
        damage(path)
    assert process.train() == "succeeded"
    process.check(reference)
    codes = [event.data["code"] for event in process.workers.log(job_id) if event.type == "log"]
    assert codes == ["checkpoint_damaged"] * min(how_many, 2)


def test_checkpoints_that_cannot_be_read_now_are_kept_for_later(
    process: InProcess, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that is away, or rights that are missing, say nothing about the bytes."""
    job_id = process.submit()
    process.die("epoch_trained.3")
    kept = len(newest_checkpoints(process, job_id))

    opened = os.open

    def stale(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith(".safetensors"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return opened(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", stale)
        assert process.train() == "failed"
    job = process.workers.job(job_id)
    assert job.error is not None
    assert job.error["code"] == "storage"
    assert len(newest_checkpoints(process, job_id)) == kept
    actions.retry(process.database, job_id)
    assert process.train() == "succeeded"
    process.check(reference)


# The expected failures: with a check switched off, the same schedules must go red.


def test_without_the_checksum_a_flipped_bit_is_found_out(
    process: InProcess, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Any, path: str, sha256: str) -> bytes:
        return bytes((self.root / path).read_bytes())

    job_id = process.submit()
    process.die("epoch_trained.3")
    flip(newest_checkpoints(process, job_id)[0])
    monkeypatch.setattr("service.storage.artifacts.ArtifactFolder.read", read)
    process.train()
    with pytest.raises(AssertionError, match=r"I5|I6|I10"):
        process.check(reference)


def test_a_disk_that_lies_is_found_out(
    process: InProcess, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F18 once more: the sync loses half of a file's pages and says nothing, and nobody looks before the end."""

    def lose(descriptor: int) -> None:
        if os.fstat(descriptor).st_size > 1000 and os.readlink(f"/proc/self/fd/{descriptor}").endswith(".tmp"):
            os.truncate(os.readlink(f"/proc/self/fd/{descriptor}"), 1000)

    process.submit()
    monkeypatch.setattr(os, "fsync", lose)
    assert process.train() == "succeeded"
    monkeypatch.undo()
    with pytest.raises(AssertionError, match="I9"):
        process.check(reference)


def test_a_row_without_its_file_is_found_out(
    process: InProcess, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a power cut would leave it if rows were committed before their files are synced."""
    process.submit()
    process.die("epoch_committed.3")
    assert process.train() == "succeeded"
    process.check(reference)
    newest_checkpoints(process, process.accepted[0])[0].unlink()
    with pytest.raises((AssertionError, FileNotFoundError)):
        process.check(reference)
