"""Disks that are full, or on which files cannot be deleted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.jobs import worker_registry
from service.states import Status
from tests.faults.harness import FaultHarness, open_harness
from tests.faults.invariants import Reference
from tests.waiting import wait_until
from workers.supervisor.machine import CHECK_INTERVAL_S

pytestmark = pytest.mark.timeout(400)


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


def blocked(harness: FaultHarness) -> dict[str, Any] | None:
    """Why the only worker claims no jobs."""
    with harness.database.read() as session:
        return next((worker.blocked for worker in worker_registry.live_workers(session)), None)


@pytest.mark.nightly
def test_a_full_disk_stops_the_queue_and_fails_no_job(
    harness: FaultHarness, small_disk: Path, reference: Reference
) -> None:
    """F17: no room for checkpoints."""
    harness.settings.artifacts.parent.mkdir(parents=True, exist_ok=True)
    harness.settings.artifacts.symlink_to(small_disk)
    jobs = [harness.submit() for _ in range(6)]
    worker = harness.start()
    wait_until(lambda: blocked(harness), "the worker to notice")
    fault = blocked(harness)
    assert fault is not None
    assert (fault["reason"], "No space left" in fault["message"]) == ("store", True)
    wait_until(lambda: all(harness.job(job_id).status != Status.RUNNING for job_id in jobs), "the release")
    assert Status.QUEUED in {harness.job(job_id).status for job_id in jobs} <= {Status.QUEUED, Status.SUCCEEDED}
    claims = sum(harness.job(job_id).lease for job_id in jobs)
    seen = worker_heartbeat(harness)
    wait_until(lambda: worker_heartbeat(harness) > seen + 2000 * CHECK_INTERVAL_S, "further checks")
    assert sum(harness.job(job_id).lease for job_id in jobs) == claims, "it has claimed no other job"
    assert worker.poll() is None
    resize(small_disk, "16m")
    for job_id in jobs:
        job = harness.until(job_id, lambda job: job.status == Status.SUCCEEDED, 90)
        assert job.attempt == 1
    wait_until(lambda: blocked(harness) is None, "its report")
    harness.check(reference)


def worker_heartbeat(harness: FaultHarness) -> int:
    with harness.database.read() as session:
        return max(worker.seen_ms for worker in worker_registry.live_workers(session))


@pytest.mark.nightly  # tests/workers/supervisor/test_machine.py
def test_a_worker_without_the_shared_folder_claims_no_job(harness: FaultHarness, reference: Reference) -> None:
    """F35."""
    job_id = harness.submit()
    harness.start(TAPELINE_ARTIFACTS=str(harness.home / "shared"))
    harness.until_end(job_id)
    harness.processes[0].terminate()
    harness.processes[0].wait(60)
    second = harness.submit()
    harness.start(TAPELINE_ARTIFACTS=str(harness.home / "own"))
    wait_until(lambda: blocked(harness), "the worker to notice")
    fault = blocked(harness)
    assert fault is not None
    assert (fault["reason"], "or mount its folder" in fault["message"]) == ("store", True)
    assert harness.job(second).lease == 0
    (harness.home / "own").symlink_to(harness.home / "shared")
    assert harness.until_end(second).status == Status.SUCCEEDED


@pytest.fixture
def small_disk_harness(small_disk: Path) -> Iterator[FaultHarness]:
    """Workers whose database is on the small disk."""
    resize(small_disk, "8m")
    with closing(open_harness(small_disk / "home", f"sqlite:///{small_disk / 'tapeline.db'}")) as harness:
        yield harness


@pytest.mark.nightly
def test_a_full_disk_of_the_database_is_an_outage(
    small_disk_harness: FaultHarness, small_disk: Path, reference: Reference
) -> None:
    """F17: no room for the database, for longer than the lease."""
    harness = small_disk_harness
    harness.submit()
    harness.submit()
    harness.arm("epoch_trained.2", "stop")
    harness.start("workers.scheduler")
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
        assert harness.until_end(job_id).status == Status.SUCCEEDED
    assert harness.worker_losses() == 0
    harness.check(reference)
