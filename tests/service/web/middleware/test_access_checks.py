from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.access.keys import of_settings
from service.runtime.settings import Auth
from service.web.middleware.access_checks import is_known_host

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
    assert is_known_host(host, frozenset({"train.example"})) is known
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
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_foreign_pages_cannot_change_anything(
    client: FlaskClient, submit: Submit, headers: dict[str, str], allowed: bool, method: str
) -> None:
    path = "/jobs" if method == "POST" else "/jobs/job_01J00000000000000000000000"
    answer = client.open(path, method=method, headers=headers)
    assert (answer.status_code != 403) is allowed
    if not allowed:
        assert answer.json["code"] == "foreign_origin"


def test_foreign_page_cannot_cancel_a_job_although_that_needs_no_body(client: FlaskClient, submit: Submit) -> None:
    job_id = submit(client)
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert client.post(f"/jobs/{job_id}/cancel", headers=headers).status_code == 403
    assert client.get(f"/jobs/{job_id}").json["status"] == "queued"


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


def test_same_idempotency_key_of_two_owners_creates_two_jobs(keyed_app: Flask) -> None:
    client = keyed_app.test_client()
    ids = {
        client.post("/jobs", json={"kind": "gan"}, headers=bearer(key) | {"Idempotency-Key": "once"}).json["id"]
        for key in KEYS
    }
    assert len(ids) == 2


def test_job_of_another_owner_is_not_found_on_any_route(keyed_app: Flask, make_worker: Any) -> None:
    client, worker = keyed_app.test_client(), make_worker(keyed_app)
    job_id = client.post("/jobs", json={"kind": "classifier"}, headers=bearer(KEYS[0])).json["id"]
    worker.claim()
    worker.commit_epoch(1, confusion=[[1] * 10] * 10)
    worker.succeed()
    artifact_id = client.get(f"/jobs/{job_id}/artifacts", headers=bearer(KEYS[0])).json["data"][0]["id"]
    values = {"job_id": job_id, "artifact_id": artifact_id, "form": "png", "true": 0, "predicted": 1, "target": "onnx"}
    checked = 0
    adapter = keyed_app.url_map.bind("localhost")
    for rule in keyed_app.url_map.iter_rules():
        if "job_id" not in rule.arguments:
            continue
        values["which"] = "curves" if "plots" in rule.rule else "latest"
        path = adapter.build(rule.endpoint, {name: values[name] for name in rule.arguments})
        if path.endswith("/bisection"):
            path += "?metric=train_loss&above=0"
        for method in (rule.methods or set()) - {"OPTIONS"}:
            checked += 1
            body = {"json": {}} if method in ("POST", "PATCH") else {}
            foreign = client.open(path, method=method, headers=bearer(KEYS[1]), **body)
            assert foreign.status_code == 404, f"{method} {path}"
            if method != "HEAD":
                assert foreign.json["code"] == "job_not_found"
            if method == "GET":
                with client.get(path, headers=bearer(KEYS[0])) as own:
                    # The simulated worker's checkpoint contains no network.
                    needs_network = any(
                        part in path for part in ("confusion/", "/mistakes", "/calibration", "/export/")
                    )
                    # Only columns of a table have importances.
                    expected = 500 if needs_network else 404 if path.endswith("/importance") else 200
                    assert own.status_code == expected, f"{method} {path}"
    assert checked > 20
    assert client.get(f"/jobs/{job_id}", headers=bearer(KEYS[0])).status_code == 200
