"""The fork server, and what happens to it and to the children when their worker is killed.

It is the standard library's, whose private parts are used in this module alone: there is no public way to choose the
folder of its socket, to replace the server where that folder was removed, or to prevent children from keeping it alive.

Each process notices by a closed pipe that the worker is dead, unless it is frozen (SIGSTOP). So the kernel continues it
at its parent's death: a child at the fork server's, the fork server at the worker's. SIGCONT is harmless where it comes
early (it comes when the thread ends that started the process), and a job continues where the fork server alone dies:
its children become the worker's own, and are continued at the worker's death.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import sys
from contextlib import suppress
from multiprocessing import forkserver, process
from typing import Any, Final

from service.runtime import temporary

IS_FORKING: Final = sys.platform == "linux"
"""Whether children are forked from a process that has loaded the engine. Elsewhere each loads it by itself: macOS's
BLAS does not survive a fork."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

_server: Final[Any] = forkserver._forkserver


def prepare() -> None:
    """Configure the fork server. To be called in the worker, before the first child."""
    if IS_FORKING:
        forkserver.set_forkserver_preload(["workers.supervisor.preload"])
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def keep_reachable() -> None:
    """Replace a fork server whose socket was removed, since it can fork no more children. To be called before each
    start, by one thread at a time."""
    if not IS_FORKING:
        return
    address = _server._forkserver_address
    if _server._forkserver_pid is not None and not os.path.exists(address):
        os.kill(_server._forkserver_pid, signal.SIGKILL)
        with suppress(FileNotFoundError):  # it would remove the socket
            _server._stop()
    config = process.current_process()._config  # type: ignore[attr-defined]  # private
    if not os.path.isdir(config.get("tempdir") or ""):
        # The library's own folder would stay where this process is killed.
        folder = temporary.new_folder("worker")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        config["tempdir"] = str(folder)


def begin_child() -> None:
    """First call of a child, so that neither a frozen child nor the fork server it keeps alive stays for ever."""
    if IS_FORKING:
        os.close(_server._forkserver_alive_fd)  # or the fork server would wait for this process to end
        _server._forkserver_alive_fd = None
        wake_at_parents_death()


def wake_at_parents_death() -> None:
    """Have the kernel continue this process, if frozen, at its parent's death, which it then notices by itself. (If the
    parent dies before this call, the process is not frozen yet.)"""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def reap(pid: int) -> None:
    """Reap a child that has ended, if it was adopted by this process."""
    if IS_FORKING:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
