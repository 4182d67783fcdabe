from __future__ import annotations

import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from service.jobs import worker_registry
from service.maintenance import scheduler_heartbeat
from service.spec import strict_json
from service.storage.artifacts import ID_FILE
from service.storage.database import now_ms
from service.storage.tables import SchedulerHeartbeat, Worker
from service.web.core import store_check
from service.web.core.core import EXTENSION
from tests import object_servers
from tests.service.web.conftest import SimulatedWorker
from tests.waiting import wait_until

MakeApp = Callable[..., Flask]


@contextmanager
def listener() -> Iterator[socket.socket]:
    """A server that accepts connections but sends nothing. Its ``accept`` raises if nobody has connected."""
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.setblocking(False)
        yield silent


@pytest.mark.parametrize("auth", ["local", "keys"])
def test_the_health_check_needs_neither_database_nor_broker(make_app: MakeApp, auth: str) -> None:
    app = make_app(
        "postgresql+psycopg://nobody@127.0.0.1:1/none",
        broker_url="redis://127.0.0.1:1/0",
        auth=auth,
        api_keys=("a" * 20,),
    )
    client = app.test_client()
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["checks"]["database"]["status"]) == (503, "down")
    assert answer.json["checks"]["broker"]["status"] == "degraded"


def test_a_service_without_workers_and_broker_is_degraded_but_ready(client: FlaskClient) -> None:
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (200, "degraded")
    states = {name: check["status"] for name, check in answer.json["checks"].items()}
    assert states == {
        "database": "ok",
        "storage": "ok",
        **dict.fromkeys(("broker", "workers", "scheduler"), "degraded"),
    }


def test_a_stopped_scheduler_is_named_by_readiness_and_metrics(either_app: Flask) -> None:
    client, database = either_app.test_client(), either_app.extensions[EXTENSION].database

    def look() -> tuple[str, str, float]:
        answer = client.get("/readyz")
        assert answer.status_code == 200  # this process answers: a load balancer must keep it
        check = answer.json["checks"]["scheduler"]
        (age,) = re.findall(r"^tapeline_scheduler_heartbeat_age_seconds (.+)$", client.get("/metrics").text, re.M)
        return check["status"], check["detail"], float(age)

    status, detail, age = look()
    assert (status, detail.startswith("none has run. Lost workers are not noticed"), age) == (
        "degraded",
        True,
        math.inf,
    )
    scheduler_heartbeat.beat(database)
    status, detail, age = look()
    assert (status, age < scheduler_heartbeat.SILENT_S) == ("ok", True)
    with database.write() as session:
        session.execute(update(SchedulerHeartbeat).values(seen_ms=now_ms() - 90_000))
    status, detail, age = look()
    assert (status, age >= 90) == ("degraded", True)
    assert re.match(r"last seen \d+ s ago\. Lost workers are not noticed", detail)


def test_workers_with_a_heartbeat_are_listed(either_app: Flask) -> None:
    client = either_app.test_client()
    row = Worker(id="w1", host="here", pid=7, slots=4, running=1, draining=False)
    worker_registry.record_heartbeat(either_app.extensions[EXTENSION].database, row)
    (listed,) = client.get("/workers").json["data"]
    assert {name: listed[name] for name in ("id", "host", "pid", "slots", "running", "draining")} == {
        "id": "w1",
        "host": "here",
        "pid": 7,
        "slots": 4,
        "running": 1,
        "draining": False,
    }
    assert listed["started_at"] <= listed["seen_at"]
    assert client.get("/readyz").json["checks"]["workers"] == {"status": "ok", "detail": "1 worker, 1 of 4 slots busy"}


