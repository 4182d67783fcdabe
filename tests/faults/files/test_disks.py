"""Disks that are full, or on which files cannot be deleted."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.jobs import actions
from service.states import Status
from service.storage.artifacts import ArtifactFolder
from tests.faults.conftest import InProcessHarness
from tests.faults.harness import FaultHarness, open_harness
from tests.faults.invariants import Reference

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk for one test; requires root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    mounted = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], check=False)
    if not mounted or mounted.returncode:
        pytest.skip("a small disk cannot be mounted here (it takes root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_full_disk_fails_the_job_and_a_retry_succeeds_once_there_is_space(
    sqlite_harness: FaultHarness, small_disk: Path, reference: Reference
) -> None:
    """F17: no room for checkpoints."""
    sqlite_harness.settings.artifacts.parent.mkdir(parents=True, exist_ok=True)
    sqlite_harness.settings.artifacts.symlink_to(small_disk)
    job_id = sqlite_harness.submit()
    worker = sqlite_harness.start()
    job = sqlite_harness.until_end(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == (Status.FAILED, "storage")
    assert worker.poll() is None
    resize(small_disk, "8m")
    actions.retry(sqlite_harness.database, job_id)
    sqlite_harness.until(job_id, lambda job: job.status == Status.SUCCEEDED, 60)
    sqlite_harness.check(reference)


def test_files_that_cannot_be_deleted_do_not_fail_the_job(
    process: InProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F17: obsolete checkpoints stay until the next cleanup."""
    process.submit(checkpoint={"keep_last": 1})

    def refuse(store: ArtifactFolder, paths: Iterable[str]) -> None:
        if list(paths):
            raise OSError(errno.EROFS, "read-only")

    with monkeypatch.context() as patched:
        patched.setattr(ArtifactFolder, "remove", refuse)
        assert process.train() == "succeeded"
    process.check(None)


@pytest.fixture
def small_disk_harness(small_disk: Path) -> Iterator[FaultHarness]:
    """Workers whose database is on the small disk."""
    resize(small_disk, "8m")
    with closing(open_harness(small_disk / "home", f"sqlite:///{small_disk / 'tapeline.db'}")) as harness:
        yield harness


def test_a_full_disk_of_the_database_is_an_outage(
    small_disk_harness: FaultHarness, small_disk: Path, reference: Reference
) -> None:
    """F17: no room for the database, for longer than the lease."""
    harness = small_disk_harness
    harness.submit()
    harness.submit()
    harness.arm("epoch_trained.2", "stop")
    harness.start("workers.reconcile")
    worker = harness.start()
    child = harness.until_reached("epoch_trained.2")
    os.kill(worker.pid, signal.SIGSTOP)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    os.kill(child, signal.SIGCONT)
    os.kill(worker.pid, signal.SIGCONT)
    time.sleep(2 * harness.lease_s)  # the duration of the outage
    assert worker.poll() is None
    ballast.unlink()
    for job_id in harness.accepted:
        job = harness.until_end(job_id)
        if job.status == Status.FAILED:  # there was no room for its files either
            assert job.error is not None
            assert job.error["code"] == "storage"
            actions.retry(harness.database, job_id)
            harness.until(job_id, lambda job: job.status == Status.SUCCEEDED, 60)
    assert harness.worker_losses() == 0
    harness.check(reference)
