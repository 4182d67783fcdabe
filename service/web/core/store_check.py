"""The check of the artifact store for ``/readyz``."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from service.maintenance import store_id
from service.storage.artifacts import ArtifactStore
from service.storage.database import Database

VALID_S: Final = 5.0


class StoreCheck:
    """Checks the store in a thread, one at a time: a silent store answers long after whoever asks has gone."""

    def __init__(self, database: Database, store: ArtifactStore) -> None:
        self._database, self._store = database, store
        self._lock = threading.Lock()
        self._last: Future[None] | None = None
        self._valid_until = 0.0

    def run(self, timeout_s: float) -> None:
        """Check that the store is writable, and that of the database, or wait for a check that already runs.

        Raises:
            OSError, WrongStore: it is not.
            TimeoutError: it is silent.
        """
        with self._lock:
            if self._last is None or (self._last.done() and time.monotonic() > self._valid_until):
                started: Future[None] = Future()
                threading.Thread(target=self._check, args=(started,), name="store check", daemon=True).start()
                self._last = started
            last = self._last
        last.result(timeout_s)

    def _check(self, result: Future[None]) -> None:
        try:
            self._store.check_writable()
            with suppress(SQLAlchemyError):  # another check reports the database
                store_id.verify(self._database, self._store)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            result.set_exception(error)
        else:
            # Whoever asks often must not write to a bucket as often.
            self._valid_until = time.monotonic() + (VALID_S if self._store.is_remote else 0)
            result.set_result(None)
