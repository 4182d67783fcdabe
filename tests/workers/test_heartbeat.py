"""The health check of containers, on real processes, with the command that compose runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.workers.conftest import WorkerHarness
from workers.heartbeat import SILENCE_S, Heartbeat, silence_s


def is_well(home: Path, name: str) -> bool:
    environ = os.environ | {"TAPELINE_HOME": str(home)}
    command = [sys.executable, "-m", "workers.heartbeat", name]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


def until_well(home: Path, name: str) -> None:
    deadline = time.monotonic() + 60
    while not is_well(home, name):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_a_worker_and_a_scheduler_that_stand_still_do_not_look_healthy(light: WorkerHarness) -> None:
    processes = {"worker": light.start(), "scheduler": light.start("workers.reconcile")}
    for name, process in processes.items():
        until_well(light.home, name)
        process.send_signal(signal.SIGSTOP)
        long_ago = time.time() - SILENCE_S - 1
        os.utime(light.home / "run" / name, (long_ago, long_ago))
        assert not is_well(light.home, name)
        process.send_signal(signal.SIGCONT)
        until_well(light.home, name)


@pytest.mark.slow
def test_a_worker_whose_children_end_at_once_never_looks_healthy(light: WorkerHarness, tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "numpy.py"
    broken.parent.mkdir()
    broken.write_text("raise SystemExit('no NumPy here')")
    light.start(PYTHONPATH=f"{broken.parent}{os.pathsep}{os.environ['PYTHONPATH']}")
    log, deadline = light.home / "workers.log", time.monotonic() + 60
    while "a training process" not in log.read_text():  # it cannot be started, or ended before it was ready
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not is_well(light.home, "worker")


def test_what_a_process_before_this_one_left_counts_for_nothing(tmp_path: Path) -> None:
    Heartbeat(tmp_path, "worker").beat()
    assert silence_s(tmp_path, "worker") is not None
    Heartbeat(tmp_path, "worker")
    assert silence_s(tmp_path, "worker") is None


def test_a_state_folder_that_cannot_be_written_to_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    Heartbeat(tmp_path, "worker").beat()
    assert silence_s(tmp_path, "worker") is None
