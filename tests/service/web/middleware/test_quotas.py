from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event
from sqlalchemy.orm import Session

from service.access import keys, storage_quota
from service.access.keys import Scope
from service.access.storage_quota import StoredBytes
from service.application.ports import AdmissionRefused
from service.jobs import commits, leases
from service.jobs.queries.queue import count_waiting
from service.local.broker import Broker
from service.runtime.settings import Auth, Quotas
from service.storage.database import Database
from service.web.middleware import quotas
from service.web.middleware.quotas import GUESSES
from service.web.services import EXTENSION, Services
from tests import brokers

MakeApp = Callable[..., Flask]
SPEC = {"kind": "classifier"}


def keyed(make_app: MakeApp, url: str, **changes: Any) -> Flask:
    quotas = {name: changes.pop(name) for name in list(changes) if name in Quotas.__dataclass_fields__}
    return make_app(url, auth=Auth.KEYS, quotas=Quotas(**quotas), **changes)


def client_of(app: Flask, owner: str = "ann") -> FlaskClient:
    services: Services = app.extensions[EXTENSION]
    _, key = keys.create(services.database, name=owner, owner=owner, scope=Scope.SUBMIT)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    return client


def check_refusal(answer: Any, code: str) -> int:
    assert (answer.status_code, answer.json["code"]) == (429, code)
    wait_s = int(answer.headers["Retry-After"])
    assert wait_s == answer.json["retry_after_s"] >= 1
    return wait_s


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
    services: Services = app.extensions[EXTENSION]
    ann, bob = client_of(app), client_of(app, "bob")
    first = ann.post("/jobs", json=SPEC, headers={"Idempotency-Key": "one"})
    assert [ann.post("/jobs", json=SPEC).status_code for _ in range(2)] == [201, 201]
    full = ann.post("/jobs", json=SPEC)
    check_refusal(full, "quota_exceeded")
    assert "ann has 3 queued jobs, the limit of TAPELINE_OWNER_QUEUED" in full.json["detail"]
    assert ann.post("/jobs?dry_run=true", json=SPEC).status_code == 200
    assert ann.post("/jobs", json=SPEC, headers={"Idempotency-Key": "one"}).json == first.json
    assert bob.post("/jobs", json=SPEC).status_code == 201
    with services.database.read() as session:
        assert count_waiting(session, "ann", at_most=10) == 3
        assert count_waiting(session, "ann", at_most=2) == 2
    ann.post(f"/jobs/{first.json['id']}/cancel")
    monkeypatch.setattr(quotas, "_COUNT_TTL_S", 0.0)  # it is over
    assert ann.post("/jobs", json=SPEC).status_code == 201


KEEPS_ALL = SPEC | {"epochs": 4, "checkpoint": {"keep_last": 4}, "samples": {"count": 1}}


def expected_bytes(client: FlaskClient, **spec: Any) -> int:
    plan = client.post("/jobs?dry_run=true", json=KEEPS_ALL | spec).json
    assert plan["expected_bytes"] > 4 * plan["checkpoint_bytes"]
    return int(plan["expected_bytes"])


def check_storage_refusal(answer: Any) -> None:
    assert check_refusal(answer, "quota_exceeded") > 30, "clients do not wait this long"
    assert "(TAPELINE_OWNER_ARTIFACTS); delete jobs, keep fewer checkpoints" in answer.json["detail"]


@pytest.fixture
def _count_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "_COUNT_TTL_S", 0.0)


