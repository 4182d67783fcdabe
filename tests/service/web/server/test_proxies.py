"""Forwarded headers apply only if the settings trust the proxy."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask

from service.access import keys
from service.runtime.settings import Auth
from service.web.core.core import EXTENSION

MakeApp = Callable[..., Flask]


def session_cookie(app: Flask, **headers: str) -> str:
    database = app.extensions[EXTENSION].database
    key = keys.create(database, name=f"k{id(headers)}", owner="ann", scope=keys.Scope.READ)[1]
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = app.test_client().post("/session", json={"key": key}, headers={"Sec-Fetch-Site": "same-origin", **extra})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["Set-Cookie"])


@pytest.mark.parametrize(("proxies", "secure"), [(0, False), (1, True)])
def test_a_forwarded_scheme_makes_cookies_secure_if_the_proxy_is_trusted(
    make_app: MakeApp, sqlite_url: str, proxies: int, secure: bool
) -> None:
    app = make_app(sqlite_url, auth=Auth.KEYS, proxies=proxies)
    assert ("Secure" in session_cookie(app, X_Forwarded_Proto="https")) is secure
    assert "Secure" not in session_cookie(app)


def test_a_forwarded_host_is_the_host_if_the_proxy_is_trusted(make_app: MakeApp, sqlite_url: str) -> None:
    forwarded = {"X-Forwarded-Host": "tapeline.example"}
    direct = make_app(sqlite_url, allowed_hosts=("tapeline.example",))
    assert direct.test_client().get("/healthz", headers={"Host": "inside:8000", **forwarded}).status_code == 421
    proxied = make_app(sqlite_url, allowed_hosts=("tapeline.example",), proxies=1)
    assert proxied.test_client().get("/healthz", headers={"Host": "inside:8000", **forwarded}).status_code == 200
    spoofed = {"X-Forwarded-Host": "tapeline.example, evil.example"}  # the last one is what the proxy saw
    assert proxied.test_client().get("/healthz", headers={"Host": "inside:8000", **spoofed}).status_code == 421
