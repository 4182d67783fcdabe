"""The whole service in containers, with its own port and project name, removed with its volumes at the end."""

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
ENDED = ("succeeded", "failed", "cancelled")


def docker(*arguments: str, stdin: Any = None, timeout_s: float = 300) -> str:
    """Run `docker ...`; gives what it printed."""
    done = subprocess.run(
        ["docker", *arguments], stdin=stdin, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def require_image(tag: str) -> str:
    """Pull an image unless it is there already; skips on a machine that does not reach its registry."""
    try:
        docker("image", "inspect", tag)
    except AssertionError:
        try:
            docker("pull", "--quiet", tag, timeout_s=120)
        except AssertionError as error:
            pytest.skip(f"the image {tag} is not to be had: {str(error)[-200:]}")
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

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=40, trust_env=False)

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """Run `docker compose ...`, which must succeed; gives what it printed."""
        command, done = self._run(*arguments, timeout_s=timeout_s)
        if done.returncode != 0:
            logs = subprocess.run([*command, "logs", "--tail=30"], cwd=self.folder, capture_output=True, text=True)
            pytest.fail(f"docker compose {' '.join(arguments)}:\n{done.stderr}\n{logs.stdout[-8000:]}")
        return done.stdout

    def failure(self, *arguments: str) -> str:
        """Run `docker compose ...`, which must fail; gives what it printed."""
        _, done = self._run(*arguments)
        assert done.returncode != 0, f"docker compose {' '.join(arguments)}:\n{done.stdout}"
        return done.stdout + done.stderr

    def _run(self, *arguments: str, timeout_s: float = 300) -> tuple[list[str], subprocess.CompletedProcess[str]]:
        known = {"TAPELINE_PORT": str(self.port), "TAPELINE_IMAGE": IMAGE, "TAPELINE_LEASE_S": str(LEASE_S)}
        command = ["docker", "compose", "--project-name", self.project]
        for name in self.files:
            command += ["--file", name]
        done = subprocess.run(
            [*command, *arguments],
            cwd=self.folder,
            env=os.environ | known | self.settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        return command, done

    def containers(self, name: str) -> list[str]:
        return self.compose("ps", "--quiet", name).split()

    def states(self) -> dict[str, str]:
        """Each container that runs, and how healthy it is."""
        lines = self.compose("ps", "--format", "json").splitlines()
        return {row["Name"].removeprefix(f"{self.project}-"): row["Health"] for row in map(json.loads, lines)}

    def submit(self, **spec: Any) -> str:
        answer = self.http.post("/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """The job; asked for again where the service is about to start anew."""
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = self.http.get(f"/jobs/{job_id}")
                if answer.status_code < 500:
                    found: dict[str, Any] = answer.raise_for_status().json()
                    return found
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, "the service does not answer"
            time.sleep(0.3)

    def until(self, job_id: str, holds: Callable[[dict[str, Any]], bool], timeout_s: float = 120) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while not holds(job := self.job(job_id)):
            assert time.monotonic() < deadline, (job, self.compose("logs", "--tail=30", "worker", "scheduler"))
            time.sleep(0.1)
        return job

    def until_epoch(self, job_id: str, epoch: int) -> None:
        job = self.until(job_id, lambda job: job["progress"]["epoch"] >= epoch)
        assert job["status"] == "running", "it was to be caught in the middle"

    def until_end(self, job_id: str, timeout_s: float = 120) -> dict[str, Any]:
        job = self.until(job_id, lambda job: job["status"] in ENDED, timeout_s)
        assert job["status"] == "succeeded", job
        return job

    def log(self, job_id: str) -> list[dict[str, Any]]:
        """The job's events, which must have no hole and one end."""
        found: list[dict[str, Any]] = self.http.get(f"/jobs/{job_id}/events?limit=1000").json()["data"]
        assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
        assert [event["type"] for event in found].count("end") <= 1
        return found

    def trained_by(self, job_id: str) -> list[str]:
        """The containers that have claimed the job, one after the other; a container's host name is its id."""
        claims = [event["worker"] for event in self.log(job_id) if event.get("reason") == "claimed"]
        return [worker.partition("-")[0] for worker in claims]

    def check_download(self, job_id: str) -> None:
        """The best checkpoint comes over HTTP as it was written."""
        results = self.http.get(f"/jobs/{job_id}/results").json()
        best = results["checkpoints"]["best"]
        data = self.http.get(f"/jobs/{job_id}/checkpoints/best").raise_for_status().content
        assert hashlib.sha256(data).hexdigest() == best["sha256"]
        assert len(data) == best["size_bytes"]

    def down(self) -> None:
        self.http.close()
        self.compose("down", "--volumes", "--remove-orphans", "--timeout=3")


@pytest.fixture(scope="session")
def engine() -> None:
    """Skips where there is no Docker."""
    try:
        subprocess.run(["docker", "info"], capture_output=True, check=True, timeout=20)
        subprocess.run(["docker", "compose", "version"], capture_output=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no Docker engine answers `docker info`: {error}")


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    """The image of this tree."""
    docker("build", "--quiet", "--tag", IMAGE, str(ROOT), timeout_s=600)
    return IMAGE


@pytest.fixture(scope="module")
def service(image: str) -> Iterator[Service]:
    """A service with two workers of one job at a time, up from nothing."""
    made = Service(settings={"TAPELINE_WORKERS": "1"})
    try:
        made.compose("up", "--detach", "--wait", "--scale", "worker=2")
        yield made
    finally:
        made.down()
