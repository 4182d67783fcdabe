"""A worker: ``python -m workers``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from typing import Final

import structlog
from celery import signals

from service.errors import SettingsError
from service.runtime import logs
from service.runtime.settings import Settings
from service.storage.database import Database
from workers.app import create_app
from workers.supervisor.supervise import Supervisor

log = structlog.get_logger()

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
"""Before Celery is started again."""
CELERY_GRACE_S: Final = 2.0
"""How long Celery may take to end once no job runs any more."""


def main() -> int:
    """Run until SIGTERM: then hand the running jobs back and stop."""
    logs.configure("worker")
    try:
        settings = Settings.from_env(os.environ, cores=os.cpu_count() or 1)
    except SettingsError as error:
        sys.stderr.write(f"tapeline worker: {error}\n")
        return 2
    if settings.broker_url is None:
        sys.stderr.write("tapeline worker: set TAPELINE_BROKER_URL, or start everything with: tapeline up\n")
        return 2
    supervisor = Supervisor(settings, Database(settings.database_url, application="tapeline-worker"))

    # Celery's warm shutdown waits for running tasks; these end when the children have let go.
    @signals.worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]  # celery has no types
    def drain(**_: object) -> None:
        supervisor.drain()
        threading.Thread(target=leave, name="leave", daemon=True).start()

    def leave() -> None:
        """End the process even where Celery waits for a broker that says nothing."""
        supervisor.close()
        time.sleep(CELERY_GRACE_S)
        os._exit(0)

    # Whoever takes this signal keeps Celery from setting levels and handlers of its own, which hid our lines.
    @signals.setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]  # celery has no types
    def keep_ours(**_: object) -> None:
        logging.getLogger("celery").setLevel(logging.WARNING)

    def stop(*_: object) -> None:
        drain()  # Python swallows an exit that is raised while it tidies an object away
        sys.exit(0)

    # Until Celery has its own handler; then it stops by the signal above.
    signal.signal(signal.SIGTERM, stop)
    try:
        # Before Celery connects: a worker without its broker still looks into the database.
        supervisor.start()
        listen(settings, supervisor)
    finally:
        supervisor.close()
    return 0


def listen(settings: Settings, supervisor: Supervisor) -> None:
    """Let Celery take messages until the worker is told to stop.

    Where Celery gives up, for whatever reason, jobs go on: the supervisor looks into the database by itself, and Celery
    begins anew.
    """
    flags = ["--pool=threads", f"--concurrency={settings.workers}", "--without-gossip", "--without-mingle"]
    pause_s = FIRST_PAUSE_S
    while True:
        began = time.monotonic()
        app = create_app(settings.broker_url or "", supervisor.look)
        try:
            app.worker_main(["--quiet", "worker", *flags, "--loglevel=WARNING"])
        except SystemExit:
            if supervisor.is_draining:
                raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the jobs have nothing to do with it
            log.error("Celery failed", error=repr(error))
        if supervisor.is_draining:
            return
        if time.monotonic() - began > LONGEST_PAUSE_S:
            pause_s = FIRST_PAUSE_S
        log.error("Celery has ended; this worker goes on, and starts it again", pause_s=pause_s)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


if __name__ == "__main__":
    sys.exit(main())
