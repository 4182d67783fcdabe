from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.access import keys
from service.access.keys import Scope
from service.runtime.settings import Auth
from service.web.core.core import EXTENSION, Core
from service.web.core.quotas import SIGN_INS
from service.web.gate.access_checks import COOKIE

OWN_ORIGIN = {"Origin": "http://localhost"}


@pytest.fixture
def keyed(make_app: Callable[..., Flask], sqlite_url: str) -> Flask:
    return make_app(sqlite_url, auth=Auth.KEYS, api_keys=("chosen-by-the-operator",))


@pytest.fixture
def make_key(keyed: Flask) -> Callable[..., str]:
    core: Core = keyed.extensions[EXTENSION]

    def make(owner: str = "ann", scope: Scope = Scope.SUBMIT, lifetime_s: float | None = None) -> str:
        return keys.create(core.database, name="k", owner=owner, scope=scope, lifetime_s=lifetime_s)[1]

    return make


def sign_in(client: FlaskClient, key: str, **headers: str) -> Any:
    return client.post("/session", json={"key": key}, headers=OWN_ORIGIN | headers)


def test_a_key_can_be_exchanged_for_a_cookie_with_the_same_access(keyed: Flask, make_key: Callable[..., str]) -> None:
    key, client = make_key(), keyed.test_client()
    signed_in = sign_in(client, key)
    assert signed_in.status_code == 201
    assert (signed_in.json["owner"], signed_in.json["scope"], signed_in.json["key"]) == ("ann", "submit", "k")
    cookie = signed_in.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie
    assert "Domain" not in cookie
    assert key not in cookie
    created = client.post("/jobs", json={"kind": "classifier"}, headers=OWN_ORIGIN)
    assert (created.status_code, created.json["owner"]) == (201, "ann")
    assert client.get("/session").json == signed_in.json
    for path in ("/", "/docs", f"/ui/jobs/{created.json['id']}"):
        assert "Sign out" in client.get(path).text
    bearer_response = keyed.test_client().get("/jobs", headers={"Authorization": f"Bearer {key}"})
    assert [job["id"] for job in bearer_response.json["data"]] == [created.json["id"]]


def test_streams_accept_the_cookie(keyed: Flask, make_key: Callable[..., str]) -> None:
    client = keyed.test_client()
    sign_in(client, make_key())
    job_id = client.post("/jobs", json={"kind": "classifier"}, headers=OWN_ORIGIN).json["id"]
    for path in (f"/jobs/{job_id}/stream", "/stream"):
        with client.get(path) as answer:
            assert answer.status_code == 200
            assert b"snapshot" in b"".join(next(answer.response) for _ in range(2))


def test_an_https_origin_gets_a_secure_cookie(keyed: Flask, make_key: Callable[..., str]) -> None:
    cookie = sign_in(keyed.test_client(), make_key(), Origin="https://localhost").headers["Set-Cookie"]
    assert "Secure" in cookie


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Origin": "http://localhost"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, False),
    ],
)
def test_a_cookie_authorizes_changes_only_from_the_same_origin(
    keyed: Flask, make_key: Callable[..., str], headers: dict[str, str], allowed: bool
) -> None:
    client = keyed.test_client()
    sign_in(client, make_key())
    answer = client.post("/jobs", json={"kind": "classifier"}, headers=headers)
    assert answer.status_code == (201 if allowed else 403)
    if not allowed:
        assert answer.json["code"] == "foreign_origin"
        assert client.get("/jobs").json["data"] == []


def test_signing_in_from_a_foreign_origin_or_with_a_wrong_key_is_rejected(
    keyed: Flask, make_key: Callable[..., str]
) -> None:
    client = keyed.test_client()
    assert sign_in(client, make_key(), Origin="http://evil.example").status_code == 403
    for key in ("tpl_0123456789ab_" + "0" * 64, "nonsense", " ", make_key() + "0"):
        wrong = sign_in(client, key)
        assert (wrong.status_code, wrong.json["code"]) == (401, "key_required")
        assert "Set-Cookie" not in wrong.headers
    assert client.post("/session", json={"key": 7}, headers=OWN_ORIGIN).status_code == 422
    for key in ("\ud800", "\udc80", "\u0000", "ä" * 200):
        assert sign_in(client, key).status_code in (400, 401, 422)
    assert client.post("/session", data={"key": make_key()}, headers=OWN_ORIGIN).status_code == 415
    assert client.get("/jobs").status_code == 401


def test_signing_out_invalidates_the_cookie_on_the_server(keyed: Flask, make_key: Callable[..., str]) -> None:
    client = keyed.test_client()
    sign_in(client, make_key())
    stolen = client.get_cookie(COOKIE)
    assert stolen is not None
    signed_out = client.delete("/session", headers=OWN_ORIGIN)
    assert signed_out.status_code == 204
    assert client.get("/jobs").status_code == 401
    thief = keyed.test_client()
    thief.set_cookie(COOKIE, stolen.value)
    assert thief.get("/jobs").status_code == 401
    assert client.delete("/session", headers=OWN_ORIGIN).status_code == 204


