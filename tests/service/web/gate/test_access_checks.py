from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.access.keys import of_settings
from service.runtime.settings import Auth
from service.web.gate.host_names import HostNames

Submit = Callable[..., str]

KEYS = ("first-key", "second-key")


@pytest.fixture
def keyed_app(make_app: Callable[..., Flask], sqlite_url: str) -> Flask:
    return make_app(sqlite_url, auth=Auth.KEYS, api_keys=KEYS)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("LOCALHOST:1", True),
        ("localhost.", True),
        ("tapeline.localhost:8000", True),
        ("127.0.0.1:8000", True),
        ("127.9.9.9", True),
        ("[::1]:8000", True),
        ("[::1]", True),
        ("train.example", True),
        ("Train.Example:8000", True),
        ("other.example", False),
        ("localhost.evil.example", False),
        ("evil.example:8000", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("169.254.169.254", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("evil.example#localhost", False),
        ("", False),
        (":8000", False),
        ("localhost:", False),
        ("localhost:80x", False),
        ("localhost:\u00b2", False),
        ("localhost:123456", False),
        ("localhost,evil.example", False),
        ("localhost evil.example", False),
        ("localhost/", False),
        ("user@localhost", False),
        ("::1", False),
        ("]::1[", False),
        ("[::1", False),
        ("[::1]evil.example", False),
        ("[::ffff:10.0.0.1]", False),
        ("[fe80::1%25eth0]", False),
        ("2130706433", False),
        ("0x7f000001", False),
        ("xn--localhost.example", False),
        ("localtest.me", False),
        ("127.0.0.1.nip.io", False),
    ],
)
def test_only_local_and_allowed_host_names_are_known(
    make_app: Callable[..., Flask], sqlite_url: str, host: str, known: bool
) -> None:
    assert HostNames(frozenset({"train.example"})).include(host) is known
    client = make_app(sqlite_url, allowed_hosts=("train.example",)).test_client()
    answer = client.get("/healthz", headers={"Host": host})
    if known:
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json["code"]) == (421, "foreign_host")


ORIGINS = [
    ({}, True),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Origin": "https://localhost"}, True),  # a proxy in front terminates TLS
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, False),
    ({"Origin": "http://evil.example"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": ""}, False),
    ({"Origin": "http://localhost:9999"}, False),
    ({"Origin": "http://localhost.evil.example"}, False),
    ({"Origin": "http://["}, False),
    ({"Origin": "file://localhost"}, False),
]


@pytest.mark.parametrize(("headers", "allowed"), ORIGINS)
def test_foreign_pages_cannot_change_anything(client: FlaskClient, headers: dict[str, str], allowed: bool) -> None:
    answer = client.post("/jobs", headers=headers)
    assert (answer.status_code != 403) is allowed
    if not allowed:
        assert answer.json["code"] == "foreign_origin"


def test_cross_site_reads_are_answered_without_cors_headers(client: FlaskClient) -> None:
    answer = client.get("/jobs", headers={"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"})
    assert answer.status_code == 200
    assert "Access-Control-Allow-Origin" not in answer.headers
    preflight = client.options("/jobs", headers={"Origin": "http://evil.example"})
    assert not [name for name, _ in preflight.headers if name.startswith("Access-Control")]


def test_a_request_with_a_key_may_have_any_origin(keyed_app: Flask) -> None:
    headers = bearer(KEYS[0]) | {"Origin": "http://other.example"}
    assert keyed_app.test_client().post("/jobs", json={"kind": "gan"}, headers=headers).status_code == 201


@pytest.mark.parametrize(
    "headers", [{}, bearer("wrong"), bearer(""), {"Authorization": "Basic Zmlyc3Qta2V5"}, bearer("ü")]
)
def test_only_probes_sign_in_and_static_files_need_no_valid_key(keyed_app: Flask, headers: dict[str, str]) -> None:
    client = keyed_app.test_client()
    for path in ("/jobs", "/", "/docs", "/nothing", "/session", "/workers"):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.json["code"]) == (401, "key_required")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert client.get("/healthz", headers=headers).status_code == 200
    assert client.get("/readyz", headers=headers).status_code == 200
    for path in ("/ui/sign-in", "/static/common/app.css"):
        with client.get(path, headers=headers) as public:
            assert public.status_code == 200


def test_each_key_grants_access_and_identifies_its_owner(keyed_app: Flask) -> None:
    client = keyed_app.test_client()
    for key in KEYS:
        created = client.post("/jobs", json={"kind": "gan"}, headers=bearer(key))
        assert created.json["owner"] == of_settings(key).owner
        assert key not in created.text
        assert [job["id"] for job in client.get("/jobs", headers=bearer(key)).json["data"]] == [created.json["id"]]
