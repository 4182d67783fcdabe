"""Real worker processes on a real database, without a broker: workers poll at start and twice a second."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from migrations.upgrade import upgrade
from service.jobs import events, submissions
from service.jobs.queries import lookup
from service.jobs.submissions import Submission
from service.runtime.settings import Settings
from service.schema import costs
from service.spec.validation import resolve
from service.states import TERMINAL
from service.storage.database import Database
from service.storage.tables import Event, Job
from tests.conftest import create_database
from tests.waiting import wait_until

STEADY_SPEC = {
    "kind": "classifier",
    "epochs": 6,
    "batch_size": 50,
    "layers": [
        {"units": 250, "activation": "relu"},
        {"type": "dropout", "rate": 0.2},
        {"units": 10, "activation": "softmax"},
    ],
    "samples": {"count": 9},
}
"""A job whose epochs of 170 batches take some tenths of a second each, which leaves time to disturb it."""

POLL_OFTEN = Path(__file__).parent / "poll_often"
"""A folder with a ``sitecustomize`` for workers."""
STOP_TIMEOUT_S = 60
"""A worker waits up to eight seconds for its children, three for the database and two for Celery."""


@dataclass
class WorkerHarness:
    """A database, an artifact folder, and the worker processes that use them."""

    home: Path
    database: Database
    lease_s: float = 15.0
    """With a shorter lease, a worker that gets no CPU time for some seconds fences off its own child."""
    data: Path | None = None
    """The datasets folder."""
    train_count: int = 8500
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        environ = {
            "TAPELINE_HOME": str(self.home),
            "TAPELINE_DATABASE_URL": self.database.url,
            "TAPELINE_BROKER_URL": f"redis+socket://{self.home}/none.sock?virtual_host=0",
            "TAPELINE_WORKERS": "1",
            "TAPELINE_LEASE_S": str(self.lease_s),
            "TAPELINE_DATA": str(self.data or ""),
            "TAPELINE_VERIFY_REUSED": os.environ.get("TAPELINE_VERIFY_REUSED", "0"),
        }
        return Settings.from_env(environ, cores=1)

    def start(self, module: str = "workers", **overrides: str) -> subprocess.Popen[bytes]:
        python_path = os.pathsep.join([str(POLL_OFTEN), os.environ["PYTHONPATH"]])
        environ = {
            **os.environ,
            "PYTHONPATH": python_path,
            "PYTHONHASHSEED": "0",
            **self.settings.to_env(),
            **overrides,
        }
        with (self.home / f"{module}.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", module], env=environ, stderr=log, stdout=log)
        self.processes.append(process)
        return process

    def submit(self, *, upload_id: str | None = None, owner: str | None = None, **spec: Any) -> str:
        return self.store(STEADY_SPEC | spec, upload_id=upload_id, owner=owner)

    def store(self, document: dict[str, Any], *, upload_id: str | None = None, owner: str | None = None) -> str:
        resolved = resolve(document)
        steps = costs.total_steps(resolved, self.train_count)
        submission = Submission(spec=document, resolved=resolved, steps=steps, upload_id=upload_id, owner=owner)
        answer, _ = submissions.submit(
            self.database, [submission], idempotency=None, represent=lambda jobs: {"id": jobs[0].id}
        )
        return str(answer["id"])

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return lookup.get(session, job_id)

    def log(self, job_id: str) -> list[Event]:
        with self.database.read() as session:
            job_events = list(events.read(session, job_id))
        assert [event.seq for event in job_events] == list(range(1, len(job_events) + 1))
        assert [event.type for event in job_events].count("end") <= 1
        return job_events

    def until(self, job_id: str, holds: Callable[[Job], bool], timeout_s: float = 90) -> Job:
        deadline = time.monotonic() + timeout_s
        while not holds(job := self.job(job_id)):
            if time.monotonic() > deadline:
                pytest.fail(f"{job_id} stays {job.status}, epoch {job.epoch}, step {job.step}")
            time.sleep(0.02)
        return job

    def until_end(self, job_id: str, timeout_s: float = 90) -> Job:
        return self.until(job_id, lambda job: job.status in TERMINAL, timeout_s)

    def logs(self) -> str:
        """The end of what each kind of process has logged; a failed test shows it."""
        return "\n".join(
            f"{path.name}:\n{path.read_text(errors='replace')[-6000:]}" for path in self.home.glob("*.log")
        )

    def stop(self) -> None:
        """Stop all processes. Those that do not stop in time are killed with their descendants, and fail the test."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        unstopped = []
        for process in self.processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                unstopped.append(process)
        kill_groups(unstopped)
        assert not unstopped, f"{[process.args for process in unstopped]} did not stop within {STOP_TIMEOUT_S} seconds"

    def close(self) -> None:
        """Stop all processes, and close the database in any case."""
        try:
            self.stop()
        finally:
            self.database.close()


