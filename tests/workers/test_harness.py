from __future__ import annotations

import subprocess
import sys

import pytest

from tests.workers import conftest
from tests.workers.conftest import WorkerHarness

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"


def test_processes_that_do_not_stop_are_all_killed_and_fail_the_test(
    sqlite_workers: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "STOP_TIMEOUT_S", 0.1)
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
        sqlite_workers.processes.append(process)
        assert process.stdout is not None
        with process.stdout as ready:
            ready.readline()
    with pytest.raises(AssertionError, match="did not stop"):
        sqlite_workers.stop()
    assert all(process.returncode for process in sqlite_workers.processes)
