"""Disks that are full, lie about syncing, or fail once."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from service.jobs import actions
from service.states import Status
from service.storage.artifacts import ArtifactFolder
from tests.faults.conftest import InProcess
from tests.faults.harness import FaultHarness, open_harness
from tests.faults.invariants import Reference

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own; as root only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], check=False)
    if not done or done.returncode:
        pytest.skip("a small disk cannot be mounted here (it takes root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_full_disk_keeps_what_is_there_and_more_room_lets_the_job_go_on(
    light: FaultHarness, small_disk: Path, reference: Reference
) -> None:
    """F17: no room for checkpoints."""
    light.settings.artifacts.parent.mkdir(parents=True, exist_ok=True)
    light.settings.artifacts.symlink_to(small_disk)
    job_id = light.submit()
    worker = light.start()
    job = light.until_end(job_id)
    assert job.error is not None
    assert (job.status, job.error["code"]) == (Status.FAILED, "storage")
    assert worker.poll() is None
    resize(small_disk, "8m")
    actions.retry(light.database, job_id)
    light.until(job_id, lambda job: job.status == Status.SUCCEEDED, 60)
    light.check(reference)


def test_files_that_cannot_be_removed_fail_no_job(process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """F17: each epoch's older checkpoints stay until the sweep."""
    process.submit(checkpoint={"keep_last": 1})

    def refuse(store: ArtifactFolder, paths: Iterable[str]) -> None:
        if list(paths):
            raise OSError(errno.EROFS, "read-only")

    with monkeypatch.context() as patched:
        patched.setattr(ArtifactFolder, "remove", refuse)
        assert process.train() == "succeeded"
    process.check(None)


@pytest.fixture
def crowded(small_disk: Path) -> Iterator[FaultHarness]:
    """With its database on the small disk."""
    resize(small_disk, "8m")
    made = open_harness(small_disk / "home", f"sqlite:///{small_disk / 'tapeline.db'}")
    yield made
    made.stop()
    made.database.close()


def test_a_database_without_room_is_an_outage(crowded: FaultHarness, small_disk: Path, reference: Reference) -> None:
    """F17: no room for the database, for longer than the lease."""
    harness = crowded
    harness.submit()
    harness.submit()
    harness.arm("epoch_trained.2", "stop")
    harness.start("workers.reconcile")
    worker = harness.start()
    child = harness.until_struck("epoch_trained.2")
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
    time.sleep(2 * harness.lease_s)
    assert worker.poll() is None
    ballast.unlink()
    for job_id in harness.accepted:
        job = harness.until_end(job_id)
        if job.status == Status.FAILED:  # there was no room for its files either
            assert job.error is not None
            assert job.error["code"] == "storage"
            actions.retry(harness.database, job_id)
            harness.until(job_id, lambda job: job.status == Status.SUCCEEDED, 60)
    assert harness.deaths() == 0
    harness.check(reference)
