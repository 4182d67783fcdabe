"""`docker compose up` for real: the service comes up, trains both kinds, and keeps what it has."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PORT = "18000"
pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]


def compose(*arguments: str) -> str:
    environ = {**os.environ, "TAPELINE_PORT": PORT, "COMPOSE_PROJECT_NAME": "tapeline-test"}
    done = subprocess.run(
        ["docker", "compose", *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def service() -> Iterator[httpx.Client]:
    try:
        subprocess.run(["docker", "info"], capture_output=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no Docker engine answers `docker info`: {error}")
    compose("up", "-d", "--build", "--wait")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=40) as client:
            yield client
    finally:
        compose("down", "--volumes")


def until_end(service: httpx.Client, job_id: str, timeout_s: float = 120) -> dict[str, object]:
    deadline = time.monotonic() + timeout_s
    while True:
        job: dict[str, object] = service.get(f"/jobs/{job_id}").json()
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.2)


def test_both_kinds_are_trained_and_survive_a_restart(service: httpx.Client) -> None:
    specs = [{"kind": "classifier", "epochs": 2}, {"kind": "gan", "epochs": 2}]
    ids = [service.post("/jobs", json=spec).json()["id"] for spec in specs]
    jobs = [until_end(service, job_id) for job_id in ids]
    assert [job["status"] for job in jobs] == ["succeeded", "succeeded"]
    assert service.get("/readyz").json()["status"] == "ready"

    compose("down")
    compose("up", "-d", "--wait")
    for job in jobs:
        assert service.get(f"/jobs/{job['id']}").json()["result_digest"] == job["result_digest"]
        assert service.get(f"/jobs/{job['id']}/checkpoints/latest").status_code == 200


def test_a_job_outlives_the_worker_that_was_stopped(service: httpx.Client) -> None:
    spec = {"kind": "gan", "epochs": 12}
    undisturbed = until_end(service, service.post("/jobs", json=spec).json()["id"])
    job_id = service.post("/jobs", json=spec).json()["id"]
    deadline = time.monotonic() + 60
    while service.get(f"/jobs/{job_id}").json()["progress"]["epoch"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    compose("restart", "worker")
    job = until_end(service, job_id)
    assert job["result_digest"] == undisturbed["result_digest"]
