"""How gunicorn serves: threads, since an open stream holds one, and few processes, since SQLite has one writer."""

from __future__ import annotations

import os
import sys
from typing import Final

from service.contract.errors import SettingsError
from service.contract.settings import Settings
from service.web.stream import MAX_CLIENTS

_QUICK: Final = 56
"""Threads that no stream can take."""

try:
    _settings = Settings.from_env(os.environ, cores=os.cpu_count() or 1)
except SettingsError as error:
    sys.exit(f"tapeline: {error}")

bind = [f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"]
worker_class = "service.web.gunicorn_worker.Worker"
workers = 1 if _settings.embedded_database else min(4, os.cpu_count() or 1)
threads = MAX_CLIENTS + _QUICK  # made when they are needed
worker_connections = 1000
preload_app = False  # a connection pool or a thread made before the fork would be shared, and break
timeout = 60
graceful_timeout = 10
keepalive = 5
accesslog = None  # the app writes its own, with request ids
errorlog = "-"
loglevel = "warning"
control_socket_disable = True
