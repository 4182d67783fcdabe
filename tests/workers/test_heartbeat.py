"""The health check of containers, on real processes, with the command that compose runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until
from tests.workers.conftest import WorkerHarness
from workers.heartbeat import SILENCE_S, Heartbeat, silence_s


def is_healthy(home: Path, name: str) -> bool:
    environ = os.environ | {"TAPELINE_HOME": str(home)}
    command = [sys.executable, "-m", "workers.heartbeat", name]
    check = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert check.returncode in (0, 1), check.stderr
    return check.returncode == 0


def wait_until_healthy(home: Path, name: str) -> None:
    wait_until(lambda: is_healthy(home, name), f"a healthy {name}", 60)


@pytest.mark.nightly
def test_a_frozen_worker_or_scheduler_is_unhealthy_until_it_resumes(sqlite_workers: WorkerHarness) -> None:
    processes = {"worker": sqlite_workers.start(), "scheduler": sqlite_workers.start("workers.scheduler")}
    for name, process in processes.items():
        wait_until_healthy(sqlite_workers.home, name)
        process.send_signal(signal.SIGSTOP)
        stopped = psutil.Process(process.pid)
        wait_until(lambda stopped=stopped: stopped.status() == psutil.STATUS_STOPPED, "the stop")
        long_ago = time.time() - SILENCE_S - 1
        os.utime(sqlite_workers.home / "run" / name, (long_ago, long_ago))
        assert not is_healthy(sqlite_workers.home, name)
        process.send_signal(signal.SIGCONT)
        wait_until_healthy(sqlite_workers.home, name)


@pytest.mark.nightly
def test_a_worker_whose_children_exit_at_once_is_not_healthy(sqlite_workers: WorkerHarness, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "numpy.py"
    broken.parent.mkdir()
    broken.write_text("raise SystemExit('no NumPy here')")
    sqlite_workers.start(PYTHONPATH=f"{broken.parent}{os.pathsep}{os.environ['PYTHONPATH']}")
    log = sqlite_workers.home / "workers.log"
    # It could not be started, or exited before it was ready.
    wait_until(lambda: "a training process" in log.read_text(), "the end of a child", 60)
    assert not is_healthy(sqlite_workers.home, "worker")


def test_the_heartbeat_of_an_earlier_process_is_discarded(tmp_path: Path) -> None:
    Heartbeat(tmp_path, "worker").beat()
    assert silence_s(tmp_path, "worker") is not None
    Heartbeat(tmp_path, "worker")
    assert silence_s(tmp_path, "worker") is None


def test_an_unwritable_state_folder_does_not_stop_a_process(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    Heartbeat(tmp_path, "worker").beat()
    assert silence_s(tmp_path, "worker") is None
