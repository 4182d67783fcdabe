"""The fork server, and how it and the children end when their worker is killed.

It is that of the standard library. Only this module uses its private attributes: there is no public way to choose the
folder of its socket, to replace the server if that folder was removed, to fork it from a process that has loaded most
of what it needs, or to prevent children from keeping it alive.

Fork server and children notice by a closed pipe that the worker is dead, unless they are frozen (SIGSTOP). Therefore
the kernel sends SIGCONT at the death of the parent: to a child when the fork server dies, to the fork server when the
worker dies. An early SIGCONT is harmless (it is sent when the thread that started the process ends). If only the fork
server dies, jobs continue: the worker adopts its children, which get SIGCONT when the worker dies.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from multiprocessing import forkserver, process
from typing import Any, Final, NoReturn

import structlog

from service.runtime import machine_limits

log = structlog.get_logger()

IS_FORKING: Final = sys.platform == "linux"
"""Whether children are forked from a process that has loaded the engine. On macOS, whose BLAS does not survive a fork,
each child loads it."""
_STDERR: Final = 2
_PRELOADED: Final = ["workers.supervisor.preload"]
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

_server: Final[Any] = forkserver._forkserver


def prepare() -> None:
    """Configure the fork server. Call it in the worker, before the first child starts."""
    if IS_FORKING:
        forkserver.set_forkserver_preload(_PRELOADED)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def start() -> None:
    """Fork the server from this process, which then starts sooner, and shares the memory of what it has loaded.

    Call it after ``child_process.prepare``, with the signals' default handlers. If this process has threads, has loaded
    NumPy, which reads the environment then, or does not have the hash seed of children, or runs a Python whose server
    asks its clients for a key, it does nothing, and the library executes the server when the first child starts.

    Raises:
        OSError: no process, memory or folder available; the library's attempt may succeed.
    """
    if not IS_FORKING or sys.flags.hash_randomization or sys.version_info >= (3, 14):
        return
    if "numpy" in sys.modules or len(os.listdir("/proc/self/task")) > 1:
        return
    address = os.path.join(_socket_folder(), "listener")
    gc.freeze()  # a collection would copy shared pages
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        os.chmod(address, 0o600)
        listener.listen()
        alive, keep_alive = os.pipe()
        if (pid := os.fork()) == 0:
            _serve(listener, alive)
        os.close(alive)
    _server._forkserver_address, _server._forkserver_alive_fd, _server._forkserver_pid = address, keep_alive, pid


def _serve(listener: socket.socket, alive: int) -> NoReturn:
    """Serve until all that hold the other end of ``alive`` have ended. What this process would do at its exit, or after
    an error, is left to the one from which it was forked."""
    code = 1
    try:
        _close_others({listener.fileno(), alive})
        forkserver.main(listener.detach(), alive, _PRELOADED)
    except SystemExit:
        code = 0
    except Exception:
        log.exception("the fork server failed")
    finally:
        os._exit(code)


def _close_others(kept: set[int]) -> None:
    """Close the descriptors that the execution of another program would close, too."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _STDERR and int(name) not in kept:
            with suppress(OSError):  # that of the list itself
                os.close(int(name))


def keep_reachable() -> None:
    """Replace a fork server whose socket was removed, because it cannot fork any more. Call it before each start, from
    one thread at a time."""
    if not IS_FORKING:
        return
    address = _server._forkserver_address
    if _server._forkserver_pid is not None and not os.path.exists(address):
        os.kill(_server._forkserver_pid, signal.SIGKILL)
        with suppress(FileNotFoundError):  # _stop() removes the socket, which is gone
            _server._stop()
    _socket_folder()


def _socket_folder() -> str:
    """The folder in which sockets are made. The library's own would be left behind if this process is killed."""
    config = process.current_process()._config  # type: ignore[attr-defined]  # private
    if not os.path.isdir(config.get("tempdir") or ""):
        folder = machine_limits.new_folder("worker")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        config["tempdir"] = str(folder)
    return str(config["tempdir"])


def begin_child() -> None:
    """Let this child, even if frozen, and the fork server end with the worker. Must be the first call of a child."""
    if IS_FORKING:
        os.close(_server._forkserver_alive_fd)  # otherwise the fork server would wait for this process
        _server._forkserver_alive_fd = None
        wake_at_parents_death()


def wake_at_parents_death() -> None:
    """Let the kernel send SIGCONT to this process when its parent dies, so that a frozen process notices the death. (If
    the parent dies before this call, the process is not frozen yet.)"""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


def reap(pid: int) -> None:
    """Reap an ended child that this process has adopted."""
    if IS_FORKING:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        error_number = ctypes.get_errno()
        raise OSError(error_number, os.strerror(error_number))
