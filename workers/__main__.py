"""A worker: ``python -m workers``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from typing import Final

from celery import signals

from service.contract import logs
from service.contract.database import Database
from service.contract.errors import SettingsError
from service.contract.settings import Settings
from workers.app import create_app
from workers.supervise import Supervisor

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
    app = create_app(settings.broker_url, supervisor.look)

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
        flags = ["--pool=threads", f"--concurrency={settings.workers}", "--without-gossip", "--without-mingle"]
        app.worker_main(["--quiet", "worker", *flags, "--loglevel=WARNING"])
    finally:
        supervisor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
