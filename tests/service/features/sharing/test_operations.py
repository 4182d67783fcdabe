"""Share links, and links that sign in once."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from service.access import keys, sign_in_links
from service.access.keys import Scope
from service.jobs import events, leases
from service.storage.tables import Job
from service.web.core.core import EXTENSION, Core
from service.web.core.quotas import GUESSES
from service.web.gate.access_checks import SHARED_STREAMS
from tests.service.web.core.quota_clients import SPEC, MakeApp, check_refusal, client_of, keyed

BROWSER = {"Accept": "text/html"}


@pytest.fixture
def app(make_app: MakeApp, migrated_url: str) -> Flask:
    return keyed(make_app, migrated_url)


def share(client: FlaskClient, path: str, **changes: Any) -> Any:
    answer = client.post("/shares", json={"path": path, **changes})
    assert answer.status_code == 201, answer.text
    return answer.json


def test_a_link_shows_one_job_to_anybody_and_permits_no_change(app: Flask, capsys: pytest.CaptureFixture[str]) -> None:
    ann, stranger = client_of(app), app.test_client()
    job, other = (ann.post("/jobs", json=SPEC).json["id"] for _ in range(2))
    link = share(ann, f"/jobs/{job}")
    assert stranger.get(f"/jobs/{job}").status_code == 401
    assert stranger.get(f"/shared/{link['token']}").json["id"] == job
    opened = stranger.get(f"/shared/{link['token']}", headers=BROWSER)
    assert (opened.status_code, opened.headers["Location"]) == (303, f"/jobs/{job}")
    assert stranger.get(f"/jobs/{job}/metrics").json == ann.get(f"/jobs/{job}/metrics").json
    page = stranger.get(f"/ui/jobs/{job}", headers=BROWSER)
    assert page.status_code == 200
    examples = (
        "samples/latest.png",
        "samples.gif",
        "samples.webp",
        "artifacts/art_1",
        "plots/residuals.png",
        "mistakes",
    )
    for path in (f"/jobs/{other}", "/jobs", "/datasets", *(f"/jobs/{job}/{example}" for example in examples)):
        assert stranger.get(path).status_code == 401, path
    for method, path in (("post", f"/jobs/{job}/cancel"), ("patch", f"/jobs/{job}"), ("delete", f"/jobs/{job}")):
        changed = getattr(stranger, method)(path, headers={"Sec-Fetch-Site": "same-origin"})
        assert changed.status_code == 401, path
    program = app.test_client()
    program.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {link['token']}"
    assert program.get(f"/jobs/{job}").json["id"] == job
    assert (program.get(f"/jobs/{other}").status_code, program.post(f"/jobs/{job}/cancel").status_code) == (404, 404)
    logged = capsys.readouterr().out
    assert link["token"][:17] in logged
    assert link["token"] not in logged, "the log has no secrets"


def test_a_link_of_a_sweep_shows_its_jobs_and_one_of_a_comparison_both(app: Flask) -> None:
    ann, stranger = client_of(app), app.test_client()
    sweep = ann.post("/sweeps", json={"base": SPEC, "seeds": [1, 2]}).json["id"]
    jobs = [job["id"] for job in ann.get("/jobs", query_string={"sweep": sweep}).json["data"]]
    stranger.get(f"/shared/{share(ann, f'/sweeps/{sweep}')['token']}", headers=BROWSER)
    assert stranger.get(f"/sweeps/{sweep}").status_code == 200
    assert [stranger.get(f"/jobs/{job}").status_code for job in jobs] == [200] * len(jobs)
    a, b = (ann.post("/jobs", json=SPEC).json["id"] for _ in range(2))
    path = f"/comparisons?a={a}&b={b}"
    token = share(ann, path)["token"]
    stranger.get(f"/shared/{token}", headers=BROWSER)
    assert stranger.get(f"/sweeps/{sweep}").status_code == 200, "a browser remembers several links"
    assert stranger.get(path).status_code == ann.get(path).status_code
    assert stranger.get(f"/comparisons?a={a}&b={jobs[0]}").status_code == 401


def test_a_link_shows_neither_private_fields_nor_other_jobs_people_and_machines(app: Flask) -> None:
    core: Core = app.extensions[EXTENSION]
    ann, stranger = client_of(app), app.test_client()
    spec = SPEC | {"epochs": 1, "tags": ["tag-a"]}
    sweep = ann.post("/sweeps", json={"base": spec, "seeds": [1, 2]}).json["id"]
    job = ann.get("/jobs", query_string={"sweep": sweep}).json["data"][0]["id"]
    other = ann.post("/jobs", json=SPEC).json["id"]
    ann.patch(f"/jobs/{job}", json={"note": "note-a", "tags": ["tag-b"], "starred": True})
    with core.database.write() as session:
        row = session.get_one(Job, job)
        row.parent_id = row.reused_from = other
        row.fold_group, row.provenance = "fold-a", {"machine": "machine-a"}
        row.reproduction = {"of": other, "match": None}
        row.investigation = {"a": other, "b": job, "found": None, "sentence": None}
        events.log(session, job, "info", "reused", f"1 epoch reused from {other}", job=other)
    while leases.claim(core.database, "worker-a", 60) is not None:
        pass
    with core.database.write() as session:
        leases.record_worker_loss(session, session.get_one(Job, job), "worker-a was lost")
    private = ("note-a", "tag-a", "tag-b", "worker-a", "req_", "fold-a", "machine-a", other, '"ann"')
    read = ann.get(f"/jobs/{job}").text + ann.get(f"/jobs/{job}/events").text
    assert [text for text in private if text not in read] == []
    link = share(ann, f"/jobs/{job}")["token"]
    answers = [stranger.get(f"/shared/{link}", headers=headers) for headers in ({}, BROWSER)]
    paths = (f"/jobs/{job}", f"/jobs/{job}/events", f"/jobs/{job}/events?format=jsonl", f"/jobs/{job}/results")
    paths = (*paths, f"/jobs/{job}/digests")
    answers += [stranger.get(path) for path in (*paths, f"/ui/jobs/{job}", f"/ui/jobs/{job}/log", f"/ui/play/{job}")]
    certificates = (f"/jobs/{job}/certificate", f"/jobs/{job}/export/certificate")
    assert [stranger.get(path).status_code for path in certificates] == [401, 401]
    texts = [answer.text for answer in answers]
    for path in (f"/jobs/{job}/stream", f"/stream?jobs={job}"):
        with stranger.get(path) as stream:
            texts.append(_beginning(stream))
    text = "".join(texts)
    assert sweep not in text
    token = share(ann, f"/sweeps/{sweep}")["token"]
    stranger.get(f"/shared/{token}", headers=BROWSER)
    paths = (f"/shared/{token}", f"/sweeps/{sweep}", f"/sweeps/{sweep}/trials", f"/ui/sweeps/{sweep}", f"/jobs/{job}")
    text += "".join(stranger.get(path).text for path in paths)
    assert [name for name in (*private, '"starred": true') if name in text] == []
    refused = stranger.get(f"/jobs/{job}/events?q=tag-b")
    assert refused.status_code == 400, "a search would find what is not shown"
    shown = stranger.get(f"/jobs/{job}").json
    assert shown["spec"]["epochs"] == 1
    assert [event["seq"] for event in stranger.get(f"/jobs/{job}/events").json["data"]] == [
        event["seq"] for event in ann.get(f"/jobs/{job}/events").json["data"]
    ]


def _beginning(stream: Any) -> str:
    """A stream up to its snapshot and all events so far."""
    text = ""
    for part in stream.iter_encoded():
        text += part.decode()
        if "event: snapshot" in text and ("event: status" in text or "/stream?jobs" in stream.request.full_path):
            return text
    return text


def test_a_link_of_a_comparison_keeps_only_parameters_that_are_known(app: Flask) -> None:
    ann, stranger = client_of(app), app.test_client()
    a, b = (ann.post("/jobs", json=SPEC).json["id"] for _ in range(2))
    link = share(ann, f"/ui/compare?jobs={a}%2C{b}&y=val+loss&utm=1&jobs={a}")
    assert link["path"] == f"/compare?jobs={a},{b},{a}&y=val+loss"
    opened = stranger.get(f"/shared/{link['token']}", headers=BROWSER, follow_redirects=True)
    assert opened.status_code == 200
    compared = share(ann, f"/comparisons?b={b}&a={a}&cache=no")
    assert compared["path"] == f"/comparisons?a={a}&b={b}"
    assert stranger.get(f"/shared/{compared['token']}").status_code == 200


def test_links_are_listed_and_stop_working(app: Flask) -> None:
    ann, bob, stranger = client_of(app), client_of(app, "bob"), app.test_client()
    job = ann.post("/jobs", json=SPEC).json["id"]
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    first, second = share(ann, f"/jobs/{job}"), share(ann, f"/ui/jobs/{job}", expires_at=soon)
    assert [item["id"] for item in ann.get("/shares").json["data"]] == [second["id"], first["id"]]
    assert bob.get("/shares").json["data"] == []
    assert bob.delete(f"/shares/{first['id']}").status_code == 404
    stranger.get(f"/shared/{first['token']}", headers=BROWSER)
    assert ann.delete(f"/shares/{first['id']}").status_code == 204
    assert stranger.get(f"/jobs/{job}").status_code == 401
    gone = stranger.get(f"/shared/{first['token']}")
    assert (gone.status_code, gone.json["code"]) == (404, "share_not_found")
    ann.post(f"/jobs/{job}/cancel")
    ann.delete(f"/jobs/{job}")
    assert stranger.get(f"/shared/{second['token']}").status_code == 404


def test_streams_of_a_link_do_not_count_for_its_owner(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url, streams=2)
    ann, stranger = client_of(app), app.test_client()
    job = ann.post("/jobs", json=SPEC).json["id"]
    stranger.get(f"/shared/{share(ann, f'/jobs/{job}')['token']}", headers=BROWSER)
    with ExitStack() as opened:
        for _ in range(SHARED_STREAMS):
            answer = opened.enter_context(stranger.get(f"/jobs/{job}/stream"))
            assert answer.status_code == 200
        check_refusal(stranger.get(f"/jobs/{job}/stream"), "quota_exceeded")
        etag = stranger.get(f"/jobs/{job}").headers["ETag"]
        waiting = {"If-None-Match": etag, "Prefer": "wait=1"}
        check_refusal(stranger.get(f"/jobs/{job}", headers=waiting), "quota_exceeded")
        with ann.get(f"/jobs/{job}/stream") as own:
            assert own.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/shared/tsh_{}", 404),
        ("GET", "/ui/welcome/tpo_{}", 410),
        ("POST", "/session/tpo_{}", 410),
        ("GET", "/jobs", 404),
    ],
)
def test_wrong_tokens_are_limited_like_wrong_keys(
    make_app: MakeApp, sqlite_url: str, method: str, path: str, code: int
) -> None:
    stranger = keyed(make_app, sqlite_url).test_client()

    def send(number: int) -> int:
        token = f"{number:012x}_{'0' * 64}"
        headers = {"Sec-Fetch-Site": "same-origin"} if "{}" in path else {"Authorization": f"Bearer tsh_{token}"}
        return stranger.open(path.format(token), method=method, headers=headers).status_code

    assert {send(0) for _ in range(2 * GUESSES)} == {code}, "one token counts once"
    assert [send(number) for number in range(1, GUESSES + 2)] == [code] * (GUESSES - 1) + [429] * 2


def test_requests_by_a_link_are_limited_for_the_link(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url, requests=5)
    ann, stranger = client_of(app), app.test_client()
    token = share(ann, f"/jobs/{ann.post('/jobs', json=SPEC).json['id']}")["token"]
    assert [stranger.get(f"/shared/{token}").status_code for _ in range(7)] == [200] * 5 + [429] * 2
    assert ann.get("/jobs").status_code == 200


def test_a_link_ends_with_the_keys_of_its_owner(app: Flask) -> None:
    ann, admin, stranger = client_of(app), client_of(app, "root", scope=Scope.ADMIN), app.test_client()
    job = ann.post("/jobs", json=SPEC).json["id"]
    token = share(ann, f"/jobs/{job}")["token"]
    stranger.get(f"/shared/{token}", headers=BROWSER)
    assert stranger.get(f"/jobs/{job}").status_code == 200
    (key,) = [item["id"] for item in admin.get("/keys").json["data"] if item["owner"] == "ann"]
    assert admin.post(f"/keys/{key}/revoke").status_code == 202
    assert [stranger.get(path).status_code for path in (f"/shared/{token}", f"/jobs/{job}")] == [404, 401]


def test_a_link_of_the_owner_of_a_configured_key_is_valid(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url, api_keys=("k" * 40,))
    owner, stranger = app.test_client(), app.test_client()
    owner.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {'k' * 40}"
    job = owner.post("/jobs", json=SPEC).json["id"]
    assert stranger.get(f"/shared/{share(owner, f'/jobs/{job}')['token']}").json["id"] == job


def test_an_admin_lists_and_revokes_the_links_of_all_owners(app: Flask) -> None:
    ann, admin, stranger = client_of(app), client_of(app, "root", scope=Scope.ADMIN), app.test_client()
    link = share(ann, f"/jobs/{ann.post('/jobs', json=SPEC).json['id']}")
    assert admin.get("/shares").json["data"] == []
    for owner in ("*", "ann"):
        (item,) = admin.get(f"/shares?owner={owner}").json["data"]
        assert (item["id"], item["owner"]) == (link["id"], "ann")
    assert ann.get("/shares?owner=root").status_code == 403
    assert admin.delete(f"/shares/{link['id']}").status_code == 204
    assert stranger.get(f"/shared/{link['token']}").status_code == 404
    (entry,) = admin.get("/audit?action=revoke_share").json["data"]
    assert (entry["owner"], entry["subject"], entry["detail"]["share_owner"]) == ("root", link["id"], "ann")


@pytest.mark.parametrize(
    ("path", "expires_at", "pointer"),
    [
        ("/datasets/mine", None, "#/path"),
        ("/jobs/job_0000000000", None, "#/path"),
        ("/jobs/JOB", "2020-01-01T00:00:00Z", "#/expires_at"),
        ("/comparisons?x=1", None, "#/path"),
        ("/comparisons?a=JOB", None, "#/path"),
        ("/comparisons?a=JOB&b=job%5Fnone", None, "#/path"),
        ("/comparisons?a=JOB&b=%FF", None, "#/path"),
        ("/comparisons?jobs=JOB", None, "#/path"),
        ("/compare?a=JOB&b=JOB", None, "#/path"),
        ("/compare?jobs=,", None, "#/path"),
        ("/jobs/JOB/metrics", None, "#/path"),
        ("/jobs/JOB", "tomorrow", "#/expires_at"),
        ("/jobs/JOB", "0001-01-01T00:00:00+14:00", "#/expires_at"),
        ("/jobs/JOB", "9999-12-31T23:59:59-14:00", "#/expires_at"),
    ],
)
def test_a_link_to_something_else_is_refused(app: Flask, path: str, expires_at: str | None, pointer: str) -> None:
    ann = client_of(app)
    path = path.replace("JOB", ann.post("/jobs", json=SPEC).json["id"])
    refused = ann.post("/shares", json={"path": path, "expires_at": expires_at})
    assert (refused.status_code, refused.json["errors"][0]["pointer"]) == (422, pointer)
    assert ann.get("/shares").json["data"] == []


def test_a_sign_in_link_works_once(app: Flask) -> None:
    core: Core = app.extensions[EXTENSION]
    row, _ = keys.create(core.database, name="Özlem", owner="ozlem", scope=Scope.SUBMIT)
    with core.database.write() as session:
        token = sign_in_links.create(session, row.id)
    student = app.test_client()
    page = student.get(f"/ui/welcome/{token}", headers=BROWSER)
    assert (page.status_code, "Sign in here" in page.text) == (200, True)
    assert student.get("/jobs").status_code == 401, "to look at the page uses nothing up"
    own = {"Sec-Fetch-Site": "same-origin"}
    assert student.post(f"/session/{token}", headers=own).status_code == 204
    assert student.get("/session").json["owner"] == "ozlem"
    (entry,) = client_of(app, "root", scope=Scope.ADMIN).get("/audit?action=sign_in").json["data"]
    assert (entry["owner"], entry["key"]) == ("ozlem", row.id)
    again = app.test_client().post(f"/session/{token}", headers=own)
    assert (again.status_code, again.json["code"]) == (410, "link_not_usable")
    assert "used already" in again.json["detail"]
    assert app.test_client().get("/ui/welcome/tpo_nonsense").status_code == 410


def test_a_sign_in_that_fails_does_not_use_up_the_link(app: Flask) -> None:
    core: Core = app.extensions[EXTENSION]
    row, _ = keys.create(core.database, name="Özlem", owner="ozlem", scope=Scope.SUBMIT)
    with core.database.write() as session:
        token = sign_in_links.create(session, row.id)
        session.execute(text("ALTER TABLE browser_sessions RENAME TO away"))
    student, own = app.test_client(), {"Sec-Fetch-Site": "same-origin"}
    assert student.post(f"/session/{token}", headers=own).status_code >= 500
    with core.database.write() as session:
        session.execute(text("ALTER TABLE away RENAME TO browser_sessions"))
    assert student.post(f"/session/{token}", headers=own).status_code == 204