def test_a_worker_on_a_machine_with_a_fault_is_listed_and_a_service_without_another_is_degraded(
    client: FlaskClient, worker: Any
) -> None:
    fault = {"reason": "store", "message": "[Errno 28] No space left on device: '/data/artifacts'", "seconds": 7}
    row = Worker(id="w1", host="here", pid=7, slots=4, running=0, draining=False, blocked=fault)
    worker_registry.record_heartbeat(worker.database, row)
    assert client.get("/workers").json["data"][0]["blocked"] == fault
    page = client.get("/ui/workers", headers={"Accept": "text/html"}).text
    assert "cannot store files" in page
    assert "No space left" in page
    full = "The disk is full: jobs wait, and continue from their last checkpoint once there is space."
    assert page.count(full) == client.get("/").text.count(full) == 1
    queue = client.get("/queue").json
    assert (queue["reason"], queue["reason_text"].startswith(full)) == ("storage", True)
    readiness = client.get("/readyz")
    assert (readiness.status_code, readiness.json["status"]) == (200, "degraded")
    assert readiness.json["checks"]["workers"] == {
        "status": "degraded",
        "detail": f"1 worker, 0 of 4 slots busy; 1 worker on a machine with a fault. {queue['reason_text']}",
    }
    well = Worker(id="w2", host="b", pid=8, slots=1, running=0, draining=False)
    worker_registry.record_heartbeat(worker.database, well)
    assert client.get("/readyz").json["checks"]["workers"]["status"] == "ok"
    assert client.get("/workers").json["data"][1]["blocked"] is None
    assert client.get("/queue").json["reason"] is None


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"reason": "store", "message": "/data is another store"}, ("storage", "No worker can store files")),
        ({"reason": "memory", "message": "the job needs 9 MB"}, ("memory", "No worker has the memory")),
        ({"reason": "dataset", "message": "Disk quota exceeded"}, ("storage", "The disk is full")),
    ],
)
def test_the_queue_says_why_no_job_starts(
    client: FlaskClient, worker: Any, submit: Callable[..., str], fault: dict[str, str], expected: tuple[str, str]
) -> None:
    job_id = submit(client)
    assert client.get("/queue").json["reason"] == "no_worker"
    assert "No worker is running" in client.get(f"/ui/jobs/{job_id}").text
    row = Worker(id="w1", host="here", pid=7, slots=4, running=0, draining=False, blocked=fault)
    worker_registry.record_heartbeat(worker.database, row)
    queue = client.get("/queue").json
    text = expected[1]
    assert (queue["reason"], queue["reason_text"][: len(text)]) == expected
    assert queue["reason_text"] in client.get(f"/ui/jobs/{job_id}").text


