"""The scheduler, ``python -m workers.scheduler``: handles expired leases, lost messages, retention and audit seals."""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import hooks
from service.access import audit_seals, keys, owners, sign_in_links, usage
from service.datasets import uploads
from service.datasets.uploads import UploadFiles
from service.errors import SettingsError, WrongStore
from service.hooks import Happening, HappeningKind
from service.jobs import actions, owner_queue, submissions, worker_registry
from service.jobs.queries import queue
from service.jobs.rescue import LeaseExpiryPolicy, fail_without_store, rescue
from service.maintenance import file_checks, retention, scheduler_heartbeat, store_id
from service.maintenance.retention import Policy
from service.owner_limits import Quotas
from service.runtime import broker, logs, server_promises
from service.runtime.settings import Settings
from service.storage.database import Database
from service.sweeps import actions as sweep_actions
from service.sweeps import decisions
from service.sweeps.proposer import Proposer
from workers.app import create_app
from workers.heartbeat import Heartbeat

ROUND_INTERVAL_S: Final = 1.0
STALE_QUEUED_S: Final = 10.0
"""After this waiting time, the hint for a job may be lost, and is sent again."""
ACCRUAL_INTERVAL_S: Final = 3.0
OUTAGE_INTERVAL_S: Final = 5.0
QUOTA_INTERVAL_S: Final = 20.0
SEAL_INTERVAL_S: Final = 10.0
CLEANUP_INTERVAL_S: Final = 600.0
SCRUB_INTERVAL_S: Final = 60.0
"""How soon reading stored files continues after an outage, and how late it begins again when it is due."""
SHUTDOWN_S: Final = 3.0
"""How long a scheduler that stops waits for the periodic work of each feature."""
_MAX_WAKE_UPS: Final = 32

log = structlog.get_logger()


def send_hints(sender: Celery | None, job_ids: Sequence[str]) -> None:
    """Tell workers of queued jobs. Without a message, they find the jobs within seconds."""
    if sender is None or not job_ids:
        return
    try:
        broker.send_hints(sender, job_ids[:_MAX_WAKE_UPS])
    except (OperationalError, redis.RedisError) as error:
        log.warning("the broker accepts no messages; workers poll the database", error=str(error))


def resend_hints(database: Database, sender: Celery | None) -> None:
    """Send hints again for jobs that have waited long."""
    with database.read() as session:
        # At most one hint per free slot, so that they do not pile up.
        responsive = worker_registry.responsive_workers(session)
        free_slots = sum(max(0, slots - worker.running) for worker, slots in responsive)
        job_ids = queue.stale_queued(session, waited_s=STALE_QUEUED_S, limit=min(free_slots, _MAX_WAKE_UPS))
    send_hints(sender, job_ids)


def fail_jobs_without_store(database: Database, settings: Settings) -> None:
    """Fail the jobs that have waited for an object store for too long. Those that wait for room in a folder continue
    once there is some."""
    if not settings.store:
        return
    timeout_s = settings.store_timeout_s
    for job_id in fail_without_store(database, timeout_s, then=decisions.after_result):
        log.error("no worker can use the store: a job has failed", job=job_id)


def apply_quotas(database: Database, quotas: Quotas) -> None:
    """Apply the settings for owners that decide whose jobs start."""
    owners.set_default_cap(database, quotas.running)
    usage.apply_cpu_quotas(database, quotas.cpu_seconds, on_block=_announce_cpu_quota)


def _announce_cpu_quota(session: Session, owner: str) -> None:
    data = {"id": "cpu_seconds", "url": "/ui/usage", "name": "CPU seconds in 30 days", "status": "exceeded"}
    hooks.happened(session, Happening(kind=HappeningKind.QUOTA_EXCEEDED, owner=owner, data=data))


def delete_expired_data(database: Database, files: UploadFiles, policy: Policy) -> None:
    """Delete orphaned files and expired data, except during a restore, whose files have no rows yet, and in a store of
    another service, which has other rows."""
    if retention.is_restoring(files.artifacts):
        return
    submissions.purge_expired(database)
    worker_registry.purge_expired(database)
    keys.purge_expired(database)
    sign_in_links.purge_expired(database)
    try:
        store_id.verify(database, files.store)
    except WrongStore as error:
        log.warning("no expired data is removed", error=str(error))
        return
    removed = retention.apply(database, files.store, policy)
    for kind, items in (
        ("job", removed.jobs),
        ("checkpoint", removed.checkpoints),
        ("cached picture", removed.pictures),
        ("orphaned file", removed.files),
    ):
        for item in items:
            log.info("removed", what=kind, name=item.name, size_bytes=item.size_bytes)
    if removed.audit_entries:
        log.info("removed", what="audit entries", count=removed.audit_entries)
    for expired in hooks.expired():
        if count := removed.rows[expired.name]:
            log.info("removed", what=expired.noun, count=count)

    for upload_id in uploads.purge(database):
        files.discard(upload_id)
        log.info("removed", what="deleted dataset", name=upload_id)

    def read_upload_ids() -> set[str]:
        with database.read() as session:
            return uploads.ids(session)

    for name in files.sweep(read_upload_ids, older_than_s=retention.STALE_FILE_S):
        log.info("removed", what="upload", name=name)