@pytest.mark.usefixtures("_count_each_time")
def test_jobs_whose_files_do_not_fit_into_the_quota_are_refused(
    make_app: MakeApp, make_worker: Callable[[Flask], Any], migrated_url: str
) -> None:
    size = expected_bytes(client_of(keyed(make_app, migrated_url)))
    app = keyed(make_app, migrated_url, artifacts=2 * size + 40_000)
    ann, bob, worker = client_of(app), client_of(app, "bob"), make_worker(app)
    assert ann.get("/limits").json["owner"]["artifact_bytes"] == 2 * size + 40_000
    headers = {"Idempotency-Key": "one"}
    first = ann.post("/jobs", json=KEEPS_ALL, headers=headers)
    second = ann.post("/jobs", json=KEEPS_ALL)
    assert (first.status_code, second.status_code) == (201, 201)
    check_storage_refusal(ann.post("/jobs", json=KEEPS_ALL))  # both are queued, and expected to take the space
    assert ann.post("/jobs", json=KEEPS_ALL, headers=headers).json == first.json
    assert ann.post("/jobs?dry_run=true", json=KEEPS_ALL).status_code == 200
    assert bob.post("/jobs", json=KEEPS_ALL).status_code == 201
    worker.claim()
    worker.commit_epoch(1, checkpoint=b"x" * size)
    worker.succeed()
    check_storage_refusal(ann.post("/jobs", json=KEEPS_ALL))  # one is stored now, the other one is still queued
    [item] = ann.get("/usage").json["data"]
    assert size < item["artifact_bytes"] < size + 20_000
    assert item["expected_bytes"] == size
    assert item["artifact_bytes_left"] == 2 * size + 40_000 - item["artifact_bytes"] - size
    page = ann.get("/ui/usage", headers={"Accept": "text/html"}).text
    assert "Job files left" in page
    assert ann.delete(f"/jobs/{first.json['id']}").status_code == 204
    assert ann.post("/jobs", json=KEEPS_ALL).status_code == 201


@pytest.mark.usefixtures("_count_each_time")
def test_everything_that_adds_jobs_is_refused_when_the_quota_of_files_is_exhausted(
    make_app: MakeApp, make_worker: Callable[[Flask], Any], sqlite_url: str
) -> None:
    plenty = keyed(make_app, sqlite_url)
    client, worker = client_of(plenty), make_worker(plenty)
    jobs = []
    for seed in (0, 1):
        jobs.append(client.post("/jobs", json=KEEPS_ALL | {"seed": seed}).json["id"])
        worker.claim()
        for epoch in range(1, 5):
            worker.commit_epoch(epoch, keep_last=4, metrics={"train_loss": epoch + seed})
        worker.succeed()
    [item] = client.get("/usage").json["data"]
    assert (item["artifact_bytes_left"], item["expected_bytes"]) == (None, 0)
    ann = client_of(keyed(make_app, sqlite_url, artifacts=item["artifact_bytes"] + 10_000))
    sweep = {"base": KEEPS_ALL, "seeds": [0, 1], "space": {"/optimizer/learning_rate": {"choice": [0.1, 0.2, 0.3]}}}
    for path, body in {
        "/jobs": KEEPS_ALL,
        f"/jobs/{jobs[0]}/fork": {"overrides": {"epochs": 9}},
        f"/jobs/{jobs[0]}/reproduce": {},
        "/sweeps": sweep,
    }.items():
        check_storage_refusal(ann.post(path, json=body))
    assert ann.post("/sweeps?dry_run=true", json=sweep).json["expected_bytes"] == 6 * expected_bytes(ann)
    folds = {"name": "mnist-10k", "folds": 3}
    check_storage_refusal(ann.post("/jobs", json=KEEPS_ALL | {"dataset": folds}))
    assert len(ann.get("/jobs").json["data"]) == 2
    answer = ann.post("/differences", json={"a": jobs[0], "b": jobs[1]})
    assert answer.status_code == 201, "an investigation stores no files"


