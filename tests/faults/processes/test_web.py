"""The web process dies, runs without a broker, and loses its clients."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

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


@pytest.mark.nightly  # tests/simulation kills web processes there
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
