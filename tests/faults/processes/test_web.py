"""The web process dies, runs without a broker, and loses its clients."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from service.runtime.failpoints import VARIABLE
from tests.faults.harness import QUICK_SPEC, FaultHarness
from tests.faults.invariants import Reference
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(400)


HANGING_BROKER = """
import threading
from service.runtime import broker
broker.send_hints = lambda app, job_ids: threading.Event().wait()
"""


@pytest.fixture
def web(harness: FaultHarness) -> Iterator[httpx.Client]:
    """A client of a web process whose broker never answers: a request that waited for it would time out."""
    harness.patch(HANGING_BROKER, program="gunicorn")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "-c", "python:service.web.gunicorn_conf", "service.web.wsgi:app"]
    environ = os.environ | harness.settings.to_env() | {"TAPELINE_PORT": str(port), VARIABLE: str(harness.points)}
    environ |= harness.extra_environ
    with (harness.home / "web.log").open("w") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    harness.processes.append(process)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
        wait_until(lambda: responds(http), "the server")
        yield http


def responds(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def submit(http: httpx.Client, harness: FaultHarness, **headers: str) -> str:
    answer = http.post("/jobs", json=QUICK_SPEC, headers=headers)
    assert answer.status_code == 201, answer.text
    harness.accepted.append(answer.json()["id"])
    return harness.accepted[-1]


@pytest.mark.nightly
def test_without_a_broker_posts_are_answered_jobs_run_and_streams_work(
    web: httpx.Client, harness: FaultHarness, reference: Reference
) -> None:
    """F09."""
    for _ in range(10):
        submit(web, harness)
    harness.start(TAPELINE_WORKERS="2")
    with connect_sse(web, "GET", f"/jobs/{harness.accepted[-1]}/stream") as source:
        assert [event.event for event in source.iter_sse()][-1] == "end"
    harness.until_all_end()
    harness.check(reference)


@pytest.mark.stack
def test_an_api_killed_after_the_commit_returns_the_same_job_to_a_retry(
    web: httpx.Client, harness: FaultHarness, reference: Reference
) -> None:
    """F24."""
    harness.arm("submitted")
    key = {"Idempotency-Key": "once"}
    with pytest.raises(httpx.TransportError):
        web.post("/jobs", json=QUICK_SPEC, headers=key)
    harness.until_reached("submitted")
    wait_until(lambda: responds(web), "the server's new process")  # gunicorn starts another one
    answer = web.post("/jobs", json=QUICK_SPEC, headers=key)
    assert (answer.status_code, answer.headers["Idempotency-Replayed"]) == (201, "true")
    harness.accepted.append(answer.json()["id"])
    harness.start()
    harness.until_all_end()
    harness.check(reference)


@pytest.mark.nightly
def test_fifty_concurrent_requests_with_one_key_create_one_job(
    web: httpx.Client, harness: FaultHarness, reference: Reference
) -> None:
    """F24."""
    responses: list[httpx.Response] = []

    def post(name: str) -> None:
        body = QUICK_SPEC if name == "same" else QUICK_SPEC | {"name": name}
        responses.append(web.post("/jobs", json=body, headers={"Idempotency-Key": "fifty"}))

    web.post("/jobs", json=QUICK_SPEC, headers={"Idempotency-Key": "fifty"})
    threads = [threading.Thread(target=post, args=("same" if n % 5 else f"other {n}",)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in responses) == [201] * 40 + [422] * 10
    (job_id,) = {answer.json()["id"] for answer in responses if answer.status_code == 201}
    harness.accepted.append(job_id)
    harness.start()
    harness.until_all_end()
    harness.check(reference)


@pytest.mark.nightly  # tests/service/web/streaming/test_job_stream.py cuts a stream twenty times
def test_a_client_disconnected_a_hundred_times_gets_each_event_once(
    web: httpx.Client, harness: FaultHarness, reference: Reference
) -> None:
    """F28, with connections that also break in the middle of an event."""
    job_id = harness.submit(epochs=50, samples={"count": 1, "every_epochs": 10})
    harness.start()
    received: list[dict[str, Any]] = []
    disconnects = 0
    while not received or received[-1]["type"] != "end":
        last = str(received[-1]["seq"]) if received else ""
        with connect_sse(
            web, "GET", f"/jobs/{job_id}/stream", headers={"Last-Event-ID": last} if last else {}
        ) as source:
            if source.response.status_code == 204:
                break
            event = next(event for event in source.iter_sse() if event.id)
            received.append(json.loads(event.data))  # events in transit behind it are lost
        disconnects += 1
    logged = web.get(f"/jobs/{job_id}/events", params={"limit": 1000}).json()["data"]
    assert [event["seq"] for event in received] == [event["seq"] for event in logged]
    assert disconnects >= 100
    harness.check(None)
