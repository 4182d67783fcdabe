"""The WSGI app: ``gunicorn -c python:service.web.gunicorn_conf service.web.wsgi:app``."""

from __future__ import annotations

import os
import sys

from service.errors import SettingsError
from service.runtime import logs, machine_limits, tracing
from service.runtime.settings import Settings
from service.web.app import create_app

try:
    _settings = Settings.from_env(os.environ, cores=machine_limits.processors())
    tracing.start("web", os.environ)
except SettingsError as error:
    sys.exit(f"tapeline: {error}")

logs.configure_web(_settings.api_keys)
app = create_app(_settings)
