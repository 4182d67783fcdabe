"""The worker process: a supervisor and Celery, which receives messages."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
from typing import Final

import structlog
from celery import bootsteps, signals

from service.errors import SettingsError
from service.runtime import broker, logs, machine_limits, server_promises, tracing
from service.runtime.settings import Settings
from service.storage.database import Database
from workers.app import create_app
from workers.supervisor.supervisor import Supervisor

log = structlog.get_logger()

MIN_RESTART_DELAY_S: Final = 1.0
MAX_RESTART_DELAY_S: Final = 30.0
"""The delay before Celery is restarted doubles between these limits."""
CELERY_GRACE_S: Final = 2.0
"""Time for Celery to exit once no job runs."""


def main() -> int:
    """Run until SIGTERM: then release the running jobs and stop. After SIGUSR1, finish them and claim no others."""
    gc.freeze()  # imported modules stay: no collection scans them, and the exit takes 0.4 s of CPU less
    logs.configure("worker")
    try:
        settings = Settings.from_env(os.environ, cores=machine_limits.processors())
        tracing.start("worker", os.environ, is_child=settings.otel_parent == "child")
    except SettingsError as error:
        sys.stderr.write(f"tapeline worker: {error}\n")
        return 2
    if settings.broker_url is None:
        sys.stderr.write("tapeline worker: set TAPELINE_BROKER_URL, or start everything with: tapeline up\n")
        return 2
    # All jobs share one connection: of hundreds of workers, each takes one place on the server.
    database = Database(settings.database_url, application="tapeline-worker", idle_connections=1, connections=1)
    try:
        broker.require_kombu()
        server_promises.require(database.engine)
    except SettingsError as error:
        sys.stderr.write(f"tapeline worker: {error}\n")
        return 2
    supervisor = Supervisor(settings, database)

    # Celery's warm shutdown waits for running tasks; these end when the children have released their jobs.
    @signals.worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]  # celery has no types
    def drain(**_: object) -> None:
        supervisor.drain()
        threading.Thread(target=force_exit, name="leave", daemon=True).start()

    def force_exit() -> None:
        """End the process even if Celery waits for a broker that does not respond."""
        supervisor.close()
        tracing.stop()
        time.sleep(CELERY_GRACE_S)
        os._exit(0)

    # A receiver of this signal keeps Celery from installing its own handlers and levels, which would hide our log.
    @signals.setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]  # celery has no types
    def keep_logging(**_: object) -> None:
        logging.getLogger("celery").setLevel(logging.WARNING)

    def stop(*_: object) -> None:
        drain()  # Python swallows an exit that is raised while it finalizes an object
        sys.exit(0)

    # Until Celery installs its own handlers: that of SIGTERM sends ``worker_shutting_down``.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGUSR1, lambda *_: supervisor.claim_no_more())
    try:
        # Before Celery connects: a worker without its broker polls the database.
        supervisor.start()
        listen(settings, supervisor)
    finally:
        supervisor.close()
        tracing.stop()
    return 0


def listen(settings: Settings, supervisor: Supervisor) -> None:
    """Run Celery, which receives messages, until the worker stops.

    If Celery ends for another reason, it is restarted; jobs continue, since the supervisor polls the database.
    """
    flags = ["--pool=threads", f"--concurrency={settings.workers}", "--without-gossip", "--without-mingle"]
    delay_s = MIN_RESTART_DELAY_S
    while True:
        started_at = time.monotonic()
        app = create_app(settings.broker_url or "", supervisor.run_waiting_jobs)
        app.steps["worker"].add(_restore_sigusr1)
        try:
            app.worker_main(["--quiet", "worker", *flags, "--loglevel=WARNING"])
        except SystemExit:
            if supervisor.is_draining:
                raise
        except Exception as error:  # noqa: BLE001 - no error of Celery affects jobs
            log.error("Celery failed", error=repr(error))
        if supervisor.is_draining:
            return
        if time.monotonic() - started_at > MAX_RESTART_DELAY_S:
            delay_s = MIN_RESTART_DELAY_S
        log.error("Celery has ended; this worker continues and restarts it", delay_s=delay_s)
        time.sleep(delay_s)
        delay_s = min(2 * delay_s, MAX_RESTART_DELAY_S)


class _restore_sigusr1(bootsteps.StartStopStep):  # type: ignore[misc]  # noqa: N801 - celery has no types
    """Keeps this process's handler of SIGUSR1, which Celery replaces when it starts with one that prints stacks."""

    def __init__(self, parent: object, **options: object) -> None:
        self._handler = signal.getsignal(signal.SIGUSR1)
        super().__init__(parent, **options)

    def start(self, parent: object) -> None:
        signal.signal(signal.SIGUSR1, self._handler)
