"""The metrics for Prometheus, parsed by Prometheus' parser."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text, update

from service.jobs import events, leases, worker_registry
from service.jobs.events import EventType
from service.jobs.leases import Usage
from service.jobs.rescue import rescue
from service.storage.database import Database, now_ms
from service.storage.tables import Job, Worker
from service.web.core.core import EXTENSION
from service.web.core.metrics import Metrics
from tests.service.web.conftest import SimulatedWorker

pytestmark = pytest.mark.usefixtures("no_requests_yet")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(page: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def test_events_are_counted_once(
    either_app: Flask, make_worker: Callable[[Flask], SimulatedWorker], submit: Callable[..., str]
) -> None:
    metrics = Metrics(either_app.extensions[EXTENSION].database, late_ms=0)
    submit(either_app.test_client())
    worker = make_worker(either_app)

    def scrape() -> Samples:
        return read(metrics.page().decode())

    before = scrape()
    assert value(before, "tapeline_jobs", status="queued", kind="classifier") == 1
    worker.claim()
    worker.commit_epoch(1)
    worker.commit_epoch(2, used=Usage(cpu_seconds=0.9, peak_memory_bytes=100_000_000))
    worker.succeed()
    after, rescraped = scrape(), scrape()
    expected_increases = {
        ("tapeline_queue_wait_seconds_count", "classifier", None): 1,
        ("tapeline_epoch_seconds_count", "classifier", None): 2,
        ("tapeline_epoch_seconds_sum", "classifier", None): 1.0,
        ("tapeline_job_run_seconds_count", "classifier", "succeeded"): 1,
        ("tapeline_job_cpu_seconds_total", "classifier", None): 0.4,
        ("tapeline_job_peak_memory_bytes_count", "classifier", None): 1,
        ("tapeline_job_peak_memory_bytes_sum", "classifier", None): 100_000_000,
    }
    for (name, kind, status), expected in expected_increases.items():
        labels = {"kind": kind} | ({"status": status} if status else {})
        assert value(after, name, **labels) - value(before, name, **labels) == expected, name
        assert value(rescraped, name, **labels) == value(after, name, **labels), name
    assert value(after, "tapeline_jobs", status="succeeded", kind="classifier") == 1
    assert value(after, "tapeline_jobs", status="queued", kind="classifier") == 0
    assert value(after, "tapeline_artifact_bytes", kind="checkpoint") == 0  # a cached value, at most a minute old
    assert (
        value(read(Metrics(metrics._database).page().decode()), "tapeline_artifact_bytes", kind="checkpoint") == 20_000
    )


def test_what_an_error_interrupts_is_not_counted_twice(
    app: Flask, worker: SimulatedWorker, submit: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics(app.extensions[EXTENSION].database, late_ms=0)

    def waits() -> float:
        return value(read(metrics.page().decode()), "tapeline_queue_wait_seconds_count", kind="classifier")

    before = waits()
    submit(app.test_client())
    worker.claim()
    with monkeypatch.context() as broken:
        broken.setattr(worker_registry, "live_workers", lambda session: session.execute(text("SELECT nothing")))
        assert waits() == before
    assert waits() == before + 1


def test_the_owner_who_stores_most_is_shown_beside_the_quota_but_not_named(
    make_app: Callable[..., Flask], make_worker: Callable[[Flask], SimulatedWorker], migrated_url: str
) -> None:
    app = make_app(migrated_url)
    database, worker = app.extensions[EXTENSION].database, make_worker(app)
    for owner, size in (("ann", 3000), ("bob", 5000), ("ann", 1000)):
        job_id = app.test_client().post("/jobs", json={"kind": "classifier"}).json["id"]
        worker.claim()
        worker.commit_epoch(1, checkpoint=bytes(size), sample=b"x")
        with database.write() as session:
            session.get_one(Job, job_id).owner = owner
    page = Metrics(database, owner_limit_bytes=9000).page().decode()
    assert value(read(page), "tapeline_largest_owner_artifact_bytes") == 5001
    assert value(read(page), "tapeline_owner_artifact_limit_bytes") == 9000
    assert "bob" not in page
    unlimited = read(Metrics(database).page().decode())
    assert value(unlimited, "tapeline_owner_artifact_limit_bytes") == math.inf


def test_metrics_show_lost_workers_and_the_longest_wait(
    app: Flask, worker: SimulatedWorker, submit: Callable[..., str]
) -> None:
    database = app.extensions[EXTENSION].database
    client, metrics = app.test_client(), Metrics(database, late_ms=0)
    names = {"kind": "classifier", "worker": "simulated"}
    before = read(metrics.page().decode())
    job_id = submit(client)
    for _ in range(leases.MAX_DEATHS):
        leases.record_child_loss(database, worker.claim(), "it is gone")
    submit(client)
    for number, slots in ((7, 4), (8, 1)):  # after a restart, the old process is still listed
        row = Worker(id=f"w-1-{number}-ab12", host="here", pid=number, slots=slots, running=1, draining=False)
        worker_registry.record_heartbeat(database, row)
    after = read(metrics.page().decode())
    for name, count in (("tapeline_workers_lost_total", leases.MAX_DEATHS), ("tapeline_jobs_failed_total", 1)):
        assert value(after, name, **names) - value(before, name, **names) == count, name
    logged = client.get(f"/jobs/{job_id}/events?level=warning&type=status").json["data"]
    assert [item["status"] for item in logged] == ["queued", "queued", "failed"]
    assert value(after, "tapeline_longest_wait_seconds") > 0
    assert value(after, "tapeline_workers") == 2
    assert value(after, "tapeline_worker_slots", worker="w-1") == 5
    assert 0 <= value(after, "tapeline_worker_heartbeat_age_seconds", worker="w-1") < 5
    # Series begin with 0 when a worker is seen, not with its first loss, which would be no increase.
    assert after["tapeline_workers_lost_total", frozenset({"kind": "gan", "worker": "w-1"}.items())] == 0


def test_an_expired_lease_is_told_from_a_training_process_that_died(
    app: Flask, worker: SimulatedWorker, submit: Callable[..., str]
) -> None:
    database = app.extensions[EXTENSION].database
    metrics = Metrics(database, late_ms=0)
    labels = {"kind": "classifier", "worker": "simulated"}

    def counts() -> tuple[float, float]:
        samples = read(metrics.page().decode())
        names = ("tapeline_lease_expiries_total", "tapeline_workers_lost_total")
        expired, lost = (value(samples, name, **labels) for name in names)
        return expired, lost

    before = counts()
    submit(app.test_client())
    leases.record_child_loss(database, worker.claim(), "the training process ended with code -9")
    for _ in range(leases.MAX_DEATHS - 1):  # the last one fails the job
        worker.claim()
        with database.write() as session:
            session.execute(update(Job).values(lease_expires_ms=now_ms() - 1))
        assert len(rescue(database)) == 1
    expired, lost = counts()
    assert (expired - before[0], lost - before[1]) == (leases.MAX_DEATHS - 1, leases.MAX_DEATHS)


def test_the_processes_of_a_server_share_what_workers_have_counted(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "counters"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    database = app.extensions[EXTENSION].database
    first, second = Metrics(database), Metrics(database)
    columns = {"id": "w-1-x", "host": "h", "pid": 1, "slots": 1, "running": 0, "draining": False}

    def heartbeat(store_errors: int) -> None:
        worker_registry.record_heartbeat(database, Worker(**columns, totals={"store_errors": store_errors}))

    heartbeat(2)
    assert value(read(first.page().decode()), "tapeline_store_errors_total", worker="w") == 0
    heartbeat(5)
    for metrics in (second, first, second):
        assert value(read(metrics.page().decode()), "tapeline_store_errors_total", worker="w") == 3


def test_beyond_a_hundred_names_of_workers_losses_are_counted_together(
    app: Flask, monkeypatch: pytest.MonkeyPatch, worker: SimulatedWorker, submit: Callable[..., str]
) -> None:
    monkeypatch.setattr("service.web.core.metrics._WORKERS", {f"pod-{number}" for number in range(100)})
    database = app.extensions[EXTENSION].database
    metrics = Metrics(database, late_ms=0)
    lost = {"name": "tapeline_workers_lost_total", "kind": "classifier", "worker": "other"}
    before = value(read(metrics.page().decode()), **lost)
    submit(app.test_client())
    leases.record_child_loss(database, worker.claim(), "it is gone")
    assert value(read(metrics.page().decode()), **lost) - before == 1


def test_reused_epochs_are_not_counted_but_determinism_violations_are(
    app: Flask, worker: SimulatedWorker, submit: Callable[..., str]
) -> None:
    database = app.extensions[EXTENSION].database
    metrics = Metrics(database, late_ms=0)
    before = read(metrics.page().decode())
    job_id = submit(app.test_client(), epochs=3)
    worker.claim()
    for epoch in (1, 2, 3):
        worker.commit_epoch(epoch)
    with database.write() as session:
        session.get_one(Job, job_id).reused_epochs = 2
        violation = {"level": "error", "code": "determinism_violation", "message": "epoch 1 differs"}
        events.append(session, job_id, [(EventType.LOG, violation), (EventType.LOG, violation | {"code": "other"})])
    after = read(metrics.page().decode())
    for name in ("tapeline_epoch_seconds_count", "tapeline_determinism_violations_total"):
        assert value(after, name, kind="classifier") - value(before, name, kind="classifier") == 1


def test_requests_are_timed_by_route_template(client: FlaskClient) -> None:
    def count(**labels: Any) -> float:
        answer = client.get("/metrics")
        assert answer.content_type.startswith("text/plain; version=")
        return value(read(answer.text), "tapeline_http_request_seconds_count", **labels)

    missing = {"method": "GET", "route": "/jobs/<job_id>", "status": "404"}
    unrouted = {"method": "GET", "route": "none", "status": "404"}
    before = count(**missing), count(**unrouted)
    client.get("/jobs/job_one")
    client.get("/jobs/job_two")
    client.get("/etc/passwd")
    assert (count(**missing) - before[0], count(**unrouted) - before[1]) == (2, 1)


def test_without_its_database_the_service_still_exports_its_counters() -> None:
    with closing(Database("postgresql+psycopg://nobody@127.0.0.1:1/none")) as database:
        samples = read(Metrics(database).page().decode())
    assert samples["tapeline_database_up", frozenset()] == 0
    assert ("tapeline_stream_clients", frozenset()) in samples
