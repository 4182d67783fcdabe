"""The pipe between a supervisor and its child: JSON lines, orders one way and reports the other.

A report is ``{"ready": true}`` once the child has loaded what it needs, ``{"step": ..., "steps": ...}``,
``{"done": why}`` or ``{"gave_up": why}``; an order is the job to train, then perhaps ``{"stop": ...}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, TextIO, cast

from service.contract.states import Request

_REPORT_EVERY_S: Final = 0.1
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


class Child:
    """The supervisor's end. The child process starts at once, loads NumPy, and waits for its order."""

    def __init__(self, *, portable_bits: bool) -> None:
        environ = {**os.environ, **_PINNED, **(_PORTABLE if portable_bits else {})}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workers.run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
            start_new_session=True,  # a Ctrl-C at the terminal is the supervisor's to pass on
        )
        self._ready = False
        self._orders = cast(TextIO, self._process.stdin)
        self._reports: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name=f"child-{self._process.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def wait_until_ready(self, timeout_s: float) -> bool:
        """Whether the child is there to take an order: a broken one must not be given a job."""
        return self._ready or self._become_ready(timeout_s)

    def order(self, order: Mapping[str, Any]) -> None:
        """Say what to do. A child that is gone is found out when its reports are read."""
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(json.dumps(dict(order)) + "\n")
            self._orders.flush()

    def stop(self, request: Request | None) -> None:
        """Ask the child to let go between two batches."""
        self.order({"stop": request})

    def report(self, timeout_s: float) -> dict[str, Any]:
        """The next report, ``{}`` where none came in time, ``{"gone": exit code}`` after the child's end."""
        try:
            report = self._reports.get(timeout=timeout_s)
        except queue.Empty:
            return {}
        return report if report is not None else {"gone": self._process.wait()}

    def close(self) -> None:
        """End the child, whatever it does."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()

    def _become_ready(self, timeout_s: float) -> bool:
        self._ready = bool(self.report(timeout_s).get("ready"))
        return self._ready

    def _read(self) -> None:
        try:
            with cast(TextIO, self._process.stdout) as lines:
                for line in lines:
                    self._reports.put(json.loads(line))
        finally:
            self._reports.put(None)


class Orders:
    """The child's end. The process ends when the supervisor's end closes: nobody trains unsupervised."""

    def __init__(self, lines: TextIO, reports: TextIO) -> None:
        self._reports = reports
        self._last_report = 0.0
        self._first: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.stopping = False
        """Whether the supervisor asked to let go; looked at between two batches."""
        self.request: Request | None = None
        """On whose behalf: a person's request, or ``None`` for a worker that stops."""
        threading.Thread(target=self._read, args=(lines,), name="orders", daemon=True).start()

    @classmethod
    def on_standard_streams(cls) -> Orders:
        """Take over stdin and stdout; whatever else is printed goes to stderr and cannot garble a report."""
        reports = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        return cls(sys.stdin, reports)

    def ready(self) -> None:
        """Say that all is loaded."""
        self._send({"ready": True})

    def first(self) -> dict[str, Any]:
        """Wait for the job to train."""
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

    def _send(self, report: Mapping[str, Any]) -> None:
        try:
            self._reports.write(json.dumps(dict(report)) + "\n")
            self._reports.flush()
        except BrokenPipeError:
            os._exit(3)  # the supervisor is gone

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            order = json.loads(line)
            if "stop" in order:
                self.request = Request(order["stop"]) if order["stop"] else None
                self.stopping = True
            else:
                self._first.put(order)
        os._exit(3)  # the supervisor is gone