def test_threads_that_count_at_the_same_time_do_not_each_admit_up_to_the_quota(
    make_app: MakeApp, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    services: Services = keyed(make_app, sqlite_url, artifacts=100).extensions[EXTENSION]
    all_have_counted, read, admitted = threading.Barrier(4), storage_quota.read, list[int]()

    def read_together(session: Session, owner: str) -> StoredBytes:
        stored = read(session, owner)
        all_have_counted.wait()
        return stored

    monkeypatch.setattr(storage_quota, "read", read_together)

    def submit() -> None:
        with suppress(AdmissionRefused):
            services.quotas.new_jobs("ann", 1, 40)
            admitted.append(40)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 80


def test_files_that_a_stale_count_admitted_are_refused_when_their_job_is_stored(
    make_app: MakeApp, make_worker: Callable[[Flask], Any], migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = keyed(make_app, migrated_url, artifacts=25_000)
    services: Services = app.extensions[EXTENSION]
    monkeypatch.setattr(services.quotas, "new_jobs", lambda *_: None)
    ann, worker = client_of(app), make_worker(app)
    parent = ann.post("/jobs", json=KEEPS_ALL).json["id"]
    worker.claim()
    worker.commit_epoch(1, checkpoint=bytes(10_000), sample=b"x")
    fork = {"overrides": {"epochs": 9}}
    assert ann.post(f"/jobs/{parent}/fork", json=fork).status_code == 201
    answer = ann.post(f"/jobs/{parent}/fork", json=fork)
    check_refusal(answer, "quota_exceeded")
    assert "ann's jobs take 20,001 of 25,000 bytes" in answer.json["detail"]
    assert len(list(services.settings.artifacts.glob("job_*"))) == len(ann.get("/jobs").json["data"]) == 2


def test_counting_queued_jobs_uses_the_index(sqlite_url: str) -> None:
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


def test_running_jobs_are_limited_per_owner(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    services: Services = app.extensions[EXTENSION]
    ann, bob = client_of(app), client_of(app, "bob")
    for _ in range(6):
        ann.post("/jobs", json=SPEC | {"priority": 9})
    bob.post("/jobs", json=SPEC)
    claims: list[Any] = []

    def work() -> None:
        claims.extend(leases.claim(services.database, "w", 60.0, max_running=2) for _ in range(4))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    running = [claim for claim in claims if claim is not None]
    assert len(running) == 3
    owners = [ann.get(f"/jobs/{claim.job_id}").status_code for claim in running]
    assert sorted(owners) == [200, 200, 404]
    commits.fail(
        services.database,
        next(claim for claim in running if ann.get(f"/jobs/{claim.job_id}").status_code == 200),
        {"code": "x", "message": "y"},
    )
    assert leases.claim(services.database, "w", 60.0, max_running=2) is not None
    assert leases.claim(services.database, "w", 60.0, max_running=2) is None


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
    services: Services = app.extensions[EXTENSION]
    services.quotas.check_upload("ann", 60)
    services.quotas.count_upload("ann", 60)
    with pytest.raises(Exception, match="daily limit of ann: 100 bytes"):
        services.quotas.check_upload("ann", 41)
    services.quotas.check_upload("ann", 40)
    services.quotas.check_upload("bob", 100)
    services.quotas.check_upload(None, 10**9)


def test_an_upload_is_charged_for_the_bytes_that_arrived(make_app: MakeApp, sqlite_url: str) -> None:
    app = keyed(make_app, sqlite_url, uploads=10_000)
    services: Services = app.extensions[EXTENSION]
    ann = client_of(app)
    answer = ann.post("/datasets", data=b"x" * 9000, content_type="text/plain")
    assert (answer.status_code, services.quotas.upload_bytes_left("ann")) == (415, 10_000)
    form = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + b"x" * 3000
    ann.post(
        "/datasets",
        input_stream=io.BytesIO(form),  # the rest never arrives
        headers={"Content-Length": "9000"},
        content_type="multipart/form-data; boundary=b",
    )
    assert services.quotas.upload_bytes_left("ann") == 10_000 - len(form)
    check_refusal(
        ann.post("/datasets", data=b"x" * 9000, content_type="multipart/form-data; boundary=b"), "quota_exceeded"
    )
    assert services.quotas.upload_bytes_left("ann") == 10_000 - len(form)


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


def test_processes_share_counters_in_redis_and_count_alone_while_it_is_down(
    make_app: MakeApp, shared_postgres_url: str, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "_REDIS_TIMEOUT_S", 20.0)  # on a busy machine, Redis may take longer than usual
    apps = [keyed(make_app, shared_postgres_url, requests=6, broker_url=broker.url) for _ in range(2)]
    name = f"owner-{time.monotonic_ns()}"
    services: Services = apps[0].extensions[EXTENSION]
    _, key = keys.create(services.database, name="k", owner=name, scope=Scope.READ)
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
