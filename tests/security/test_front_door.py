"""Attackers without a key: a page of another site in a user's browser, or a program on the network."""

from __future__ import annotations

import json
import re
import socket
import time

import pytest

from tests.security.conftest import OPERATOR_KEY, Stack
from tests.waiting import wait_until

SPEC = json.dumps({"kind": "classifier"}).encode()
JSON = ("Content-Type", "application/json")

FOREIGN_HOSTS = [
    None,
    "",
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
    "127.0.0.1@evil.example",
    "localhost, evil.example",
    "0.0.0.0",
    "10.0.0.1",
    "169.254.169.254",
    "2130706433",
    "[::ffff:10.0.0.1]",
    "[fe80::1]",
    "[::1",
    "localhost:80x",
    "localhost#",
    "localhost/..",
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_request_with_a_foreign_host_is_rejected_despite_a_valid_key(stack: Stack, host: str | None) -> None:
    key = ("Authorization", f"Bearer {OPERATOR_KEY}")
    headers = [key] if host is None else [key, ("Host", host)]
    for path in ("/jobs", "/healthz", "/ui/sign-in", "/static/common/app.css"):
        status, body = stack.raw("GET", path, headers)
        assert status in (400, 421), path
        assert b'"data"' not in body


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:65535", "[::1]:8000", "tapeline.localhost"])
def test_a_local_host_is_accepted(stack: Stack, host: str) -> None:
    assert stack.raw("GET", "/healthz", [("Host", host)])[0] == 200


def test_a_request_with_two_host_headers_is_rejected(stack: Stack) -> None:
    with socket.create_connection(("127.0.0.1", stack.port), timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert re.match(rb"HTTP/1.1 4", connection.recv(64))


FOREIGN_PAGES = [
    [("Origin", "http://evil.example")],
    [("Origin", "null")],
    [("Origin", "http://localhost:1")],
    [("Origin", "http://localhost.evil.example")],
    [("Origin", "https://evil.example#localhost")],
    [("Sec-Fetch-Site", "cross-site")],
    [("Sec-Fetch-Site", "same-site"), ("Origin", "http://localhost")],
    [("Referer", "http://evil.example/")],  # does not count as an origin: a cookie alone is not enough
    [],
]


@pytest.fixture(scope="module")
def cookie(stack: Stack) -> str:
    with stack.client(None) as browser:
        response = browser.post("/session", json={"key": stack.keys["ann"]}, headers={"Sec-Fetch-Site": "same-origin"})
        assert response.status_code == 201
        assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in response.headers["Set-Cookie"].split(";")}
        return response.headers["Set-Cookie"].partition(";")[0]


@pytest.mark.parametrize("headers", FOREIGN_PAGES)
def test_a_foreign_page_cannot_use_the_cookie(stack: Stack, cookie: str, headers: list[tuple[str, str]]) -> None:
    page_headers = [("Host", "localhost"), ("Cookie", cookie), *headers]
    before = stack.raw("GET", "/jobs", page_headers)
    for method, path, body_headers in (
        ("POST", "/jobs", [JSON]),
        ("POST", "/jobs", [("Content-Type", "text/plain")]),
        ("POST", "/jobs/job_01J00000000000000000000000/cancel", []),
        ("DELETE", "/jobs/job_01J00000000000000000000000", []),
        ("PATCH", "/jobs/job_01J00000000000000000000000", [JSON]),
    ):
        status, body = stack.raw(method, path, page_headers + body_headers, SPEC)
        assert (status, json.loads(body)["code"]) == (403, "foreign_origin")
    assert stack.raw("GET", "/jobs", page_headers) == before
    own = [("Host", "localhost"), ("Cookie", cookie), ("Origin", "http://localhost")]
    assert stack.raw("POST", "/jobs?dry_run=true", [*own, JSON], SPEC)[0] == 200


def test_no_response_permits_cross_origin_reads(stack: Stack, cookie: str) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST", "Cookie": cookie}
    with stack.client(None) as http:
        for method in ("OPTIONS", "GET"):
            response = http.request(method, "/jobs", headers=headers)
            assert not [name for name in response.headers if name.startswith("access-control")]
            assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "tpl_",
        "tpl_0123456789ab_" + "0" * 64,
        OPERATOR_KEY[:-1],
        OPERATOR_KEY + "x",
        OPERATOR_KEY.upper(),
        "' OR 1=1 --",
        "a" * 5000,
    ],
)
def test_a_wrong_key_is_rejected_in_every_place(stack: Stack, key: str) -> None:
    for headers in (
        [("Authorization", f"Bearer {key}")],
        [("Cookie", f"tapeline_session={key}")],
        [("X-Api-Key", key)],
    ):
        status, body = stack.raw("GET", "/jobs", [("Host", "localhost"), *headers])
        assert (status, json.loads(body)["code"]) in ((401, "key_required"), (429, "rate_limited"))
    assert stack.raw("GET", f"/jobs?key={OPERATOR_KEY}", [("Host", "localhost")])[0] == 401


