from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.waiting import wait_until
from tests.workers.conftest import is_alive
from workers import messages
from workers.supervisor import forking
from workers.supervisor.child_process import ChildProcess, Exited


def test_a_child_that_is_ended_by_many_threads_at_once_is_ended_once() -> None:
    """As the fence and the monitor do."""
    together = threading.Barrier(8)

    def end(child: ChildProcess) -> None:
        together.wait()
        child.close()

    for _ in range(50):
        child = ChildProcess()
        with ThreadPoolExecutor(together.parties) as threads:
            list(threads.map(end, [child] * together.parties))  # raises what any of them raised
        assert not child.alive


def test_a_child_whose_reports_cannot_be_read_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> Any:
        raise ValueError("no JSON")

    monkeypatch.setattr(messages.json, "loads", refuse)
    child = ChildProcess()
    assert isinstance(child.report(60), Exited)
    if is_alive(child.pid):  # it must not be: frozen, it would not exit by itself when its commands end
        os.kill(child.pid, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, "its stop")
    child.close()
    wait_until(lambda: not is_alive(child.pid), "its end")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children are not forked")
@pytest.mark.slow
@pytest.mark.parametrize("lost", ["folder", "socket"])
def test_children_are_forked_though_the_socket_for_it_was_removed(lost: str) -> None:
    """As whoever tidies the system's temporary folder does."""
    before = ChildProcess()
    folder = Path(forking._server._forkserver_address).parent
    assert folder.name.startswith(f"tapeline-worker-{os.getpid()}-")
    if lost == "folder":
        shutil.rmtree(folder)
    else:
        Path(forking._server._forkserver_address).unlink()
    after = ChildProcess()
    for child in (before, after):
        assert child.wait_until_ready(60)
        child.close()
