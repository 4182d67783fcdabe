"""A request id leads from a request to the events of the job, and to the worker that gets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from service.web.core.core import EXTENSION
from tests.service.web.conftest import SimulatedWorker

SPEC = {"kind": "classifier", "epochs": 3}


def requests_of(client: Any, job_id: str) -> list[tuple[str, str | None]]:
    log = client.get(f"/jobs/{job_id}/events").json["data"]
    return [(event["reason"], event.get("request_id")) for event in log if event["type"] == "status"]


@pytest.mark.parametrize("header", ["X-Ignored", "Idempotency-Key"])
def test_events_name_the_request_that_caused_them_and_a_claim_the_one_that_queued_the_job(
    either_app: Flask, make_worker: Callable[[Flask], SimulatedWorker], header: str
) -> None:
    client, worker = either_app.test_client(), make_worker(either_app)

    def send(method: str, path: str, request_id: str, **options: Any) -> Any:
        answer = client.open(path, method=method, headers={"X-Request-Id": request_id, header: request_id}, **options)
        assert answer.status_code < 300, answer.text
        return answer.json

    job_id = send("POST", "/jobs", "r-submit", json=SPEC)["id"]
    assert worker.claim().log_fields == {"job": job_id, "lease": 1, "attempt": 1, "request_id": "r-submit"}
    worker.commit_epoch(1)
    send("PATCH", f"/jobs/{job_id}", "r-change", json={"name": "new"})
    send("POST", f"/jobs/{job_id}/pause", "r-pause")
    worker.release("pause")
    send("POST", f"/jobs/{job_id}/resume", "r-resume")
    assert worker.claim().request_id == "r-resume"
    worker.fail()
    send("POST", f"/jobs/{job_id}/retry", "r-retry")
    assert worker.claim().request_id == "r-retry"
    send("POST", f"/jobs/{job_id}/cancel", "r-cancel")
    assert requests_of(client, job_id) == [
        ("submitted", "r-submit"),
        ("claimed", None),
        ("changed", "r-change"),
        ("pause requested", "r-pause"),
        ("paused", None),
        ("resumed", "r-resume"),
        ("claimed", None),
        ("internal", None),
        ("retried", "r-retry"),
        ("claimed", None),
        ("cancel requested", "r-cancel"),
    ]
    forked = send("POST", f"/jobs/{job_id}/fork", "r-fork", json={"overrides": {"epochs": 5}})["id"]
    send("POST", f"/jobs/{forked}/cancel", "r-cancel-2")
    assert requests_of(client, forked) == [("submitted", "r-fork"), ("cancelled", "r-cancel-2")]


def test_without_keys_requests_are_named_but_not_audited(app: Flask) -> None:
    client = app.test_client()
    client.post("/jobs", json=SPEC)
    ((_, request_id),) = requests_of(client, client.get("/jobs").json["data"][0]["id"])
    assert request_id is not None
    assert request_id.startswith("req_")
    with app.extensions[EXTENSION].database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM audit").scalar() == 0
