"""The scheduler: ``python -m workers.reconcile``. A plain loop that puts right what events alone would miss."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from typing import Final

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from service.contract import jobs, leases, logs
from service.contract.artifacts import ArtifactFolder
from service.contract.database import Database
from service.contract.errors import SettingsError
from service.contract.settings import Settings
from workers.app import create_app, wake

TICK_S: Final = 1.0
FORGOTTEN_S: Final = 10.0
"""A job that waited so long may have lost its message."""
SWEEP_S: Final = 600.0
STALE_FILE_S: Final = 3600.0

log = structlog.get_logger()


def reconcile(database: Database, sender: Celery | None) -> None:
    """One round: take back the jobs of silent workers, and wake workers for jobs that wait."""
    rescued = leases.rescue(database)
    for job_id in rescued:
        log.warning("taken back from a silent worker", job=job_id)
    if sender is None:
        return
    with database.read() as session:
        # No more hints than there are free slots, or they would pile up where nobody takes them.
        live = [worker for worker in leases.live_workers(session) if not worker.draining]
        free = sum(max(0, worker.slots - worker.running) for worker in live)
        waiting = jobs.forgotten(session, waited_s=FORGOTTEN_S, limit=free)
    for job_id in waiting:
        try:
            wake(sender, job_id)
        except OperationalError as error:
            log.warning("the broker does not answer; workers look by themselves", error=str(error))
            return


def sweep(database: Database, artifacts: ArtifactFolder) -> None:
    """Remove what nothing refers to any more: old idempotency keys, vanished workers, unfinished files."""
    jobs.forget_old(database)

    def named(job_id: str) -> set[str]:
        with database.read() as session:
            return jobs.paths(session, job_id)

    for path in artifacts.sweep(named, older_than_s=STALE_FILE_S):
        log.info("removed a file that no row names", path=path)


def main() -> int:
    """Run until SIGTERM."""
    logs.configure("scheduler")
    try:
        settings = Settings.from_env(os.environ, cores=1)
    except SettingsError as error:
        sys.stderr.write(f"tapeline scheduler: {error}\n")
        return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    database = Database(settings.database_url, application="tapeline-scheduler")
    sender = create_app(settings.broker_url) if settings.broker_url else None
    rescue_from = 0.0
    for rounds in itertools.count():
        try:
            if time.monotonic() >= rescue_from:
                reconcile(database, sender if rounds % round(FORGOTTEN_S / TICK_S) == 0 else None)
            if rounds % round(SWEEP_S / TICK_S) == 0:
                sweep(database, ArtifactFolder(settings.artifacts))
        except SQLAlchemyError as error:
            log.warning("the database does not answer", error=str(error))
            # While it was away nobody could renew: give the living one lease time to do so.
            rescue_from = time.monotonic() + settings.lease_s
        except OSError as error:
            log.warning("could not sweep", error=str(error))
        time.sleep(TICK_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
