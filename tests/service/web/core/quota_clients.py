"""Clients of services with quotas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from service.access import keys
from service.access.keys import Scope
from service.runtime.settings import Auth, Quotas
from service.web.core.core import EXTENSION, Core

MakeApp = Callable[..., Flask]
SPEC = {"kind": "classifier"}


def keyed(make_app: MakeApp, url: str, **changes: Any) -> Flask:
    quotas = {name: changes.pop(name) for name in list(changes) if name in Quotas.__dataclass_fields__}
    return make_app(url, auth=Auth.KEYS, quotas=Quotas(**quotas), **changes)


def client_of(app: Flask, owner: str = "ann", *, scope: Scope = Scope.SUBMIT) -> FlaskClient:
    core: Core = app.extensions[EXTENSION]
    _, key = keys.create(core.database, name=owner, owner=owner, scope=scope)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    return client


def check_refusal(answer: Any, code: str) -> int:
    assert (answer.status_code, answer.json["code"]) == (429, code)
    wait_s = int(answer.headers["Retry-After"])
    assert wait_s == answer.json["retry_after_s"] >= 1
    return wait_s
