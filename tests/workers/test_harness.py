from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.storage.database import Database
from tests.faults.harness import FaultHarness, all_exited
from tests.workers import conftest
from tests.workers.conftest import WorkerHarness

pytestmark = pytest.mark.stack

STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):  # a worker, its fork server and its child
    if os.fork():
        break
os.write(1, b"%d\\n" % os.getpid())
time.sleep(600)
"""


@pytest.mark.parametrize("kind", [WorkerHarness, FaultHarness])
def test_processes_that_do_not_stop_are_killed_with_their_descendants_and_fail_the_test(
    kind: type[WorkerHarness], sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "STOP_TIMEOUT_S", 0.1)
    harness = kind(tmp_path, Database(sqlite_url))
    pids: list[int] = []
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
        harness.processes.append(process)
        assert process.stdout is not None
        pids += [int(process.stdout.readline()) for _ in range(3)]
        process.stdout.close()
    with pytest.raises(AssertionError, match="did not stop"):
        harness.close()
    assert len(set(pids)) == 6
    assert all_exited(pids)
