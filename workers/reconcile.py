"""The scheduler: ``python -m workers.reconcile``. A plain loop that puts right what events alone would miss."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.exc import DBAPIError

from service.contract import jobs, leases, logs
from service.contract.database import Database
from service.contract.errors import SettingsError
from service.contract.settings import Settings
from workers.app import create_app, wake

TICK_S: Final = 1.0
FORGOTTEN_S: Final = 10.0
"""A job that waited so long may have lost its message."""
STALE_FILE_S: Final = 3600.0
WAKE_AT_ONCE: Final = 16

log = structlog.get_logger()


def reconcile(database: Database, sender: Celery | None) -> None:
    """One round: take back the jobs of silent workers, and wake workers for jobs that wait."""
    rescued = leases.rescue(database)
    for job_id in rescued:
        log.warning("taken back from a silent worker", job=job_id)
    with database.read() as session:
        waiting = [*rescued, *jobs.forgotten(session, waited_s=FORGOTTEN_S, limit=WAKE_AT_ONCE)]
    for job_id in waiting if sender is not None else ():
        try:
            wake(sender, job_id)
        except OperationalError as error:
            log.warning("the broker does not answer; workers look by themselves", error=str(error))
            return


def sweep(database: Database, artifacts: Path) -> None:
    """Remove what nothing refers to any more: old idempotency keys, vanished workers, unfinished files."""
    jobs.forget_old(database)
    deadline = time.time() - STALE_FILE_S
    for path in artifacts.glob("*/*/.*.tmp"):
        try:
            if path.stat().st_mtime < deadline:
                path.unlink()
        except FileNotFoundError:
            continue


def main() -> int:
    """Run until SIGTERM."""
    logs.configure("scheduler")
    try:
        settings = Settings.from_env(os.environ, cores=1)
    except SettingsError as error:
        sys.stderr.write(f"tapeline scheduler: {error}\n")
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    database = Database(settings.database_url, application="tapeline-scheduler")
    sender = create_app(settings.broker_url) if settings.broker_url else None
    rounds = 0
    while not stop.wait(TICK_S):
        try:
            reconcile(database, sender if rounds % int(FORGOTTEN_S / TICK_S) == 0 else None)
            if rounds % 600 == 0:
                sweep(database, settings.artifacts)
        except DBAPIError as error:
            log.warning("the database does not answer", error=str(error.orig))
        rounds += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
