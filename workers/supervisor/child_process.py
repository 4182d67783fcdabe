"""The supervisor's end of a child process: starts it, sends commands, reads reports, kills it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Final

import structlog

from service.runtime import tracing
from workers.messages import ChildEndpoint, ChildReady, Command, Report, decode, encode
from workers.supervisor import fork_server

log = structlog.get_logger()

EXIT_TIMEOUT_S: Final = 5.0
"""Time for a killed child to end, and for its exit code to arrive."""
_PINNED: Final = {
    # One BLAS thread per job: the number of threads changes the bits, and several jobs also use all cores.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
_PORTABLE: Final = {
    # The instruction set of all x86-64 processors of the last ten years; newer kernels round differently.
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
_CONTEXT: Final[ForkServerContext | SpawnContext] = (
    multiprocessing.get_context("forkserver") if fork_server.IS_FORKING else multiprocessing.get_context("spawn")
)
_PROCESS_TABLE: Final = threading.Lock()
"""Held to start a process or read an exit code: a start also polls all other processes, and each exit code can be read
only once."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The child process has ended; follows its last report."""

    exit_code: int | None
    """Negative for a signal; ``None`` if the fork server does not report it."""


def prepare(*, portable_bits: bool) -> None:
    """Set the environment variables of children that affect bits. Call it before the first child starts."""
    os.environ.update(_PINNED | (_PORTABLE if portable_bits else {}))
    fork_server.prepare()


def _run_child(commands: Connection, reports: Connection) -> None:
    """The main function of a child process."""
    fork_server.begin_child()
    os.setsid()  # Ctrl-C at the terminal must reach the supervisor only, which stops its children
    from workers.training.child import main  # not at the top: the supervisor must not load NumPy

    sys.exit(main(ChildEndpoint(commands, reports)))


class ChildProcess:
    """A child process. It starts immediately, and waits for its commands.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self) -> None:
        commands, self._commands = _CONTEXT.Pipe(duplex=False)
        self._commands_lock = threading.Lock()
        report_reader, reports = _CONTEXT.Pipe(duplex=False)
        # A daemon: if the supervisor exits early, Python terminates the child instead of waiting for it.
        self._process = _CONTEXT.Process(target=_run_child, args=(commands, reports), daemon=True)
        with commands, reports, _PROCESS_TABLE:
            try:
                fork_server.keep_reachable()
                self._process.start()
            except EOFError as error:
                raise OSError("the fork server has ended") from error
        self._is_ready = False
        self.has_trained = False
        """Whether it has trained a job."""
        self.provenance: dict[str, Any] | None = None
        """The provenance of jobs in this child; known once it is ready."""
        self._ended = threading.Event()
        self._reports: queue.SimpleQueue[Command | Report | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(report_reader,), name=f"child-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return not self._ended.is_set()

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Wait until the child is ready for a command; false if it is not, and must not get a job."""
        if not self._is_ready and isinstance(report := self.report(timeout_s), ChildReady):
            self._is_ready, self.provenance = True, dict(report.provenance)
        return self._is_ready

    def send(self, command: Command) -> None:
        """Send a command. If the child has ended, reading its reports will show it."""
        with self._commands_lock, contextlib.suppress(OSError):
            self._commands.send_bytes(encode(command))

    def report(self, timeout_s: float) -> Command | Report | Exited | None:
        """The next report; ``None`` if none arrives in time."""
        try:
            report = self._reports.get(timeout=timeout_s)
        except queue.Empty:
            return None
        return report if report is not None else Exited(self._exit_code())

    def kill(self) -> None:
        """Kill the child, with or without a fork server, and wait for nothing; ``close`` must follow."""
        if self.alive:  # otherwise the process id may have been reused
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the child, and wait for its end."""
        self.kill()
        if self.alive:
            self._ended.wait(EXIT_TIMEOUT_S)
        fork_server.reap(self.pid)
        with self._commands_lock:  # a second close of the descriptor could hit another file
            self._commands.close()

    def _exit_code(self) -> int | None:
        if not _PROCESS_TABLE.acquire(timeout=EXIT_TIMEOUT_S):
            return None
        try:
            self._process.join(EXIT_TIMEOUT_S)
            return self._process.exitcode
        finally:
            _PROCESS_TABLE.release()

    def _read(self, report_reader: Connection) -> None:
        """Read reports until the pipe closes. Only the child holds the other end, so a closed pipe means its end."""
        try:
            with report_reader:
                while True:
                    report = decode(report_reader.recv_bytes())
                    if isinstance(report, tracing.Span):
                        tracing.export(report)
                    else:
                        self._reports.put(report)
        except EOFError:
            pass
        except Exception as error:  # noqa: BLE001 - after any error, the child is not supervised any more
            log.error("unreadable report of a child process; the child is killed", error=repr(error))
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        finally:
            self._ended.set()
            self._reports.put(None)
