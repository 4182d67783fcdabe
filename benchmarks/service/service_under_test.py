"""Starts the real processes of the service on a separate database."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from benchmarks.postgresql import PostgresServer, serve_postgresql
from migrations.upgrade import upgrade
from service.local.broker import Broker
from service.runtime.failpoints import VARIABLE
from service.runtime.settings import Settings
from service.storage.database import Database
from service.storage.tables import Job

ROOT = Path(__file__).parent.parent.parent
_NUMBERS = itertools.count()


class ServiceUnderTest:
    """A migrated database, a broker, and processes that use them.

    Args:
        data: folder of datasets.
        environ: further settings.
    """

    def __init__(self, home: Path, database_url: str, *, data: Path | None, environ: dict[str, str]) -> None:
        self.home = home
        self.points = home / "points"
        self.points.mkdir(parents=True)
        log = os.open(home / "broker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.broker = Broker(home, log=home / "broker.log", output=log, environ=os.environ)
        self.port = _free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAPELINE_")}
        own_settings = {
            "TAPELINE_HOME": str(home),
            "TAPELINE_DATABASE_URL": database_url,
            "TAPELINE_BROKER_URL": self.broker.url,
            "TAPELINE_PORT": str(self.port),
            "TAPELINE_WORKERS": "1",
        }
        if data is not None:
            own_settings["TAPELINE_DATA"] = str(data)
        self.settings = Settings.from_env(own_settings | environ, cores=1)
        self._environ = inherited | {"PYTHONPATH": str(ROOT)} | self.settings.to_env()
        self.database = Database(database_url)
        self._processes: list[subprocess.Popen[bytes]] = []
        upgrade(self.database)
        self.broker.prepare()
        self.broker.child.start()
        self.broker.wait_until_ready()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60, trust_env=False)

    def start(self, *arguments: str, descriptors: int | None = None, **environ: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{arguments[1]}.log").open("ab") as log:
            limit = [] if descriptors is None else ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"]
            command = [*limit, sys.executable, *arguments]
            process = subprocess.Popen(command, env=self._environ | environ, stdout=log, stderr=log, cwd=self.home)
        self._processes.append(process)
        return process

    def serve(self, *, descriptors: int | None = None) -> subprocess.Popen[bytes]:
        """Start the web process; ``descriptors`` limits its file descriptors (``ulimit -n``)."""
        return self._serve("service.web.wsgi:app", self.port, descriptors)

    def serve_bare(self) -> int:
        """Start a second web process whose only view inserts a job's rows; returns its port."""
        port = _free_port()
        self._serve("benchmarks.service.bare.post:app", port, None)
        return port

    def run_bare(self, spec: dict[str, Any], *options: str) -> float:
        """The figure of ``benchmarks.service.bare.loop`` for a spec, with one BLAS thread like a child."""
        command = [sys.executable, "-m", "benchmarks.service.bare.loop", json.dumps(spec), *options]
        environ = os.environ | self.settings.to_env() | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        completed = subprocess.run(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, check=True, text=True)
        return float(completed.stdout)

    def stream_bare(self, job_id: str) -> int:
        """Start a server that streams one job's events, and nothing else; returns its port."""
        port = _free_port()
        self.start("-m", "benchmarks.service.bare.streams", str(port), job_id)

        def responds() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                return True
            return False

        wait_until(responds, "the bare streams")
        return port

    def _serve(self, application: str, port: int, descriptors: int | None) -> subprocess.Popen[bytes]:
        conf = "python:service.web.gunicorn_conf"
        process = self.start(
            "-m", "gunicorn", "-c", conf, application, descriptors=descriptors, TAPELINE_PORT=str(port)
        )

        def responds() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return self.http.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
            return False

        wait_until(responds, "the web process")
        return process

    def work(self, slots: int = 1, *, takes_notes: bool = False) -> subprocess.Popen[bytes]:
        """Start a worker, and wait until its spare child process is ready.

        Args:
            takes_notes: whether ``note`` has an effect. That costs time in each batch.
        """
        workers_before = self._worker_count()
        armed = {VARIABLE: str(self.points)} if takes_notes else {}
        process = self.start("-m", "workers", TAPELINE_WORKERS=str(slots), **armed)
        wait_until(lambda: self._worker_count() > workers_before, "a worker")
        time.sleep(2)  # its spare child loads
        return process

    def _worker_count(self) -> int:
        return len(self.http.get("/workers").json()["data"])

    def submit(self, **spec: Any) -> str:
        response = self.http.post("/jobs", json=spec)
        response.raise_for_status()
        return str(response.json()["id"])

    def wait_until_ended(self, job_id: str) -> dict[str, Any]:
        """Wait for the end of a job by long polling."""
        tag = ""
        while True:
            response = self.http.get(f"/jobs/{job_id}", headers={"If-None-Match": tag, "Prefer": "wait=30"})
            if response.status_code == 200:
                tag, job = response.headers["ETag"], response.json()
                if job["status"] == "succeeded":
                    return dict(job)
                if job["status"] in ("failed", "cancelled"):
                    raise RuntimeError(f"a job of the benchmark {job['status']}: {job['error']}")

    def wait_until_all_ended(self, job_ids: Sequence[str]) -> None:
        """Wait for the end of many jobs without a request for each, which would take time from them."""
        unfinished = select(Job.id).where(Job.id.in_(job_ids), Job.status != "succeeded").limit(1)
        wait_until(
            lambda: self.database.query(lambda session: session.scalar(unfinished)) is None, "the jobs", 600, 0.05
        )

    def note(self, point: str) -> None:
        """Let the next process that reaches a failpoint record the time."""
        (self.points / point).write_text("note")

    def noted_at(self, point: str) -> float | None:
        """The recorded time (monotonic clock); ``None`` if no process has reached the failpoint yet."""
        for path in self.points.glob(f"{point}.reached-*"):
            path.unlink()
            return int(path.name.rpartition("-")[2]) / 1e9
        return None

    def close(self) -> None:
        self.http.close()
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
        self.broker.child.end(5)
        self.database.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServiceLauncher:
    """Starts services on SQLite, and on a separate PostgreSQL server with default sync settings."""

    def __init__(self, folder: Path, data: Path | None) -> None:
        self._folder, self._data = folder, data
        self._stack = contextlib.ExitStack()
        self._server: PostgresServer | None = None

    @contextlib.contextmanager
    def open(self, kind: str, **environ: str) -> Iterator[ServiceUnderTest]:
        name = f"{kind}_{next(_NUMBERS)}"
        home = self._folder / name
        home.mkdir()
        url = f"sqlite:///{home / 'tapeline.db'}" if kind == "sqlite" else self._postgresql(name)
        service = ServiceUnderTest(home, url, data=self._data, environ=environ)
        try:
            yield service
        finally:
            service.close()

    def has(self, dataset: str) -> bool:
        return self._data is not None and (self._data / dataset).is_dir()

    def close(self) -> None:
        self._stack.close()

    def _postgresql(self, name: str) -> str:
        if self._server is None:
            self._server = self._stack.enter_context(serve_postgresql())
        return self._server.create_database(name)


def wait_until(condition: Callable[[], object], description: str, timeout_s: float = 60, pause_s: float = 0.02) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"timed out waiting for {description}")
        time.sleep(pause_s)