def open_worker_harness(home: Path, url: str, *, data: Path | None = None) -> WorkerHarness:
    home.mkdir(exist_ok=True)
    database = Database(url)
    upgrade(database)
    return WorkerHarness(home, database, data=data)


@contextmanager
def open_migrated_harness(url: str, home: Path, *, data: Path | None = None) -> Iterator[WorkerHarness]:
    """A harness on a database that is migrated already; stops its workers at the end."""
    home.mkdir(exist_ok=True)
    with closing(WorkerHarness(home, Database(url), data=data)) as harness:
        yield harness


@pytest.fixture
def sqlite_workers(sqlite_url: str, tmp_path: Path) -> Iterator[WorkerHarness]:
    """Workers on SQLite only, for behaviour that does not depend on the database."""
    with open_migrated_harness(sqlite_url, tmp_path / "home") as harness:
        yield harness


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)])
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WorkerHarness]:
    """Workers on SQLite; at night also on PostgreSQL, where the fault tests run theirs."""
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "private_postgres_url")
    with open_migrated_harness(url, tmp_path / "home") as harness:
        yield harness


@pytest.fixture(scope="session")
def running_on_sqlite(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerHarness]:
    """A running worker on SQLite, shared by tests that do not disturb it, since starting one takes long."""
    home = tmp_path_factory.mktemp("running")
    with open_migrated_harness(f"sqlite:///{shutil.copy(migrated, home)}", home) as harness:
        harness.start()
        yield harness


@pytest.fixture(scope="session")
def running_on_postgresql(
    postgres_server: str, postgres_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerHarness]:
    with open_migrated_harness(
        create_database(postgres_server, postgres_template), tmp_path_factory.mktemp("running")
    ) as harness:
        harness.start()
        yield harness


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)])
def running(request: pytest.FixtureRequest) -> WorkerHarness:
    """A running worker on SQLite, shared by tests; at night also one on PostgreSQL."""
    harness: WorkerHarness = request.getfixturevalue(
        "running_on_sqlite" if request.param == "sqlite" else "running_on_postgresql"
    )
    return harness


@pytest.fixture(scope="session")
def undisturbed_job(running_on_sqlite: WorkerHarness) -> Job:
    """The job of STEADY_SPEC, finished without a disturbance."""
    job = running_on_sqlite.until_end(running_on_sqlite.submit())
    assert job.status == "succeeded"
    return job


def children_of(pid: int) -> list[int]:
    """A worker's training processes. They are its grandchildren: on Linux, its fork server forks them."""
    parents = _parents()
    return [child for child, parent in parents.items() if parents.get(parent) == pid]


def parent_of(pid: int) -> int:
    """The parent process of ``pid``."""
    return _parents()[pid]


def _parents() -> dict[int, int]:
    return {process.pid: process.info["ppid"] for process in psutil.process_iter(["ppid"])}


def is_alive(pid: int) -> bool:
    """Whether a process is running; a zombie is not."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def kill_groups(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill workers and all their descendants at once, as a power cut does, and wait until they have ended."""
    pids = [pid for worker in workers for pid in (worker.pid, *_descendants_of(worker.pid))]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for worker in workers:
        worker.wait()
    wait_until(lambda: not any(map(is_alive, pids)), "their end")


def _descendants_of(pid: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        return [process.pid for process in psutil.Process(pid).children(recursive=True)]
    return []
