"""The pool of child processes of a worker. It keeps a spare child ready, so that a claimed job starts at once."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final

import structlog

from workers.messages import Calibrate, Calibrated
from workers.supervisor.child_process import ChildProcess, Exited

READY_TIMEOUT_S: Final = 60.0
"""Time for a child to load NumPy and the engine."""
CALIBRATION_TIMEOUT_S: Final = 30.0
"""Time for a calibration; on an idle machine it takes a third of a second."""
_POLL_INTERVAL_S: Final = 0.25

log = structlog.get_logger()


class ChildPool:
    """Starts children and keeps one spare.

    Args:
        draining: set when the worker stops: from then on, no spare child is started or kept.
    """

    def __init__(self, draining: threading.Event) -> None:
        self._draining = draining
        self._spare: ChildProcess | None = None
        self._spare_lock = threading.Lock()
        self._start_lock = threading.Lock()
        """Held while a child starts in the background; ``close`` acquires it and never releases it."""
        self._calibrating: ChildProcess | None = None

    def take(self) -> ChildProcess | None:
        """The spare child or a new one, ready for a command; ``None`` if none can be started."""
        with self._spare_lock:
            child, self._spare = self._spare, None
        if child is not None and not child.alive:
            child.close()
            child = None
        child = child or self._start_child()
        if child is None:
            return None
        if child.wait_until_ready(READY_TIMEOUT_S):
            return child
        child.close()
        log.error("a training process ended or hung before it was ready; see its output")
        return None

    def give_back(self, child: ChildProcess) -> None:
        """Return a child that got no command."""
        with self._spare_lock:
            if self._spare is None and not self._draining.is_set():
                self._spare = child
                return
        child.close()

    def restock(self) -> None:
        """Start a spare child if there is none."""
        with self._start_lock:  # not ``_spare_lock``: ``take`` must not wait for a start
            if self._spare is None and not self._draining.is_set():
                child = self._start_child()
                if child is not None:
                    self.give_back(child)

    def restock_in_background(self) -> None:
        """Start a spare child in a thread."""
        with contextlib.suppress(RuntimeError):  # no thread available: the next job waits for its child
            threading.Thread(target=self.restock, name="restock", daemon=True).start()

    def calibrate(self) -> dict[str, float]:
        """Measure this machine in a child; empty if that fails, takes too long, or the worker stops."""
        with self._start_lock:
            child = None if self._draining.is_set() else self._start_child()
            self._calibrating = child
        if child is None:
            return {}
        try:
            if child.wait_until_ready(READY_TIMEOUT_S):
                child.send(Calibrate())
                deadline = time.monotonic() + CALIBRATION_TIMEOUT_S
                while not self._draining.is_set() and time.monotonic() < deadline:
                    match child.report(_POLL_INTERVAL_S):
                        case Calibrated(factors):
                            return dict(factors)
                        case Exited():
                            break
            return {}
        finally:
            child.close()

    def close(self, timeout_s: float) -> None:
        """End the children without a job. Afterwards, the pool starts none in the background."""
        # Never released: a child that starts while Python exits would not be killed. From 3.13 on, Python would wait
        # for the fork server, the fork server for the child, and the child for this process.
        self._start_lock.acquire(timeout=timeout_s)
        if self._calibrating is not None:
            self._calibrating.close()
        with self._spare_lock:
            if self._spare is not None:
                self._spare.close()
                self._spare = None

    def _start_child(self) -> ChildProcess | None:
        try:
            return ChildProcess()
        except (OSError, RuntimeError) as error:  # no process, thread or memory available
            log.error("a training process cannot be started", error=str(error))
            return None
