from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from sqlalchemy import event

from service.access import keys, owners
from service.access.keys import Scope
from service.jobs import commits, leases
from service.jobs.queries.queue import count_waiting
from service.local.broker import Broker
from service.storage.database import Database
from service.web.core import quotas
from service.web.core.core import EXTENSION, Core
from service.web.core.quotas import GUESSES
from tests import brokers
from tests.service.web.core.quota_clients import SPEC, MakeApp, check_refusal, client_of, keyed


def test_requests_of_one_owner_are_limited_with_a_retry_time(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url, requests=5)
    ann, ann_again, bob = client_of(app), client_of(app), client_of(app, "bob")
    assert {client.get("/jobs").status_code for client in (ann, ann_again, ann, ann_again, ann)} == {200}
    assert check_refusal(ann_again.get("/jobs"), "rate_limited") <= 60
    assert bob.get("/jobs").status_code == 200
    assert ann.get("/healthz").status_code == 200


def test_queued_jobs_are_limited_per_owner(
    make_app: MakeApp, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = keyed(make_app, migrated_url, queued=3)
    core: Core = app.extensions[EXTENSION]
    ann, bob = client_of(app), client_of(app, "bob")
    first = ann.post("/jobs", json=SPEC, headers={"Idempotency-Key": "one"})
    assert [ann.post("/jobs", json=SPEC).status_code for _ in range(2)] == [201, 201]
    full = ann.post("/jobs", json=SPEC)
    check_refusal(full, "quota_exceeded")
    assert "ann has 3 queued jobs, the limit of TAPELINE_OWNER_QUEUED" in full.json["detail"]
    assert ann.post("/jobs?dry_run=true", json=SPEC).status_code == 200
    assert ann.post("/jobs", json=SPEC, headers={"Idempotency-Key": "one"}).json == first.json
    assert bob.post("/jobs", json=SPEC).status_code == 201
    with core.database.read() as session:
        assert count_waiting(session, "ann") == 3
    ann.post(f"/jobs/{first.json['id']}/cancel")
    monkeypatch.setattr(quotas, "_COUNT_TTL_S", 0.0)  # it is over
    assert ann.post("/jobs", json=SPEC).status_code == 201


def test_counting_queued_jobs_uses_the_index(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database, database.read() as session:
        plans: list[str] = []
        connection = session.connection()

        def explain(cursor: Any, statement: str, parameters: Any) -> None:
            if not statement.startswith("EXPLAIN"):
                plans.append(str(cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters).fetchall()))

        raw = connection.connection.cursor()
        event.listen(connection, "before_cursor_execute", lambda c, cur, s, p, ctx, many: explain(raw, s, p))
        count_waiting(session, "ann")
    assert "SEARCH owner_queue USING INDEX" in plans[0], "its row has the count"


def test_running_jobs_are_limited_per_owner(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    core: Core = app.extensions[EXTENSION]
    owners.set_default_cap(core.database, 2)
    ann, bob = client_of(app), client_of(app, "bob")
    for _ in range(6):
        ann.post("/jobs", json=SPEC | {"priority": 5})
    bob.post("/jobs", json=SPEC)
    claims: list[Any] = []

    def work() -> None:
        claims.extend(leases.claim(core.database, "w", 60.0) for _ in range(4))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    running = [claim for claim in claims if claim is not None]
    assert len(running) == 3
    found = [ann.get(f"/jobs/{claim.job_id}").status_code for claim in running]
    assert sorted(found) == [200, 200, 404]
    commits.fail(
        core.database,
        next(claim for claim in running if ann.get(f"/jobs/{claim.job_id}").status_code == 200),
        {"code": "x", "message": "y"},
    )
    assert leases.claim(core.database, "w", 60.0) is not None
    assert leases.claim(core.database, "w", 60.0) is None


def test_open_streams_of_one_owner_are_counted_until_they_close(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url, streams=2)
    ann, bob = client_of(app), client_of(app, "bob")
    job_id = ann.post("/jobs", json=SPEC).json["id"]
    first, second = ann.get(f"/jobs/{job_id}/stream"), ann.get("/stream")
    assert first.status_code == second.status_code == 200
    check_refusal(ann.get("/stream"), "quota_exceeded")
    etag = ann.get(f"/jobs/{job_id}").headers["ETag"]
    check_refusal(ann.get(f"/jobs/{job_id}", headers={"If-None-Match": etag, "Prefer": "wait=1"}), "quota_exceeded")
    with bob.get("/stream") as stream_of_bob:
        assert stream_of_bob.status_code == 200
    first.close()
    first.close()
    with ann.get("/stream") as third:
        assert third.status_code == 200
        check_refusal(ann.get("/stream"), "quota_exceeded")
    second.close()


def test_upload_bytes_are_limited_per_day_and_a_refused_upload_costs_nothing(
    make_app: MakeApp, sqlite_url: str
) -> None:
    app = keyed(make_app, sqlite_url, uploads=100)
    core: Core = app.extensions[EXTENSION]
    core.quotas.check_upload("ann", 60)
    core.quotas.count_upload("ann", 60)
    with pytest.raises(Exception, match="daily limit of ann: 100 bytes"):
        core.quotas.check_upload("ann", 41)
    core.quotas.check_upload("ann", 40)
    core.quotas.check_upload("bob", 100)
    core.quotas.check_upload(None, 10**9)


def test_an_upload_is_charged_for_the_bytes_that_arrived(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url, uploads=10_000)
    core: Core = app.extensions[EXTENSION]
    ann = client_of(app)
    answer = ann.post("/datasets", data=b"x" * 9000, content_type="text/plain")
    assert (answer.status_code, core.quotas.upload_bytes_left("ann")) == (415, 10_000)
    form = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + b"x" * 3000
    ann.post(
        "/datasets",
        input_stream=io.BytesIO(form),  # the rest never arrives
        headers={"Content-Length": "9000"},
        content_type="multipart/form-data; boundary=b",
    )
    assert core.quotas.upload_bytes_left("ann") == 10_000 - len(form)
    check_refusal(
        ann.post("/datasets", data=b"x" * 9000, content_type="multipart/form-data; boundary=b"), "quota_exceeded"
    )
    assert core.quotas.upload_bytes_left("ann") == 10_000 - len(form)


def test_the_total_size_of_datasets_is_limited_per_owner(make_app: MakeApp, migrated_url: str) -> None:
    pixels = np.zeros((1000, 20, 20), np.uint8)
    labels = (np.arange(1000) % 10).astype(np.uint8)
    packed = io.BytesIO()
    np.savez_compressed(packed, images=pixels, labels=labels)
    assert packed.tell() < 20_000  # but 400 KB when decompressed
    ann = client_of(keyed(make_app, migrated_url, datasets=700_000))
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
    check_refusal(stranger.post("/session", json={"key": "one more"}), "rate_limited")
    assert ann.get("/jobs").status_code == 200  # from the same address, but with a valid key
    assert stranger.get("/jobs").status_code == 401
    other_address = app.test_client()
    other_address.environ_base["REMOTE_ADDR"] = "10.1.2.3"
    assert other_address.get("/jobs", headers={"Authorization": "Bearer guess"}).status_code == 401


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
    with brokers.serve(tmp_path) as broker:
        yield broker


@pytest.mark.stack
def test_processes_share_counters_in_redis_and_count_alone_while_it_is_down(
    make_app: MakeApp, shared_postgres_url: str, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "_REDIS_TIMEOUT_S", 20.0)  # on a busy machine, Redis may take longer than usual
    apps = [keyed(make_app, shared_postgres_url, requests=6, broker_url=broker.url) for _ in range(2)]
    name = f"owner-{time.monotonic_ns()}"
    core: Core = apps[0].extensions[EXTENSION]
    _, key = keys.create(core.database, name="k", owner=name, scope=Scope.READ)
    bearer = {"Authorization": f"Bearer {key}"}
    clients = [app.test_client() for app in apps]
    assert [clients[n % 2].get("/jobs", headers=bearer).status_code for n in range(8)] == [200] * 6 + [429] * 2
    broker.child.end(0)
    assert [clients[0].get("/jobs", headers=bearer).status_code for _ in range(7)] == [200] * 6 + [429]


def test_a_hanging_redis_fails_no_request_and_is_tried_once_per_retry_interval(
    make_app: MakeApp, shared_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request waits, for at most the timeouts of connecting and reading; the others do not try."""
    assert quotas._REDIS_RETRY_S >= 5
    monkeypatch.setattr(quotas, "_REDIS_RETRY_S", 600.0)  # longer than the test takes on a busy machine
    assert quotas._REDIS_TIMEOUT_S <= 0.25
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        client = client_of(keyed(make_app, shared_postgres_url, broker_url=url), f"owner-{time.monotonic_ns()}")
        # A client without timeouts would wait forever.
        assert [client.get("/jobs").status_code for _ in range(10)] == [200] * 10
        silent.setblocking(False)
        connection_count = 0
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                connection_count += 1
    assert connection_count == 1
