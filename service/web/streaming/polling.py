"""The background thread that polls the database for the streams of jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

DATABASE_POLL_INTERVAL_S: Final = 0.2

_log = structlog.get_logger("tapeline.web.stream")


class DatabasePoller:
    """Polls the database in a background thread, which runs only while there are listeners.

    Args:
        name: the name of the thread, for the log.
        new_poll: called when a thread starts; returns the function that it calls at each interval.
        is_needed: whether there are listeners; called with ``lock`` held.
        interval_s: how long to wait until the next call.
    """

    def __init__(
        self,
        name: str,
        new_poll: Callable[[], Callable[[], None]],
        *,
        is_needed: Callable[[], bool],
        interval_s: Callable[[], float],
    ) -> None:
        self.lock = threading.Lock()
        """Guards what ``is_needed`` reads: hold it to add a listener and start the thread atomically."""
        self._name, self._new_poll, self._is_needed, self._interval_s = name, new_poll, is_needed, interval_s
        self._thread: threading.Thread | None = None
        self._wake_up = threading.Event()
        self._polled = threading.Event()

    @property
    def is_running(self) -> bool:
        """Whether the thread runs; it ends after the last listener has left."""
        return self._thread is not None

    def ensure_running(self) -> None:
        """Start the thread unless it runs. The caller must hold ``lock``."""
        if self._thread is None:
            self._polled = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._polled,), name=self._name, daemon=True)
            self._thread.start()

    def wake_up(self) -> None:
        """Poll immediately."""
        self._wake_up.set()

    def wait_for_first_poll(self, timeout_s: float) -> None:
        """Wait until the thread has read the database once."""
        self._polled.wait(timeout_s)

    def _run(self, polled: threading.Event) -> None:
        poll, is_failing = self._new_poll(), False
        while True:
            with self.lock:
                if not self._is_needed():
                    self._thread = None
                    return
            try:
                poll()
                polled.set()
                is_failing = False
            except SQLAlchemyError as error:
                if not is_failing:
                    _log.warning(
                        "streams are stalled: the database does not respond", reader=self._name, error=str(error)
                    )
                is_failing = True
            self._wake_up.wait(self._interval_s())
            self._wake_up.clear()
