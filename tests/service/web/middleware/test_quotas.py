from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event

from service.access import keys
from service.access.keys import Scope
from service.jobs import commits, leases
from service.jobs.queries.queue import count_waiting
from service.local.broker import Broker
from service.runtime.settings import Auth, Quotas
from service.storage.database import Database
from service.web.middleware.quotas import GUESSES
from service.web.services import EXTENSION, Services

MakeApp = Callable[..., Flask]
SPEC = {"kind": "classifier"}


def keyed(make_app: MakeApp, url: str, **changes: Any) -> Flask:
    quotas = {name: changes.pop(name) for name in list(changes) if name in Quotas.__dataclass_fields__}
    return make_app(url, auth=Auth.KEYS, quotas=Quotas(**quotas), **changes)


def client_of(app: Flask, owner: str = "ann") -> FlaskClient:
    here: Services = app.extensions[EXTENSION]
    _, key = keys.create(here.database, name=owner, owner=owner, scope=Scope.SUBMIT)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    return client


def refused(answer: Any, code: str) -> int:
    assert (answer.status_code, answer.json["code"]) == (429, code)
    wait_s = int(answer.headers["Retry-After"])
    assert wait_s == answer.json["retry_after_s"] >= 1
    return wait_s


def test_requests_of_one_owner_are_limited_with_a_retry_time(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url, requests=5)
    ann, again, bob = client_of(app), client_of(app), client_of(app, "bob")
    assert {client.get("/jobs").status_code for client in (ann, again, ann, again, ann)} == {200}
    assert refused(again.get("/jobs"), "rate_limited") <= 60
    assert bob.get("/jobs").status_code == 200
    assert ann.get("/healthz").status_code == 200


def test_waiting_jobs_of_one_owner_are_counted_together(make_app: MakeApp, either_url: str) -> None:
    app = keyed(make_app, either_url, queued=3)
    here: Services = app.extensions[EXTENSION]
    ann, bob = client_of(app), client_of(app, "bob")
    first = ann.post("/jobs", json=SPEC, headers={"Idempotency-Key": "one"})
    assert [ann.post("/jobs", json=SPEC).status_code for _ in range(2)] == [201, 201]
    full = ann.post("/jobs", json=SPEC)
    refused(full, "quota_exceeded")
    assert "ann has 3 queued jobs, the limit of TAPELINE_OWNER_QUEUED" in full.json["detail"]
    assert ann.post("/jobs?dry_run=true", json=SPEC).status_code == 200
    assert ann.post("/jobs", json=SPEC, headers={"Idempotency-Key": "one"}).json == first.json
    assert bob.post("/jobs", json=SPEC).status_code == 201
    with here.database.read() as session:
        assert count_waiting(session, "ann", at_most=10) == 3
        assert count_waiting(session, "ann", at_most=2) == 2
    ann.post(f"/jobs/{first.json['id']}/cancel")
    time.sleep(1.05)
    assert ann.post("/jobs", json=SPEC).status_code == 201


def test_counting_uses_the_index(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database, database.read() as session:
        plans: list[str] = []
        connection = session.connection()

        def explain(cursor: Any, statement: str, parameters: Any) -> None:
            if not statement.startswith("EXPLAIN"):
                plans.append(str(cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters).fetchall()))

        raw = connection.connection.cursor()
        event.listen(connection, "before_cursor_execute", lambda c, cur, s, p, ctx, many: explain(raw, s, p))
        count_waiting(session, "ann", at_most=5)
    assert "ix_jobs_quota" in plans[0]


def test_no_more_jobs_of_one_owner_run_than_may(make_app: MakeApp, either_url: str) -> None:
    app = keyed(make_app, either_url)
    here: Services = app.extensions[EXTENSION]
    ann, bob = client_of(app), client_of(app, "bob")
    for _ in range(6):
        ann.post("/jobs", json=SPEC | {"priority": 9})
    bob.post("/jobs", json=SPEC)
    claimed: list[Any] = []

    def work() -> None:
        claimed.extend(leases.claim(here.database, "w", 60.0, max_running=2) for _ in range(4))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    running = [found for found in claimed if found is not None]
    assert len(running) == 3
    owners = [ann.get(f"/jobs/{found.job_id}").status_code for found in running]
    assert sorted(owners) == [200, 200, 404]
    commits.fail(
        here.database,
        next(f for f in running if ann.get(f"/jobs/{f.job_id}").status_code == 200),
        {"code": "x", "message": "y"},
    )
    assert leases.claim(here.database, "w", 60.0, max_running=2) is not None
    assert leases.claim(here.database, "w", 60.0, max_running=2) is None


def test_open_streams_of_one_owner_are_counted_until_they_close(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url, streams=2)
    ann, bob = client_of(app), client_of(app, "bob")
    job_id = ann.post("/jobs", json=SPEC).json["id"]
    first, second = ann.get(f"/jobs/{job_id}/stream"), ann.get("/stream")
    assert first.status_code == second.status_code == 200
    refused(ann.get("/stream"), "quota_exceeded")
    etag = ann.get(f"/jobs/{job_id}").headers["ETag"]
    refused(ann.get(f"/jobs/{job_id}", headers={"If-None-Match": etag, "Prefer": "wait=1"}), "quota_exceeded")
    with bob.get("/stream") as other:
        assert other.status_code == 200
    first.close()
    first.close()
    with ann.get("/stream") as third:
        assert third.status_code == 200
        refused(ann.get("/stream"), "quota_exceeded")
    second.close()