def test_browsers_get_a_sign_in_page_and_programs_a_problem(keyed: Flask) -> None:
    client = keyed.test_client()
    for path in ("/", "/docs", "/ui/jobs/job_01J00000000000000000000000", "/nothing"):
        page = client.get(path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert (page.status_code, page.mimetype) == (401, "text/html")
        assert 'id="sign-in"' in page.text
        assert client.get(path).mimetype == "application/problem+json"
    image = client.get("/jobs/job_01J00000000000000000000000/plots/curves.png", headers={"Accept": "image/*,*/*"})
    assert image.mimetype == "application/problem+json"


def test_a_revoked_key_and_its_sessions_are_rejected_within_two_seconds(
    keyed: Flask, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    core: Core = keyed.extensions[EXTENSION]
    key, browser, program = make_key(), keyed.test_client(), keyed.test_client()
    sign_in(browser, key)
    bearer = {"Authorization": f"Bearer {key}"}
    assert program.get("/jobs", headers=bearer).status_code == browser.get("/jobs").status_code == 200
    keys.revoke(core.database, "k")
    now = __import__("time").monotonic() + 2.0
    monkeypatch.setattr("service.web.core.keyring.time.monotonic", lambda: now)
    assert program.get("/jobs", headers=bearer).status_code == browser.get("/jobs").status_code == 401


def test_a_session_has_the_owner_and_the_scope_of_its_key(keyed: Flask, make_key: Callable[..., str]) -> None:
    client, key = keyed.test_client(), make_key(scope=Scope.READ)
    bearer = {"Authorization": f"Bearer {key}"}
    job_id = client.post("/jobs", json={"kind": "gan"}, headers={"Authorization": f"Bearer {make_key()}"}).json["id"]
    assert client.get(f"/jobs/{job_id}", headers=bearer).status_code == 200  # it belongs to the same owner
    sign_in(client, key)
    assert client.post("/jobs", json={"kind": "gan"}, headers=OWN_ORIGIN).json["code"] == "scope_missing"


def test_a_key_takes_precedence_over_a_cookie(keyed: Flask, make_key: Callable[..., str]) -> None:
    client = keyed.test_client()
    sign_in(client, make_key(owner="ann"))
    bob = {"Authorization": f"Bearer {make_key(owner='bob')}"}
    assert client.get("/session", headers=bob).json["owner"] == "bob"
    assert client.get("/session", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_without_required_keys_no_sign_in_is_needed(client: FlaskClient) -> None:
    assert client.get("/session").json == {"owner": None, "scope": "admin", "key": None, "expires_at": None}
    assert "Sign out" not in client.get("/").text


@pytest.mark.parametrize("path", [pytest.param("/jobs/{}/stream", marks=pytest.mark.stack), "/stream"])
@pytest.mark.parametrize(
    "ended",
    [
        "revoked",
        pytest.param("expired", marks=pytest.mark.stack),
        pytest.param("signed out", marks=pytest.mark.stack),
    ],
)
def test_an_open_stream_ends_with_the_key_or_session_that_opened_it(
    keyed: Flask, make_key: Callable[..., str], serve: Callable[[Flask], str], path: str, ended: str
) -> None:
    key = make_key(lifetime_s=4 if ended == "expired" else None)
    core: Core = keyed.extensions[EXTENSION]
    url = serve(keyed)
    with httpx.Client(base_url=url, timeout=20, trust_env=False, headers={"Origin": url}) as http:
        if ended == "signed out":
            assert http.post("/session", json={"key": key}).status_code == 201
        else:
            http.headers["Authorization"] = f"Bearer {key}"
        job_id = http.post("/jobs", json={"kind": "classifier"}).json()["id"]
        with http.stream("GET", path.format(job_id)) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()
            assert next(lines).startswith("retry")
            if ended == "revoked":
                keys.revoke(core.database, "k")
            elif ended == "signed out":
                with httpx.Client(base_url=url, trust_env=False, cookies=http.cookies, headers={"Origin": url}) as tab:
                    assert tab.delete("/session").status_code == 204
            pings = (line for line in lines if line.startswith(":"))
            assert len(list(itertools.islice(pings, 2))) < 2, "it outlived what opened it"
        assert http.get(f"/jobs/{job_id}").status_code == 401


def test_a_session_token_is_not_a_key_and_a_key_is_not_a_session_token(
    keyed: Flask, make_key: Callable[..., str]
) -> None:
    key, client = make_key(), keyed.test_client()
    sign_in(client, key)
    token = client.get_cookie(COOKIE).value
    assert client.get("/jobs").status_code == 200  # now the token is cached
    assert keyed.test_client().get("/jobs", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert keyed.test_client().get("/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    other_client = keyed.test_client()
    other_client.set_cookie(COOKIE, key)
    assert other_client.get("/jobs").status_code == 401


def test_sign_ins_are_rate_limited_per_key(keyed: Flask, make_key: Callable[..., str]) -> None:
    key, other_key = make_key(), make_key("bob")
    answers = [sign_in(keyed.test_client(), key).status_code for _ in range(SIGN_INS + 1)]
    assert answers == [201] * SIGN_INS + [429]
    assert sign_in(keyed.test_client(), other_key).status_code == 201


def test_a_key_keeps_a_hundred_sessions_including_the_newest(keyed: Flask, make_key: Callable[..., str]) -> None:
    core: Core = keyed.extensions[EXTENSION]
    identity = core.keyring.by_key(make_key())
    assert identity is not None
    tokens = [keys.sign_in(core.database, identity)[1] for _ in range(keys.MAX_SESSIONS + 3)]
    is_valid = [core.keyring.by_cookie(token) is not None for token in tokens]
    assert sum(is_valid) == keys.MAX_SESSIONS
    assert is_valid[-1]