def test_without_heartbeats_a_full_disk_is_the_reason(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker cannot record a heartbeat in a SQLite database on a full disk."""
    settings = app.extensions[EXTENSION].settings
    settings.artifacts.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(worker_registry, "_MIN_FREE_BYTES", 2**62)
    assert client.get("/queue").json["reason"] == "storage"
    assert "The disk is full" in client.get("/readyz").json["checks"]["workers"]["detail"]


def test_the_storage_of_another_database_is_down(client: FlaskClient, app: Flask) -> None:
    assert client.get("/readyz").status_code == 200
    (app.extensions[EXTENSION].settings.artifacts / ID_FILE).write_text("str_of_another_service")
    readiness = client.get("/readyz")
    assert (readiness.status_code, readiness.json["checks"]["storage"]) == (
        503,
        {"status": "down", "detail": "WrongStore"},
    )


def test_the_kind_of_store_is_shown_and_another_one_is_down(
    make_app: MakeApp, sqlite_url: str, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_servers.credentials().items():
        monkeypatch.setenv(name, value)
    client = make_app(sqlite_url).test_client()
    assert client.get("/readyz").json["checks"]["storage"] == {"status": "ok", "detail": "folder"}
    client = make_app(sqlite_url, store=f"s3://{object_servers.BUCKET}/web", store_endpoint=moto).test_client()
    assert client.get("/readyz").json["checks"]["storage"] == {"status": "down", "detail": "WrongStore"}


def test_a_silent_store_is_down_and_checked_once_at_a_time(
    make_app: MakeApp, sqlite_url: str, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_servers.credentials().items():
        monkeypatch.setenv(name, value)
    with closing(object_servers.FaultyProxy(moto)) as proxy:
        store = {"store": f"s3://{object_servers.BUCKET}/silent", "store_endpoint": proxy.url}
        monkeypatch.setattr(store_check, "VALID_S", 0.0)
        client = make_app(sqlite_url, **store).test_client()
        assert client.get("/readyz").json["checks"]["storage"] == {"status": "ok", "detail": "s3"}
        is_well, asked = threading.Event(), []

        def be_silent(exchange: object_servers.Exchange) -> None:
            asked.append(exchange.method)
            is_well.wait()

        proxy.fault = be_silent
        for _ in range(2):
            readiness = client.get("/readyz")
            assert not is_well.is_set()
            assert readiness.status_code == 503
            assert readiness.json["checks"]["storage"] == {"status": "down", "detail": "TimeoutError"}
        assert asked == ["PUT"]
        is_well.set()
        wait_until(lambda: client.get("/readyz").json["checks"]["storage"]["status"] == "ok", "the store")


def test_a_file_in_a_store_that_does_not_respond_is_a_problem_that_ends(
    make_app: MakeApp, sqlite_url: str, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_servers.credentials().items():
        monkeypatch.setenv(name, value)
    with closing(object_servers.FaultyProxy(moto)) as proxy:
        store = {"store": f"s3://{object_servers.BUCKET}/files", "store_endpoint": proxy.url, "lease_s": 4.0}
        app = make_app(sqlite_url, **store)
        client, core = app.test_client(), app.extensions[EXTENSION]
        worker = SimulatedWorker(core.database, core.artifacts)
        job_id = client.post("/jobs", json={"kind": "classifier", "epochs": 1}).json["id"]
        worker.claim()
        worker.commit_epoch(1)
        url = f"/jobs/{job_id}/checkpoints/latest"
        assert client.get(url).status_code == 200
        proxy.fault = lambda exchange: (503, b"<Code>ServiceUnavailable</Code>")
        answer = client.get(url)
        assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
        assert answer.headers["Retry-After"] == "10"
        assert object_servers.BUCKET not in answer.text


def test_storage_that_cannot_be_written_to_is_down(make_app: MakeApp, sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    answer = make_app(sqlite_url, artifacts=tmp_path / "file" / "artifacts").test_client().get("/readyz")
    assert (answer.status_code, answer.json["status"]) == (503, "down")
    assert answer.json["checks"]["storage"]["status"] == "down"
    assert str(tmp_path) not in answer.text


def test_a_silent_broker_is_reported_as_degraded(make_app: MakeApp, sqlite_url: str) -> None:
    with listener() as silent:
        port = silent.getsockname()[1]
        app = make_app(sqlite_url, broker_url=f"redis://127.0.0.1:{port}/0")
        answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.json["checks"]["broker"]["status"]) == (200, "degraded")


def test_limits_are_those_that_are_enforced(client: FlaskClient) -> None:
    limits = client.get("/limits").json
    assert limits["max_body_bytes"] == 1024 * 1024
    assert limits["max_json_depth"] == strict_json.MAX_DEPTH
    assert limits["priorities"] == [0, 9]
    assert limits["presets"]["classifier"][:2] == ["classic", "fast"]
    assert "adam" in limits["optimizers"]
    assert set(limits["datasets"]) == {
        "mnist-10k", "mnist", "fashion-mnist", "iris", "breast-cancer", "diabetes", "stacked-mnist"
    }  # fmt: skip
    refused = client.post("/jobs", json={"kind": "classifier", "epochs": limits["max_epochs"] + 1})
    assert refused.status_code == 422
    accepted = client.post("/jobs?dry_run=1", json={"kind": "classifier", "epochs": limits["max_epochs"]})
    assert accepted.status_code == 200


def test_datasets_are_listed_with_counts_and_digests(client: FlaskClient) -> None:
    listed = {item["name"]: item for item in client.get("/datasets").json["data"]}
    sample = listed["mnist-10k"]
    assert (sample["train_count"], sample["validation_count"], sample["image_shape"]) == (8500, 1500, [28, 28])
    assert sample["sha256"].startswith("sha256:")
    assert client.get("/datasets/mnist-10k").json.items() >= sample.items()
    assert listed["mnist"]["urls"].keys() >= {"self"}


def test_a_dataset_has_a_preview(client: FlaskClient) -> None:
    answer = client.get("/datasets/mnist-10k/preview.png")
    assert (answer.status_code, answer.content_type) == (200, "image/png")
    assert client.get("/datasets/mnist-10k/preview.png", headers={"If-None-Match": answer.headers["ETag"]}).data == b""


@pytest.mark.parametrize("name", ["nothing", "..", ".cache"])
def test_an_unknown_dataset_is_not_found(client: FlaskClient, name: str) -> None:
    for end in ("", "/preview.png"):
        answer = client.get(f"/datasets/{name}{end}")
        assert (answer.status_code, answer.json["code"]) in ((404, "dataset_not_found"), (404, "not_found"))


def test_a_dataset_is_not_downloaded_for_a_preview_or_a_validation_image(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.datasets.builtins import BUILT_IN

    with listener() as mirror:
        url = f"http://127.0.0.1:{mirror.getsockname()[1]}/"
        monkeypatch.setitem(BUILT_IN, "mnist", replace(BUILT_IN["mnist"], mirrors=(url,)))
        for picture in ("preview.png", "validation/0.png"):
            answer = client.get(f"/datasets/mnist/{picture}")
            assert (answer.status_code, answer.json["code"]) == (404, "not_yet")
        with pytest.raises(BlockingIOError):
            mirror.accept()
    assert not (tmp_path / "data").exists()


def test_creating_an_app_opens_no_connections_starts_no_threads_and_creates_no_files(
    make_app: MakeApp, tmp_path: Path
) -> None:
    thread_count = threading.active_count()
    with listener() as database, listener() as broker:
        database_port, broker_port = (server.getsockname()[1] for server in (database, broker))
        broker_url = f"redis://127.0.0.1:{broker_port}/0"
        make_app(f"sqlite:///{tmp_path / 'none.db'}", broker_url=broker_url)
        make_app(f"postgresql+psycopg://nobody@127.0.0.1:{database_port}/none", broker_url=broker_url)
        for server in (database, broker):
            with pytest.raises(BlockingIOError):
                server.accept()
    assert threading.active_count() == thread_count
    assert not (tmp_path / "none.db").exists()
    assert not (tmp_path / "artifacts").exists()


def test_submitting_a_job_does_not_wait_for_the_broker(make_app: MakeApp, sqlite_url: str, submit: Any) -> None:
    with listener() as silent:
        app = make_app(sqlite_url, broker_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        client = app.test_client()
        started = time.monotonic()
        for _ in range(20):
            submit(client)
        assert time.monotonic() - started < 20, "each waits for the two seconds of a connection"
