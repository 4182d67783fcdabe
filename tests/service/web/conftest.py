"""The app on a real database and real files; the tests simulate the worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from service.jobs import commits, epoch_commits, leases
from service.jobs.epoch_commits import EpochRecord
from service.jobs.leases import Claim, Position, Usage
from service.pictures import grids
from service.runtime.settings import Auth, Settings
from service.schema.findings import Finding
from service.states import Request
from service.storage.artifacts import ArtifactKind
from service.storage.database import Database
from service.web.core import metrics
from service.web.core.core import EXTENSION, Core
from tests.service.jobs.leases import renew
from tests.service.web.apps import borrow_app, shut_down_app

MakeApp = Callable[..., Flask]


@dataclass
class SimulatedWorker:
    """Performs a worker's operations on a job, without training."""

    database: Database
    artifacts: Any
    """A store; tests that damage files use the folder of theirs."""
    current_claim: Claim | None = None

    def claim(self) -> Claim:
        self.current_claim = leases.claim(self.database, "simulated", 600.0)
        assert self.current_claim is not None, "no job waits"
        leases.begin(self.database, self.current_claim, {"numpy": "2.4", "threads": 1})
        return self.current_claim

    def report(self, step: int, steps: int = 100) -> None:
        assert self.current_claim is not None
        renew(self.database, self.current_claim, Position(step=step, steps=steps, steps_per_second=50.0))

    def commit_epoch(
        self,
        epoch: int,
        *,
        metrics: dict[str, float] | None = None,
        best: bool = True,
        confusion: Sequence[Sequence[int]] | None = None,
        keep_last: int = 3,
        checkpoint: bytes | None = None,
        health: Sequence[Finding] = (),
        sample_classes: grids.SampleClasses | None = None,
        sample: bytes | None = None,
        used: Usage | None = None,
    ) -> None:
        assert self.current_claim is not None
        job_id, lease = self.current_claim.job_id, self.current_claim.lease
        data = checkpoint if checkpoint is not None else bytes([epoch % 251]) * 10_000
        noise = np.random.default_rng(epoch).integers(0, 255, (4, 8, 8)).astype(np.uint8)
        sample = sample or grids.sample_grid(noise, sample_classes=sample_classes)
        files = [
            self.artifacts.write(job_id, ArtifactKind.CHECKPOINT, epoch, lease, data),
            self.artifacts.write(job_id, ArtifactKind.SAMPLE, epoch, lease, sample),
        ]
        record = EpochRecord(
            epoch=epoch,
            position=Position(step=epoch * 85, steps=850, steps_per_second=50.0),
            metrics=metrics or {"train_loss": 1 / epoch, "val_accuracy": 0.9},
            confusion=confusion,
            samples_digest=f"sha256:{epoch}",
            seconds=0.5,
            is_best=best,
            files=files,
            health=health,
            cpu_seconds=0.4 if used else None,
            memory_bytes=used.peak_memory_bytes if used else None,
            used=used,
        )
        self.artifacts.remove(epoch_commits.commit(self.database, self.current_claim, [record], keep_last=keep_last))

    def succeed(self, stopped_early: dict[str, Any] | None = None, *, keep_last: int | None = None) -> None:
        assert self.current_claim is not None
        self.artifacts.remove(
            epoch_commits.succeed(
                self.database, self.current_claim, "sha256:done", stopped_early=stopped_early, keep_last=keep_last
            )
        )

    def release(self, request: str | None = None) -> None:
        assert self.current_claim is not None
        leases.release_lease(self.database, self.current_claim, Request(request) if request else None)

    def fail(self, code: str = "internal") -> None:
        assert self.current_claim is not None
        commits.fail(self.database, self.current_claim, {"code": code, "message": "it went wrong"})


def pointers(answer: Any) -> list[str]:
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_spec"), answer.text
    return [error["pointer"] for error in answer.json["errors"]]


@pytest.fixture
def no_requests_yet() -> None:
    """Forget the requests of earlier tests: a page of metrics with the times of all of them takes long to parse."""
    metrics._REQUESTS.clear()


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[MakeApp]:
    """Borrow an app for a database; keyword arguments override settings."""
    with ExitStack() as running:

        def make(database_url: str, **changes: Any) -> Flask:
            values: dict[str, Any] = {
                "home": tmp_path,
                "workers": 1,
                "database_url": database_url,
                "broker_url": None,
                "artifacts": tmp_path / "artifacts",
                "data": tmp_path / "data",
                "auth": Auth.LOCAL,
                "lease_s": 15.0,
            }
            app = borrow_app(Settings(**(values | changes)))
            running.callback(shut_down_app, app)
            return app

        yield make


@pytest.fixture
def app(make_app: MakeApp, sqlite_url: str) -> Flask:
    return make_app(sqlite_url)


@pytest.fixture
def either_app(make_app: MakeApp, migrated_url: str) -> Flask:
    return make_app(migrated_url)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def make_worker() -> Callable[[Flask], SimulatedWorker]:
    """Create a simulated worker that shares an app's database and files."""

    def make(app: Flask) -> SimulatedWorker:
        core: Core = app.extensions[EXTENSION]
        return SimulatedWorker(core.database, core.artifacts)

    return make


@pytest.fixture
def worker(app: Flask, make_worker: Callable[[Flask], SimulatedWorker]) -> SimulatedWorker:
    return make_worker(app)


@pytest.fixture
def submit() -> Callable[..., str]:
    """Submit a job and return its id."""

    def send(client: FlaskClient, **spec: Any) -> str:
        response = client.post("/jobs", json={"kind": "classifier", **spec})
        assert response.status_code == 201, response.text
        return str(response.json["id"])

    return send


@pytest.fixture
def serve() -> Iterator[Callable[[Flask], str]]:
    """Serve an app over a real socket, with one thread per request, and return its URL."""
    running = []

    def start(app: Flask) -> str:
        server = make_server("127.0.0.1", 0, app, threaded=True)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()
