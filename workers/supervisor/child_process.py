"""The supervisor's end of a child process: start it, order, read its reports, end it."""

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
from typing import Final

import structlog

from workers.messages import ChildEndpoint, Order, Ready, Report, decode_report, encode
from workers.supervisor import forking

log = structlog.get_logger()

EXIT_TIMEOUT_S: Final = 5.0
"""How long a killed child may take to end, and its exit code to become known."""
_PINNED: Final = {
    # One BLAS thread per job: more would change the bits, and more jobs fill the machine as well.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
_PORTABLE: Final = {
    # What every x86-64 processor of the last ten years has; newer kernels round differently.
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
_PROCESSES: Final[ForkServerContext | SpawnContext] = (
    multiprocessing.get_context("forkserver") if forking.IS_FORKING else multiprocessing.get_context("spawn")
)
_PROCESS_TABLE: Final = threading.Lock()
"""Starting a process polls all others too, and an exit code can be read only once: one thread at a time."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The child process has ended; follows its last report."""

    exit_code: int | None
    """Negative for a signal; ``None`` where the fork server does not tell."""


def prepare(*, portable_bits: bool) -> None:
    """Pin the environment of children. To be called before the first one starts."""
    os.environ.update(_PINNED | (_PORTABLE if portable_bits else {}))
    forking.prepare()


def _run_child(orders: Connection, reports: Connection) -> None:
    """The main function of a child process."""
    forking.begin_child()
    os.setsid()  # Ctrl-C at the terminal is for the supervisor, which passes it on
    from workers.training.run import main  # not above: the supervisor must not load NumPy

    sys.exit(main(ChildEndpoint(orders, reports)))


class ChildProcess:
    """A child. The process starts at once, and waits for its order.

    Raises:
        OSError: no process can be started now.
    """

    def __init__(self) -> None:
        orders, self._orders = _PROCESSES.Pipe(duplex=False)
        self._orders_lock = threading.Lock()
        received, reports = _PROCESSES.Pipe(duplex=False)
        # A daemon: where a supervisor exits in haste, Python's own exit ends it instead of waiting for it.
        self._process = _PROCESSES.Process(target=_run_child, args=(orders, reports), daemon=True)
        with orders, reports, _PROCESS_TABLE:
            try:
                forking.keep_reachable()
                self._process.start()
            except EOFError as error:
                raise OSError("the fork server has ended") from error
        self._is_ready = False
        self._ended = threading.Event()
        self._reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(received,), name=f"child-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return not self._ended.is_set()

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Whether the child can take an order; a broken one must not be given a job."""
        self._is_ready = self._is_ready or isinstance(self.report(timeout_s), Ready)
        return self._is_ready

    def send(self, order: Order) -> None:
        """Send an order. That the child is gone is noticed when its reports are read."""
        with self._orders_lock, contextlib.suppress(OSError):
            self._orders.send_bytes(encode(order))

    def report(self, timeout_s: float) -> Report | Exited | None:
        """The next report; ``None`` where none came in time."""
        try:
            report = self._reports.get(timeout=timeout_s)
        except queue.Empty:
            return None
        return report if report is not None else Exited(self._exit_code())

    def close(self) -> None:
        """Kill the child, whatever it does, and whether the fork server is alive or not."""
        if self.alive:  # afterwards its process id may belong to another process
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._ended.wait(EXIT_TIMEOUT_S)
        forking.reap(self.pid)
        with self._orders_lock:  # two threads must not close the same descriptor: the second may be another file
            self._orders.close()

    def _exit_code(self) -> int | None:
        if not _PROCESS_TABLE.acquire(timeout=EXIT_TIMEOUT_S):
            return None
        try:
            self._process.join(EXIT_TIMEOUT_S)
            return self._process.exitcode
        finally:
            _PROCESS_TABLE.release()

    def _read(self, received: Connection) -> None:
        """Read reports until the pipe closes. Only the child holds its other end, so the child has ended then."""
        try:
            with received:
                while True:
                    self._reports.put(decode_report(received.recv_bytes()))
        except EOFError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the child cannot be supervised any more
            log.error("unreadable report of a child process; the child is killed", error=repr(error))
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        finally:
            self._ended.set()
            self._reports.put(None)