def test_upload_bytes_are_counted_by_the_day_and_a_refused_one_costs_nothing(
    make_app: MakeApp, sqlite_url: str
) -> None:
    app = keyed(make_app, sqlite_url, uploads=100)
    here: Services = app.extensions[EXTENSION]
    here.quotas.check_upload("ann", 60)
    here.quotas.count_upload("ann", 60)
    with pytest.raises(Exception, match="daily limit of ann: 100 bytes"):
        here.quotas.check_upload("ann", 41)
    here.quotas.check_upload("ann", 40)
    here.quotas.check_upload("bob", 100)
    here.quotas.check_upload(None, 10**9)


def test_an_upload_costs_what_arrived(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url, uploads=10_000)
    here: Services = app.extensions[EXTENSION]
    ann = client_of(app)
    answer = ann.post("/datasets", data=b"x" * 9000, content_type="text/plain")
    assert (answer.status_code, here.quotas.upload_bytes_left("ann")) == (415, 10_000)
    form = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + b"x" * 3000
    ann.post(
        "/datasets",
        input_stream=io.BytesIO(form),  # and then nothing more
        headers={"Content-Length": "9000"},
        content_type="multipart/form-data; boundary=b",
    )
    assert here.quotas.upload_bytes_left("ann") == 10_000 - len(form)
    refused(ann.post("/datasets", data=b"x" * 9000, content_type="multipart/form-data; boundary=b"), "quota_exceeded")
    assert here.quotas.upload_bytes_left("ann") == 10_000 - len(form)


def test_the_datasets_of_one_owner_take_so_much_and_no_more(make_app: MakeApp, either_url: str) -> None:
    pixels = np.zeros((1000, 20, 20), np.uint8)
    labels = (np.arange(1000) % 10).astype(np.uint8)
    packed = io.BytesIO()
    np.savez_compressed(packed, images=pixels, labels=labels)
    assert packed.tell() < 20_000  # which become 400 KB
    ann = client_of(keyed(make_app, either_url, datasets=700_000))
    assert ann.get("/limits").json["owner"]["dataset_bytes"] == 700_000

    def send(name: str) -> Any:
        return ann.post("/datasets", data={"name": name, "archive": (io.BytesIO(packed.getvalue()), "a.npz")})

    assert send("first").status_code == 201
    answer = send("second")
    assert (answer.status_code, answer.json["code"]) == (409, "dataset_space_exceeded")
    assert "700,000" in answer.json["detail"]
    assert [item["name"] for item in ann.get("/datasets").json["data"] if item["uploaded"]] == ["first"]
    assert ann.delete("/datasets/first").status_code == 204
    assert send("second").status_code == 201


def test_guessing_keys_slows_down_only_the_guesser(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url)
    ann, stranger = client_of(app), app.test_client()
    assert ann.get("/jobs").status_code == 200
    statuses = [
        stranger.get("/jobs", headers={"Authorization": f"Bearer guess-{number}"}).status_code
        for number in range(GUESSES + 5)
    ]
    assert statuses == [401] * GUESSES + [429] * 5
    refused(stranger.post("/session", json={"key": "one more"}), "rate_limited")
    assert ann.get("/jobs").status_code == 200  # from the same address, but known
    assert stranger.get("/jobs").status_code == 401
    elsewhere = app.test_client()
    elsewhere.environ_base["REMOTE_ADDR"] = "10.1.2.3"
    assert elsewhere.get("/jobs", headers={"Authorization": "Bearer guess"}).status_code == 401


def test_repeating_a_wrong_key_does_not_lock_out_others(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url)
    looping = app.test_client()
    wrong = {"Authorization": "Bearer tpl_0123456789ab_" + "0" * 64}
    assert {looping.get("/jobs", headers=wrong).status_code for _ in range(2 * GUESSES)} == {401}
    assert client_of(app).get("/jobs").status_code == 200


def test_limits_are_published(make_app: MakeApp, sqlite_url: str, client: FlaskClient) -> None:
    shown = client_of(keyed(make_app, sqlite_url, running=3, streams=0)).get("/limits").json["owner"]
    assert (shown["running_jobs"], shown["streams"], shown["queued_jobs"]) == (3, None, 200_000)
    assert client.get("/limits").json["owner"] is None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path, log=tmp_path / "broker.log", environ={})
    made.prepare()
    made.child.start()
    made.wait_until_ready()
    yield made
    made.child.end(0)


def test_processes_count_together_in_redis_and_alone_while_it_is_away(
    make_app: MakeApp, postgres_shared: str, broker: Broker
) -> None:
    apps = [keyed(make_app, postgres_shared, requests=6, broker_url=broker.url) for _ in range(2)]
    name = f"owner-{time.monotonic_ns()}"
    here: Services = apps[0].extensions[EXTENSION]
    _, key = keys.create(here.database, name="k", owner=name, scope=Scope.READ)
    bearer = {"Authorization": f"Bearer {key}"}
    clients = [app.test_client() for app in apps]
    assert [clients[n % 2].get("/jobs", headers=bearer).status_code for n in range(8)] == [200] * 6 + [429] * 2
    broker.child.end(0)
    began = time.monotonic()
    assert clients[0].get("/jobs", headers=bearer).status_code == 200
    assert time.monotonic() - began < 2
    assert [clients[0].get("/jobs", headers=bearer).status_code for _ in range(6)] == [200] * 5 + [429]


def test_a_hanging_redis_delays_no_request(make_app: MakeApp, postgres_shared: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        client = client_of(keyed(make_app, postgres_shared, broker_url=url), f"owner-{time.monotonic_ns()}")
        began = time.monotonic()
        assert [client.get("/jobs").status_code for _ in range(10)] == [200] * 10
        assert time.monotonic() - began < 3
