"""Apps that tests borrow: built once, and attached to a new service for each test."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Flask

from service.runtime.settings import Settings
from service.web.app import attach, build_app
from service.web.core.core import EXTENSION, Core, provided
from service.web.streaming.poller import Poller

_NOT_BUILT = frozenset({"extensions", "wsgi_app", "_got_first_request", "logger"})
"""Attributes of an app that belong to its service, or that Flask changes with the first request."""


class AppChanged(AssertionError):
    """A test has left a route, a hook, a setting or another part of its own in an app."""


@dataclass(frozen=True, slots=True)
class _Loan:
    built: Mapping[str, Any]
    """The parts of the app before the first service."""
    threads: frozenset[threading.Thread]
    """Those that ran before."""


_idle = list[tuple[Flask, Mapping[str, Any]]]()
_lent = dict[Flask, _Loan]()


def borrow_app(settings: Settings) -> Flask:
    """An app that serves these settings, and that no one else uses until ``shut_down_app`` takes it back."""
    if _idle:
        app, built = _idle.pop()
    else:
        app = build_app()
        built = _parts(app)
    _lent[app] = _Loan(built, frozenset(threading.enumerate()))
    attach(app, settings)
    return app


def shut_down_app(app: Flask) -> None:
    """End an app's threads, close its connections, and detach a borrowed app from its service.

    Raises:
        AppChanged: it is not as it was built; nobody borrows it again.
    """
    core: Core = app.extensions[EXTENSION]
    poller = provided(Poller, app)
    poller.closing = True
    core.keyring.close()
    deadline = time.monotonic() + 5
    # The threads may still use connections.
    while poller.is_reading and time.monotonic() < deadline:
        time.sleep(0.02)
    core.database.close()
    loan = _lent.pop(app, None)
    if loan is None:
        return
    parts = _parts(app)
    changed = {name for name in parts.keys() | loan.built.keys() if parts.get(name) != loan.built.get(name)}
    if changed:
        raise AppChanged(f"a test has changed an app that others borrow: {', '.join(sorted(changed))}")
    if loan.threads.issuperset(threading.enumerate()):  # a thread that still responds must not see the next service
        app.extensions.clear()
        vars(app).pop("wsgi_app", None)
        _idle.append((app, loan.built))


def _parts(app: Flask) -> Mapping[str, Any]:
    """All that a test could add to an app."""
    environment = app.jinja_env
    parts = {name: value for name, value in vars(app).items() if name not in _NOT_BUILT}
    templates = {name: getattr(environment, name) for name in ("globals", "filters", "tests", "loader", "extensions")}
    frozen: dict[str, Any] = _frozen(parts | {"routes": list(app.url_map.iter_rules()), "templates": templates})
    return frozen


def _frozen(value: Any) -> Any:
    """A copy of nested containers without empty ones: looking for a handler, Flask creates these."""
    if isinstance(value, dict):
        return {key: item for key, item in ((key, _frozen(item)) for key, item in value.items()) if item != {}}
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value)) or {}
    return value
