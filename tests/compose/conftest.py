"""The whole service in containers, with its own port and project name; volumes are removed at the end."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

ROOT = Path(__file__).parents[2]
IMAGE = "tapeline:tested"
LEASE_S = 5
FINAL_STATES = ("succeeded", "failed", "cancelled")


def docker(*arguments: str, stdin: Any = None, timeout_s: float = 300) -> str:
    """Run `docker ...` and return its output."""
    process = subprocess.run(
        ["docker", *arguments], stdin=stdin, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    assert process.returncode == 0, f"docker {' '.join(arguments)}:\n{process.stdout}\n{process.stderr}"
    return process.stdout


def require_image(tag: str) -> str:
    """Pull an image unless it is present; skip the test if the registry is unreachable."""
    try:
        docker("image", "inspect", tag)
    except AssertionError:
        try:
            docker("pull", "--quiet", tag, timeout_s=120)
        except AssertionError as error:
            pytest.skip(f"the image {tag} is unavailable: {str(error)[-200:]}")
    return tag


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Service:
    """One compose project."""

    folder: Path = ROOT
    files: Sequence[str] = ("docker-compose.yml",)
    project: str = field(default_factory=lambda: f"tapeline-{uuid4().hex[:8]}")
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    env_file: Path | None = None
    """A file with further settings; by default Compose looks for ``.env`` beside the first file."""

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=40, trust_env=False)

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """Run `docker compose ...`, which must succeed, and return its output."""
        command, process = self._run(*arguments, timeout_s=timeout_s)
        if process.returncode != 0:
            logs = subprocess.run([*command, "logs", "--tail=30"], cwd=self.folder, capture_output=True, text=True)
            pytest.fail(f"docker compose {' '.join(arguments)}:\n{process.stderr}\n{logs.stdout[-8000:]}")
        return process.stdout

    def expect_failure(self, *arguments: str) -> str:
        """Run `docker compose ...`, which must fail, and return its output."""
        _, process = self._run(*arguments)
        assert process.returncode != 0, f"docker compose {' '.join(arguments)}:\n{process.stdout}"
        return process.stdout + process.stderr

    def _run(self, *arguments: str, timeout_s: float = 300) -> tuple[list[str], subprocess.CompletedProcess[str]]:
        fixed_settings = {"TAPELINE_PORT": str(self.port), "TAPELINE_IMAGE": IMAGE, "TAPELINE_LEASE_S": str(LEASE_S)}
        command = ["docker", "compose", "--project-name", self.project]
        command += ["--env-file", str(self.env_file)] if self.env_file else []
        for name in self.files:
            command += ["--file", name]
        process = subprocess.run(
            [*command, *arguments],
            cwd=self.folder,
            env=os.environ | fixed_settings | self.settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        return command, process

    def containers(self, name: str) -> list[str]:
        return self.compose("ps", "--quiet", name).split()

    def states(self) -> dict[str, str]:
        """The health of each running container."""
        lines = self.compose("ps", "--format", "json").splitlines()
        return {row["Name"].removeprefix(f"{self.project}-"): row["Health"] for row in map(json.loads, lines)}

    def submit(self, **spec: Any) -> str:
        response = self.http.post("/jobs", json=spec)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """The job. Requests are retried for a minute, because the service may be restarting."""
        deadline = time.monotonic() + 60
        while True:
            try:
                response = self.http.get(f"/jobs/{job_id}")
                if response.status_code < 500:
                    job: dict[str, Any] = response.raise_for_status().json()
                    return job
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, "the service does not answer"
            time.sleep(0.3)

    def wait_until(
        self, job_id: str, holds: Callable[[dict[str, Any]], bool], timeout_s: float = 120
    ) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while not holds(job := self.job(job_id)):
            assert time.monotonic() < deadline, (job, self.compose("logs", "--tail=30", "worker", "scheduler"))
            time.sleep(0.1)
        return job

    def wait_until_epoch(self, job_id: str, epoch: int) -> None:
        job = self.wait_until(job_id, lambda job: job["progress"]["epoch"] >= epoch)
        assert job["status"] == "running", "it ended too early"

    def wait_until_success(self, job_id: str, timeout_s: float = 120) -> dict[str, Any]:
        job = self.wait_until(job_id, lambda job: job["status"] in FINAL_STATES, timeout_s)
        assert job["status"] == "succeeded", job
        return job

    def log(self, job_id: str) -> list[dict[str, Any]]:
        """The job's events, whose numbers must have no gap and of which at most one is an end."""
        events: list[dict[str, Any]] = self.http.get(f"/jobs/{job_id}/events?limit=1000").json()["data"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert [event["type"] for event in events].count("end") <= 1
        return events

    def trained_by(self, job_id: str) -> list[str]:
        """The containers that claimed the job, in order; a container's host name is its id."""
        claims = [event["worker"] for event in self.log(job_id) if event.get("reason") == "claimed"]
        return [worker.partition("-")[0] for worker in claims]

    def check_download(self, job_id: str) -> None:
        """The best checkpoint is downloaded over HTTP exactly as it was written."""
        results = self.http.get(f"/jobs/{job_id}/results").json()
        best = results["checkpoints"]["best"]
        data = self.http.get(f"/jobs/{job_id}/checkpoints/best").raise_for_status().content
        assert hashlib.sha256(data).hexdigest() == best["sha256"]
        assert len(data) == best["size_bytes"]

    def down(self) -> None:
        self.http.close()
        self.compose("down", "--volumes", "--remove-orphans", "--timeout=3")


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """Skip the tests if there is no Docker engine."""
    try:
        subprocess.run(["docker", "info"], capture_output=True, check=True, timeout=20)
        subprocess.run(["docker", "compose", "version"], capture_output=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no Docker engine answers `docker info`: {error}")


@pytest.fixture(scope="session")
def image(docker_engine: None) -> str:
    """The image, built from this tree."""
    docker("build", "--quiet", "--tag", IMAGE, str(ROOT), timeout_s=600)
    return IMAGE


@pytest.fixture(scope="module")
def service(image: str) -> Iterator[Service]:
    """A fresh service with two workers, each running one job at a time."""
    started = Service(settings={"TAPELINE_WORKERS": "1"})
    try:
        started.compose("up", "--detach", "--wait", "--scale", "worker=2")
        yield started
    finally:
        started.down()
