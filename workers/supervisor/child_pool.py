"""The pool of child processes of a worker. It keeps a spare child ready, so that a claimed job starts immediately."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final

import structlog

from workers.supervisor.child_process import ChildProcess

READY_TIMEOUT_S: Final = 60.0
"""Time for a child to load NumPy and the engine."""
MAX_IDLE_S: Final = 10.0
"""Time after which a waiting child is ended if there is another one."""

log = structlog.get_logger()


class ChildPool:
    """Starts children, and holds those that wait for a command.

    Args:
        draining: set when the worker stops: from then on, no child is started in the background or kept.
        size: the maximum number of waiting children.
    """

    def __init__(self, draining: threading.Event, *, size: int = 1) -> None:
        self._draining, self._size = draining, size
        self._waiting: list[tuple[ChildProcess, float]] = []
        """Waiting children, each with the time at which it was returned; the most recent one is last."""
        self._lock = threading.Lock()
        self._start_lock = threading.Lock()
        """Held while a child starts in the background; ``close`` acquires it and never releases it."""

    def take(self) -> ChildProcess | None:
        """A child that is ready for a command; ``None`` if there is none and none can be started.

        The child that was returned last is used first: it has trained, so its next job starts fastest.
        """
        while (child := self._pop()) is not None:
            if child.alive and child.wait_until_ready(READY_TIMEOUT_S):
                return child
            child.close()
        child = self._start_child()
        if child is None:
            return None
        if child.wait_until_ready(READY_TIMEOUT_S):
            return child
        child.close()
        log.error("a training process ended or hung before it was ready; see its output")
        return None

    def return_child(self, child: ChildProcess) -> None:
        """Return a child that waits for a command."""
        with self._lock:
            capacity = self._size if child.has_trained else 1  # one spare child is enough
            if child.alive and len(self._waiting) < capacity and not self._draining.is_set():
                self._waiting.append((child, time.monotonic()))
                return
        child.close()

    def restock(self) -> None:
        """Start a spare child if none waits."""
        with self._start_lock:  # not ``_lock``: ``take`` must not wait for a start
            if not self._waiting and not self._draining.is_set():
                child = self._start_child()
                if child is not None:
                    self.return_child(child)

    def trim(self) -> None:
        """End the children that have waited for long, except for the one that is used next.

        Each poll takes and returns that one, so its time is not its waiting time.
        """
        with self._lock:
            cutoff = time.monotonic() - MAX_IDLE_S
            idle = [child for child, since in self._waiting[:-1] if since < cutoff]
            self._waiting = [entry for entry in self._waiting if entry[0] not in idle]
        for child in idle:
            child.close()

    def restock_in_background(self) -> None:
        """Start a spare child in a thread, if none waits."""
        if self._waiting:
            return
        with contextlib.suppress(RuntimeError):  # no thread available: the next job waits for its child
            threading.Thread(target=self.restock, name="restock", daemon=True).start()

    def close(self, timeout_s: float) -> None:
        """End the children without a job. Afterwards, the pool starts none in the background."""
        # Never released: a child that starts while Python exits would not be killed. From 3.13 on, Python would wait
        # for the fork server, the fork server for the child, and the child for this process.
        self._start_lock.acquire(timeout=timeout_s)
        while (child := self._pop()) is not None:
            child.close()

    def _pop(self) -> ChildProcess | None:
        with self._lock:
            return self._waiting.pop()[0] if self._waiting else None

    def _start_child(self) -> ChildProcess | None:
        try:
            return ChildProcess()
        except (OSError, RuntimeError) as error:  # no process, thread or memory available
            log.error("a training process cannot be started", error=str(error))
            return None
