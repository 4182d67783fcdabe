"""The state of the machine: while it cannot store or read files, or has no memory, its worker claims no jobs."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.errors import WrongStore
from service.maintenance import store_id
from service.runtime import machine_limits
from service.runtime.settings import Settings
from service.states import MachineFaultReason
from service.storage.database import Database
from service.storage.stores import ArtifactFolder, open_store
from workers.messages import MachineFault
from workers.supervisor.totals import WorkerTotals

CHECK_INTERVAL_S: Final = 5.0
SILENCE_S: Final = 60.0
"""A check that takes longer hangs, as an access to a lost network share does."""

log = structlog.get_logger()


class MachineState:
    """Checks the machine repeatedly, in a thread, because an access to a lost share may hang."""

    def __init__(self, settings: Settings, database: Database, totals: WorkerTotals) -> None:
        self._totals = totals
        self._store, self._database = open_store(settings), database
        self._lock = threading.Lock()
        self._reported: MachineFault | None = None
        """By a job; a probe decides when it is over."""
        self._wrong_store: MachineFault | None = None
        self._checked_at = self._well_at = time.monotonic()
        self.is_checked = threading.Event()
        """Set after the first check."""

    @property
    def fault(self) -> MachineFault | None:
        """Why no jobs may be claimed."""
        if time.monotonic() - self._checked_at > SILENCE_S:
            return MachineFault(MachineFaultReason.STORE, f"{self._store.address} does not respond")
        return self._wrong_store or self._reported

    @property
    def blocked(self) -> dict[str, Any] | None:
        """The fault for the worker's row, with the seconds for which it has lasted."""
        if (fault := self.fault) is None:
            return None
        seconds = int(time.monotonic() - self._well_at)
        return {"reason": fault.reason, "message": fault.message, "seconds": seconds}

    def report(self, fault: MachineFault) -> None:
        """Record a fault that a job has met."""
        log.error("this machine claims no more jobs", reason=fault.reason, message=fault.message)
        if fault.reason is MachineFaultReason.STORE:
            self._totals.count_store_error()
        with self._lock:
            self._reported = fault

    def check_repeatedly(self, stop: threading.Event) -> None:
        """Check until ``stop`` is set."""
        while not stop.is_set():
            with contextlib.suppress(SQLAlchemyError):  # without the database there are no claims either
                self.check()
            self.is_checked.set()
            stop.wait(CHECK_INTERVAL_S)

    def check(self) -> None:
        """Check the id of the store, and whether a reported fault is over.

        Raises:
            SQLAlchemyError: the database does not respond.
        """
        wrong_store = None
        try:
            store_id.verify(self._database, self._store)
        except (WrongStore, OSError) as error:
            wrong_store = MachineFault(MachineFaultReason.STORE, str(error))
        if wrong_store != self._wrong_store and wrong_store is not None:
            log.error("this machine claims no jobs", reason=wrong_store.reason, message=wrong_store.message)
            self._totals.count_store_error()
        self._wrong_store = wrong_store
        self._checked_at = time.monotonic()
        reported = self._reported
        if reported is not None and self._is_over(reported):
            log.info("this machine is well again", reason=reported.reason)
            with self._lock:
                if self._reported is reported:
                    self._reported = None
            self._checked_at = time.monotonic()
        if self.fault is None:
            self._well_at = time.monotonic()

    def _is_over(self, fault: MachineFault) -> bool:
        """Whether a file of the size that could not be stored can be, or the memory is available."""
        if fault.folder is None:
            return machine_limits.memory_bytes()[1] >= fault.size_bytes
        is_of_store = fault.reason is MachineFaultReason.STORE
        try:
            (self._store if is_of_store else ArtifactFolder(Path(fault.folder))).check_writable(fault.size_bytes)
        except OSError:
            return False
        return True
