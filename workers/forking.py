"""The process that forks children, and what becomes of it and of them when their worker is killed.

It is the standard library's fork server, whose private parts are used in this module alone: it has no public way to
choose the folder of its socket, to replace it where that folder is gone, or to keep children from keeping it alive.

Each process notices at a pipe that the worker is gone, unless it is frozen (SIGSTOP). So the kernel wakes it at its
parent's death: a child at the fork server's, the fork server at the worker's. A signal that ends nobody may come
too early (it comes whenever the thread ends that started the process), and a job goes on where the fork server alone
dies: its children become the worker's own, and are woken at the worker's death.
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
"""Whether children are forked, from a process that has loaded all that they need. Elsewhere each loads it by itself:
macOS's BLAS does not survive a fork."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

_server: Final[Any] = forkserver._forkserver


def prepare() -> None:
    """Have children forked from a process that is ready for it. To be called in the worker, before the first one."""
    if IS_FORKING:
        forkserver.set_forkserver_preload(["workers.training.preload"])
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def keep_reachable() -> None:
    """Replace a fork server whose socket was removed: nobody could ask it for a child any more. To be called before
    each start, by one thread at a time."""
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
    """What a child does first: so that neither a frozen one nor a process that it keeps alive stays for ever."""
    if IS_FORKING:
        os.close(_server._forkserver_alive_fd)  # or the fork server would wait for this process to end
        _server._forkserver_alive_fd = None
        wake_at_parents_death()


def wake_at_parents_death() -> None:
    """Have the kernel continue this process, should it be frozen then. Whatever its parent's death means for it, it
    finds out by itself. (Where that death comes before this call, nothing has frozen this process yet.)"""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def reap(pid: int) -> None:
    """Wait for a child that has ended, if it became this process's own."""
    if IS_FORKING:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
