"""The pipes between a supervisor and its child: JSON, orders one way and reports the other.

A report is ``{"ready": true}`` once the child has loaded what it needs, ``{"step": ..., "steps": ...}``,
``{"done": why}``, ``{"gave_up": why}`` or ``{"calibrated": factors}``; an order is the job to train, then perhaps
``{"stop": ...}``, or ``{"calibrate": true}``.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Final

import structlog

from service.states import Request
from workers import forking

log = structlog.get_logger()

_REPORT_EVERY_S: Final = 0.1
LAST_STEPS_S: Final = 5.0
"""How long a child that was killed may take to end, and its exit code to become known."""
_PINNED: Final = {
    # One BLAS thread a job: more threads would change the bits, and more jobs fill the machine as well.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
_PORTABLE: Final = {
    # What every x86-64 of the last ten years has; newer kernels round differently.
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}


_PROCESSES: Final[ForkServerContext | SpawnContext] = (
    multiprocessing.get_context("forkserver") if forking.IS_FORKING else multiprocessing.get_context("spawn")
)
_TURN: Final = threading.Lock()
"""Whoever starts a process asks after all others too, and an exit code can be read only once: one thread at a time."""


def prepare(*, portable_bits: bool) -> None:
    """Pin what children compute with. To be called before the first one: they have their environment from here."""
    os.environ.update(_PINNED | (_PORTABLE if portable_bits else {}))
    forking.prepare()


def _begin(orders: Connection, reports: Connection) -> None:
    """What a child does first."""
    forking.begin_child()
    os.setsid()  # a Ctrl-C at the terminal is the supervisor's to pass on
    from workers.training.run import main  # not above: a supervisor has no need of NumPy

    sys.exit(main(ChildEndpoint(orders, reports)))


class Child:
    """The supervisor's end. The child process starts at once, and waits for its order.

    Raises:
        OSError: no process can be started now.
    """

    def __init__(self) -> None:
        orders, self._orders = _PROCESSES.Pipe(duplex=False)
        self._ordering = threading.Lock()
        told, reports = _PROCESSES.Pipe(duplex=False)
        # A daemon: where a supervisor leaves in haste, Python's own exit ends it instead of waiting for it.
        self._process = _PROCESSES.Process(target=_begin, args=(orders, reports), daemon=True)
        with orders, reports, _TURN:
            try:
                forking.keep_reachable()
                self._process.start()
            except EOFError as error:
                raise OSError("the process that forks has ended") from error
        self._ready = False
        self._ended = threading.Event()
        self._reports: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(told,), name=f"child-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return not self._ended.is_set()

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Whether the child is there to take an order: a broken one must not be given a job."""
        return self._ready or self._become_ready(timeout_s)

    def order(self, order: Mapping[str, Any]) -> None:
        """Say what to do. A child that is gone is found out when its reports are read."""
        with self._ordering, contextlib.suppress(OSError):
            self._orders.send_bytes(json.dumps(dict(order)).encode())

    def stop(self, request: Request | None) -> None:
        """Ask the child to let go between two batches."""
        self.order({"stop": request})

    def report(self, timeout_s: float) -> dict[str, Any]:
        """The next report, ``{}`` where none came in time, ``{"gone": exit code}`` after the child's end."""
        try:
            report = self._reports.get(timeout=timeout_s)
        except queue.Empty:
            return {}
        return report if report is not None else {"gone": self._exit_code()}

    def close(self) -> None:
        """End the child, whatever it does, and whether the process that forked it is there or not."""
        if self.alive:  # its process id may be another's afterwards
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._ended.wait(LAST_STEPS_S)
        forking.reap(self.pid)
        with self._ordering:  # a pipe that two threads close at once may be another one by the second time
            self._orders.close()

    def _exit_code(self) -> int | None:
        """Negative for a signal; ``None`` where the process that forks does not tell."""
        if not _TURN.acquire(timeout=LAST_STEPS_S):
            return None
        try:
            self._process.join(LAST_STEPS_S)
            return self._process.exitcode
        finally:
            _TURN.release()

    def _become_ready(self, timeout_s: float) -> bool:
        self._ready = bool(self.report(timeout_s).get("ready"))
        return self._ready

    def _read(self, told: Connection) -> None:
        """Nobody else has the child's end of this pipe, and it says nothing more when it closes: so it has ended."""
        try:
            with told:
                while True:
                    self._reports.put(json.loads(told.recv_bytes()))
        except EOFError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody hears the child any more
            log.error("the reports of a training process cannot be read; it is ended", error=repr(error))
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        finally:
            self._ended.set()
            self._reports.put(None)


class ChildEndpoint:
    """The child's end. The process ends when the supervisor's end closes: nobody trains unsupervised."""

    def __init__(self, orders: Connection, reports: Connection) -> None:
        self._reports = reports
        self._last_report = 0.0
        self._first: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.stopping = False
        """Whether the supervisor asked to let go; looked at between two batches."""
        self.request: Request | None = None
        """On whose behalf: a person's request, or ``None`` for a worker that stops."""
        threading.Thread(target=self._read, args=(orders,), name="orders", daemon=True).start()

    def ready(self) -> None:
        """Say that all is loaded."""
        self._send({"ready": True})

    def first(self) -> dict[str, Any]:
        """Wait for the job to train, or for another first order."""
        return self._first.get()

    def progress(self, step: int, steps: int) -> None:
        """Report a finished batch; called after each one, it writes ten times a second at most."""
        now = time.monotonic()
        if now - self._last_report >= _REPORT_EVERY_S:
            self._last_report = now
            self._send({"step": step, "steps": steps})

    def preparing(self) -> None:
        """Say that something comes along, though it is no batch."""
        self._send({"preparing": True})

    def done(self, outcome: str) -> None:
        """The last report."""
        self._send({"done": outcome})

    def give_up(self, why: str) -> None:
        """The last report of a child that could not let go by itself: nobody died, but the lease is still held."""
        self._send({"gave_up": why})

    def calibrated(self, factors: Mapping[str, float]) -> None:
        """The last report of a child that was to measure this machine."""
        self._send({"calibrated": dict(factors)})

    def _send(self, report: Mapping[str, Any]) -> None:
        try:
            self._reports.send_bytes(json.dumps(dict(report)).encode())
        except BrokenPipeError:
            os._exit(3)  # the supervisor is gone

    def _read(self, orders: Connection) -> None:
        try:
            while True:
                order = json.loads(orders.recv_bytes())
                if "stop" in order:
                    self.request = Request(order["stop"]) if order["stop"] else None
                    self.stopping = True
                else:
                    self._first.put(order)
        finally:
            os._exit(3)  # the supervisor is gone; or this thread, and then nobody could stop the training
