"""Configuration of gunicorn: many threads, since an open stream occupies one; a single process with SQLite."""

from __future__ import annotations

import gc
import os
import shutil
import sys
from contextlib import closing
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from service.access import keys
from service.errors import SettingsError
from service.runtime import broker, machine_limits, process_limits, server_promises, tracing
from service.runtime.logs import Redacting
from service.runtime.settings import Auth, Settings, is_loopback
from service.storage.database import Database
from service.web.http.request_limits import ARRIVALS, MAX_ARRIVALS
from service.web.http.slots import MAX_REQUESTS
from service.web.server.balance import CONNECTIONS, raise_limit
from service.web.streaming.poller import MAX_CLIENTS

_RESERVED_THREADS: Final = 56
"""Threads that streams, slow requests and requests that wait for slots cannot occupy."""

try:
    _settings = Settings.from_env(os.environ, cores=machine_limits.processors())
except SettingsError as error:
    sys.exit(f"tapeline: {error}")

raise_limit()
process_limits.return_large_blocks()
if _settings.proxies:
    ARRIVALS.disable_address_limit()
bind = [f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"]
worker_class = "service.web.server.gunicorn_worker.Worker"
workers = 1 if _settings.embedded_database else min(4, machine_limits.processors())
threads = MAX_CLIENTS + MAX_ARRIVALS + MAX_REQUESTS + _RESERVED_THREADS  # started on demand
worker_connections = 1500
preload_app = False  # connection pools and threads must be created after the fork
timeout = 60
graceful_timeout = 10
keepalive = 5
limit_request_line = 8190  # a comparison of 200 jobs has a URL of 6 KB
forwarded_allow_ips = ""  # the app evaluates forwarded headers itself: see TAPELINE_PROXIES
accesslog = None  # the app logs requests itself, with request ids
errorlog = "-"
loglevel = "warning"
control_socket_disable = True


if workers > 1:
    # The folder in which the processes add up their metrics. It must be set before gunicorn imports the worker class,
    # and with it prometheus_client, which reads the variable only on import.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(machine_limits.new_folder("metrics"))


def on_starting(server: Any) -> None:
    """Before the first fork: redact keys in gunicorn's log, and exit on what cannot keep the promises of the service,
    and if keys are required and none exists."""
    for handler in server.log.error_log.handlers:
        handler.addFilter(Redacting(_settings.api_keys))
    with closing(Database(_settings.database_url, application="tapeline-web")) as database:
        try:
            broker.require_kombu()
            server_promises.require(database.engine)
            keys.require_any_key(_settings, database)
        except SettingsError as error:
            sys.exit(f"tapeline: {error}")
        except SQLAlchemyError:
            pass  # without the database no key is valid; `/readyz` reports it


def post_fork(server: Any, worker: Any) -> None:
    """Pause garbage collection during the import of the app: it frees nothing and takes a quarter of the startup."""
    gc.disable()


def post_worker_init(worker: Any) -> None:
    """Exclude the imported objects from later collections."""
    gc.freeze()
    gc.enable()


def when_ready(server: Any) -> None:
    """Refuse to listen on a non-loopback address without keys, also with `--bind`, and to terminate TLS."""
    if server.cfg.is_ssl:  # deadlines work on plain sockets only
        sys.exit("tapeline: gunicorn's --certfile and --keyfile are not supported: terminate TLS in a proxy")
    for listener in server.LISTENERS:
        name = listener.sock.getsockname()
        is_public = isinstance(name, tuple) and not is_loopback(name[0])
        if is_public and not _settings.keys_required and _settings.auth is not Auth.LOCAL:
            sys.exit(
                f"tapeline: gunicorn listens on {name[0]}, a non-loopback address, but no API keys are required with "
                f"TAPELINE_HOST={_settings.host}: set TAPELINE_HOST to the same address, or TAPELINE_AUTH=keys"
            )


def worker_exit(server: Any, worker: Any) -> None:
    """Send the last spans of a process that ends."""
    tracing.stop()


def child_exit(server: Any, worker: Any) -> None:
    """Drop the connections of a process that exited, and its gauges; its counters stay."""
    CONNECTIONS.remove(worker.age)
    if workers > 1:
        from prometheus_client import multiprocess  # not at the top: see PROMETHEUS_MULTIPROC_DIR

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """Remove the folder of the metrics when the master exits."""
    if workers > 1:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
