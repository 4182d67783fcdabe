"""Records when keys were last used, from a background thread, so that no request waits for it."""

from __future__ import annotations

import threading
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.access import keys
from service.storage.database import Database

WRITE_INTERVAL_S: Final = keys.LAST_USE_PRECISION_S

_log = structlog.get_logger("tapeline.web")


class LastUse:
    """Collects used keys, and records them at most every ``WRITE_INTERVAL_S``.

    The thread starts on the first use, hence after a fork, and ends after an interval without any.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._used: set[str] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def note(self, key_id: str) -> None:
        """Record that a key was used. Never blocks, never fails."""
        with self._lock:
            self._used.add(key_id)
            if self._thread is not None or self._closed.is_set():
                return
            thread = threading.Thread(target=self._run, name="last use of keys", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no thread available: retried on the next use
                _log.debug("could not record the use of a key", error=str(error))
            else:
                self._thread = thread

    def close(self) -> None:
        """Wait for a write in progress, and stop recording."""
        self._closed.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while used := self._take():
            try:
                keys.record_use(self._database, used)
            except SQLAlchemyError as error:
                _log.debug("could not record the use of a key", error=str(error))
            if self._closed.wait(WRITE_INTERVAL_S):
                return

    def _take(self) -> set[str]:
        with self._lock:
            used, self._used = self._used, set()
            if not used:
                self._thread = None
            return used