def test_every_response_has_strict_headers_and_only_pages_are_html(stack: Stack) -> None:
    with stack.client("ann") as ann:
        paths = (
            "/",
            "/docs",
            "/ui/sign-in",
            "/jobs",
            "/nothing",
            "/openapi.json",
            "/static/common/app.css",
            "/healthz",
        )
        for path in paths:
            response = ann.get(path)
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["X-Frame-Options"] == "DENY"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            policy = response.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "http" not in policy
            is_page = path in ("/", "/docs", "/ui/sign-in")
            assert response.headers["Content-Type"].startswith("text/html") is is_page
            assert ("script-src 'self';" in policy) is is_page
            assert not re.search(r"\d|python", response.headers.get("Server", ""), re.IGNORECASE)
        preview = ann.post("/jobs?dry_run=true", json={"kind": "classifier", "name": "<script>alert(1)</script>"})
        assert preview.headers["Content-Type"] == "application/json"


@pytest.mark.stack
def test_a_revoked_key_is_rejected_within_seconds(stack: Stack) -> None:
    key = stack.tapeline("keys", "create", "short-lived")
    with stack.client(None) as http:
        bearer = {"Authorization": f"Bearer {key}"}
        assert http.get("/jobs", headers=bearer).status_code == 200
        stack.tapeline("keys", "revoke", "short-lived")
        revoked = time.monotonic()
        while http.get("/jobs", headers=bearer).status_code == 200:
            assert time.monotonic() - revoked < 6, "the promise is two seconds"
            time.sleep(0.1)
        expiring = stack.tapeline("keys", "create", "expiring", "--expires", "1m")
        assert http.get("/jobs", headers={"Authorization": f"Bearer {expiring}"}).status_code == 200
    assert key not in stack.tapeline("keys", "list", "--json")
    audited_actions = [json.loads(line)["action"] for line in stack.tapeline("audit", "--json").splitlines()]
    assert {"create_key", "revoke_key"} <= set(audited_actions)


def test_no_key_is_in_any_file_of_the_state_folder(stack: Stack, cookie: str) -> None:
    secrets = [*stack.keys.values(), cookie.partition("=")[2]]
    for secret in secrets:  # everywhere a careless client might put it
        for path in (f"/jobs/{secret}", f"/{secret}", f"/jobs?q={secret}", f"/ui/jobs/{secret}"):
            stack.raw(
                "GET", path, [("Host", "localhost"), ("X-Request-Id", secret), ("Authorization", f"Bearer {secret}")]
            )
        stack.raw("GET", "/jobs", [("Host", "localhost"), ("Bad Header " + secret, "x")])
        stack.raw("GET", "/jobs", [("Host", secret)])
    stack.raw("GET", "/jobs", [("Host", "localhost"), ("X-Request-Id", "the-last-request")])
    log = stack.home / "logs" / "web.log"
    wait_until(lambda: "the-last-request" in log.read_text(), "the log of the last request")
    files = {str(path.relative_to(stack.home)): path for path in stack.home.rglob("*") if path.is_file()}
    assert {"tapeline.db", "logs/web.log", "logs/worker.log"} <= files.keys()
    assert any(name.startswith("broker/") for name in files)
    assert len((stack.home / "logs" / "web.log").read_text()) > 1000
    for name, path in files.items():
        content = path.read_bytes()
        assert [secret[:20] for secret in secrets if secret.encode() in content] == [], name
