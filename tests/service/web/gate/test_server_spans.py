"""The trace of a request leads to the job, its events, its attempts, and problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from service.runtime import tracing
from service.storage.tables import Job
from service.web.core.core import EXTENSION
from tests.otlp_receiver import Collector, collector
from tests.service.web.conftest import SimulatedWorker

SPEC = {"kind": "classifier", "epochs": 3}
SWEEP = {"base": {"kind": "classifier", "epochs": 2}, "space": {"optimizer.learning_rate": {"choice": [0.01, 0.02]}}}


def sent(number: int) -> dict[str, str]:
    return {"traceparent": f"00-{number:032x}-{'cd' * 8}-01"}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        tracing.start("web", {"OTEL_EXPORTER_OTLP_ENDPOINT": running.url})
        yield running
        tracing.stop()


def test_the_trace_of_a_client_is_kept_even_if_none_is_exported(
    either_app: Flask, make_worker: Callable[[Flask], SimulatedWorker]
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    job_id = client.post("/jobs", json=SPEC, headers=sent(1)).json["id"]
    assert client.get(f"/jobs/{job_id}").json["trace_id"] == f"{1:032x}"
    assert worker.claim().traceparent == sent(1)["traceparent"]
    worker.fail()
    client.post(f"/jobs/{job_id}/retry", headers=sent(2))
    assert client.get(f"/jobs/{job_id}").json["trace_id"] == f"{2:032x}"
    events = [event for event in client.get(f"/jobs/{job_id}/events").json["data"] if event["type"] == "status"]
    assert [(event["reason"], event.get("trace_id")) for event in events if "trace_id" in event] == [
        ("submitted", f"{1:032x}"),
        ("retried", f"{2:032x}"),
    ]
    problem = client.post("/jobs", json={"kind": "none"}, headers=sent(3)).json
    assert problem["trace_id"] == f"{3:032x}"
    without = client.post("/jobs", json=SPEC, headers={"traceparent": "00-nonsense"}).json
    assert without["trace_id"] is None
    assert "trace_id" not in client.get("/jobs/none").json


def test_the_jobs_of_a_sweep_have_the_trace_of_its_request(either_app: Flask) -> None:
    client = either_app.test_client()
    answer = client.post("/sweeps", json=SWEEP, headers=sent(4))
    assert answer.status_code == 201, answer.text
    with either_app.extensions[EXTENSION].database.read() as session:
        assert set(session.scalars(select(Job.traceparent))) == {sent(4)["traceparent"]}


def test_a_request_that_changes_something_or_carries_a_trace_is_a_span(
    either_app: Flask, make_worker: Callable[[Flask], SimulatedWorker], receiver: Collector
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)
    job: dict[str, Any] = client.post("/jobs", json=SPEC, headers={"X-Request-Id": "r-1"}).json
    problem = client.post("/jobs", json={"kind": "none"}).json
    client.get(f"/jobs/{job['id']}")
    client.get(f"/jobs/{job['id']}/events", headers=sent(5))
    claim = worker.claim()
    tracing.stop()
    submitted, refused, read = receiver.spans
    assert {span.kind for span in receiver.spans} == {"server"}
    assert (submitted.name, submitted.trace_id, submitted.parent_id) == ("POST /jobs", job["trace_id"], "")
    assert submitted.attributes == {
        "http.request.method": "POST",
        "http.route": "/jobs",
        "http.response.status_code": 201,
        "tapeline.request_id": "r-1",
        "tapeline.job.id": job["id"],
    }
    assert claim.traceparent == f"00-{submitted.trace_id}-{submitted.span_id}-01"
    assert claim.log_fields["trace_id"] == tracing.trace_id_of(claim.trace) != submitted.trace_id
    assert (refused.attributes["http.response.status_code"], refused.trace_id) == (422, problem["trace_id"])
    assert refused.error is None
    assert (read.name, read.trace_id, read.parent_id) == ("GET /jobs/{job_id}/events", f"{5:032x}", "cd" * 8)