def read_stored_files(database: Database, files: UploadFiles, bytes_per_hour: int) -> None:
    """Find stored files that are damaged; returns when all were read, which may take days."""
    if bytes_per_hour == 0 or retention.is_restoring(files.artifacts):
        return
    try:
        file_checks.scrub(database, files, bytes_per_hour=bytes_per_hour)
    except WrongStore as error:
        log.warning("no stored file is read", error=str(error))


class _BackgroundTasks:
    """Runs all tasks but one in threads: no matter how long they take, expired leases are handled in time."""

    def __init__(self) -> None:
        self._threads: dict[str, threading.Thread] = {}

    def start(self, task_name: str, function: Callable[[], object]) -> None:
        """Start a task, unless its last run has not ended."""
        thread = self._threads.get(task_name)
        if thread is None or not thread.is_alive():
            thread = threading.Thread(target=self._try, args=(task_name, function), name=task_name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no thread available: the loop must continue to handle expired leases
                log.warning(f"could not {task_name}", error=str(error))
            else:
                self._threads[task_name] = thread

    @staticmethod
    def _try(task_name: str, function: Callable[[], object]) -> None:
        try:
            function()
        except (SQLAlchemyError, OSError) as error:
            log.warning(f"could not {task_name}", error=str(error))


def main() -> int:
    """Run until SIGTERM."""
    gc.freeze()  # imported modules stay: no collection scans them, as in a worker
    logs.configure("scheduler")
    try:
        settings = Settings.from_env(os.environ, cores=1)
    except SettingsError as error:
        sys.stderr.write(f"tapeline scheduler: {error}\n")
        return 2
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True  # Python swallows an exit that is raised while it finalizes an object
        sys.exit(0)

    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, stop)
    database = Database(settings.database_url, application="tapeline-scheduler")
    try:
        broker.require_kombu()
        server_promises.require(database.engine)
    except SettingsError as error:
        sys.stderr.write(f"tapeline scheduler: {error}\n")
        return 2
    sender = create_app(settings.broker_url) if settings.broker_url else None
    files = UploadFiles.of(settings)
    policy, heartbeat = LeaseExpiryPolicy(settings.lease_s), Heartbeat(settings.home, "scheduler")
    proposer, background = Proposer(database), _BackgroundTasks()
    of_features = hooks.periodic(database, settings)
    for work in of_features:
        atexit.register(work.wait, SHUTDOWN_S)
    for round_number in itertools.count():
        if stopping:
            break
        try:
            for job_id in rescue(database, policy):
                log.warning("requeued from a lost worker", job=job_id)
            if round_number % round(scheduler_heartbeat.INTERVAL_S / ROUND_INTERVAL_S) == 0:
                scheduler_heartbeat.beat(database)  # in this thread: it shows that leases are handled
        except SQLAlchemyError as error:
            log.warning("the database does not respond", error=str(error))
        background.start(
            "advance sweeps",
            lambda: send_hints(sender, sweep_actions.requeue_stragglers(database) + decisions.advance_all(database)),
        )
        background.start("make room for urgent jobs", lambda: owner_queue.preempt(database))
        if round_number % round(ACCRUAL_INTERVAL_S / ROUND_INTERVAL_S) == 0:
            background.start("charge owners", lambda: owner_queue.accrue(database))
        if round_number % round(OUTAGE_INTERVAL_S / ROUND_INTERVAL_S) == 0:
            background.start("fail jobs without a store", lambda: fail_jobs_without_store(database, settings))
        if round_number % round(QUOTA_INTERVAL_S / ROUND_INTERVAL_S) == 0:
            background.start("apply the quotas", lambda: apply_quotas(database, settings.quotas))
            background.start("lower priorities", lambda: actions.lower_urgent(database))
        for work in of_features:
            if round_number % round(work.interval_s / ROUND_INTERVAL_S) == 0:
                background.start(work.task, work.run)
        background.start("propose trials", lambda: send_hints(sender, proposer.propose_all()))
        if round_number % round(STALE_QUEUED_S / ROUND_INTERVAL_S) == 0:
            background.start("resend hints", lambda: resend_hints(database, sender))
        if round_number % round(SEAL_INTERVAL_S / ROUND_INTERVAL_S) == 0:
            background.start("seal the audit log", lambda: audit_seals.seal(database))
        if round_number % round(CLEANUP_INTERVAL_S / ROUND_INTERVAL_S) == 0:
            background.start(
                "delete expired data",
                lambda: delete_expired_data(database, files, Policy.of(settings)),
            )
            background.start("record the stored bytes", lambda: usage.record_bytes(database))
        if round_number % round(SCRUB_INTERVAL_S / ROUND_INTERVAL_S) == 0:
            background.start("read stored files", lambda: read_stored_files(database, files, settings.scrub_bytes))
        heartbeat.beat()
        time.sleep(ROUND_INTERVAL_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
