"""How gunicorn serves: threads, since an open stream holds one, and few processes, since SQLite has one writer."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import closing
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from service.access import keys
from service.errors import SettingsError
from service.runtime import temporary
from service.runtime.logs import Redacting
from service.runtime.settings import Auth, Settings, is_loopback
from service.storage.database import Database
from service.web.server.arrivals import ARRIVALS, MAX_ARRIVALS
from service.web.server.descriptors import raise_limit
from service.web.streaming.stream import MAX_CLIENTS

_QUICK: Final = 56
"""Threads that no stream and no slow request can take."""

try:
    _settings = Settings.from_env(os.environ, cores=os.cpu_count() or 1)
except SettingsError as error:
    sys.exit(f"tapeline: {error}")

raise_limit()
if _settings.proxies:
    ARRIVALS.trust_no_address()
bind = [f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"]
worker_class = "service.web.server.gunicorn_worker.Worker"
workers = 1 if _settings.embedded_database else min(4, os.cpu_count() or 1)
threads = MAX_CLIENTS + MAX_ARRIVALS + _QUICK  # made when they are needed
worker_connections = 1500
preload_app = False  # a connection pool or a thread made before the fork would be shared, and break
timeout = 60
graceful_timeout = 10
keepalive = 5
limit_request_line = 8190  # the ids of 200 jobs to compare take 6 KB
forwarded_allow_ips = ""  # the app itself decides whom it believes: see TAPELINE_PROXIES
accesslog = None  # the app writes its own, with request ids
errorlog = "-"
loglevel = "warning"
control_socket_disable = True


if workers > 1:
    # Where the processes add up what they count. Already here: what comes next, the worker's class, imports the
    # library, which looks for the variable then and never again.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(temporary.new_folder("metrics"))


def on_starting(server: Any) -> None:
    """Before the first fork: refuse to ask for keys where there is none, and keep those there are out of the log."""
    for handler in server.log.error_log.handlers:
        handler.addFilter(Redacting(_settings.api_keys))
    with closing(Database(_settings.database_url, application="tapeline-web")) as database:
        try:
            keys.require_some(_settings, database)
        except SettingsError as error:
            sys.exit(f"tapeline: {error}")
        except SQLAlchemyError:
            pass  # a database that is away opens nothing either; `/readyz` tells of it


def when_ready(server: Any) -> None:
    """Refuse to listen where strangers are and no key is asked for, whatever `--bind` says, and to end TLS here."""
    if server.cfg.is_ssl:  # deadlines are kept by the plain socket, which a TLS connection replaces
        sys.exit("tapeline: gunicorn's --certfile and --keyfile are not supported: terminate TLS in a proxy")
    for listener in server.LISTENERS:
        name = listener.sock.getsockname()
        strangers = isinstance(name, tuple) and not is_loopback(name[0])
        if strangers and not _settings.keys_required and _settings.auth is not Auth.LOCAL:
            sys.exit(
                f"tapeline: gunicorn listens on {name[0]}, beyond this machine, and TAPELINE_HOST={_settings.host} "
                "asks for no keys: set TAPELINE_HOST to the same address, or TAPELINE_AUTH=keys"
            )


def child_exit(server: Any, worker: Any) -> None:
    """What a process that has ended held open is not open any more; what it counted still counts."""
    if workers > 1:
        from prometheus_client import multiprocess  # not above: see PROMETHEUS_MULTIPROC_DIR

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """The master ends last."""
    if workers > 1:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
