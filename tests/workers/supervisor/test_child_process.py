from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.waiting import wait_until
from tests.workers.conftest import is_alive
from workers import messages
from workers.supervisor import fork_server
from workers.supervisor.child_process import ChildProcess, Exited


@pytest.mark.nightly
def test_a_child_closed_by_many_threads_at_once_is_ended_exactly_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence and the monitor may close it at the same time."""
    barrier = threading.Barrier(8)

    def close(child: ChildProcess) -> None:
        barrier.wait()
        child.close()

    def slow_close(closes: list[float], close_descriptor: Callable[[], None]) -> None:
        closes.append(time.monotonic())
        time.sleep(0.001)  # let another thread close it, too, if it can
        close_descriptor()

    for _ in range(50):
        child, closes = ChildProcess(), list[float]()
        pipe = child._commands
        monkeypatch.setattr(pipe, "_close", partial(slow_close, closes, pipe._close))  # type: ignore[attr-defined]
        with ThreadPoolExecutor(barrier.parties) as threads:
            list(threads.map(close, [child] * barrier.parties))  # raises the exceptions of the threads
        assert not child.alive
        assert len(closes) == 1, "the second close of a descriptor can hit another file"
        assert child.report(60) == Exited(-signal.SIGKILL)
        assert child.report(0) is None


def test_a_child_whose_reports_cannot_be_decoded_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> Any:
        raise ValueError("no JSON")

    monkeypatch.setattr(messages.json, "loads", refuse)
    child = ChildProcess()
    assert isinstance(child.report(60), Exited)
    if is_alive(child.pid):  # it should be dead; frozen, it cannot exit by itself when its command pipe closes
        os.kill(child.pid, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, "its stop")
    child.close()
    wait_until(lambda: not is_alive(child.pid), "its exit")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children are not forked")
@pytest.mark.nightly
@pytest.mark.parametrize("removed", ["folder", "socket"])
def test_children_can_be_forked_after_the_fork_servers_socket_was_removed(removed: str) -> None:
    """Programs that tidy the system's temporary folder remove it."""
    before = ChildProcess()
    folder = Path(fork_server._server._forkserver_address).parent
    assert folder.name.startswith(f"tapeline-worker-{os.getpid()}-")
    if removed == "folder":
        shutil.rmtree(folder)
    else:
        Path(fork_server._server._forkserver_address).unlink()
    after = ChildProcess()
    for child in (before, after):
        assert child.wait_until_ready(60)
        child.close()
