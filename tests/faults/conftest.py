"""Fixtures that train small jobs, in the test process or in real ones, and inject faults."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import threadpoolctl
from sqlalchemy.exc import OperationalError

from service.errors import LeaseLost
from service.jobs import leases
from service.jobs.leases import Claim
from service.jobs.queries import lookup
from service.runtime import failpoints
from service.states import Request
from service.storage.artifacts import ArtifactKind
from service.storage.database import Database
from service.storage.stores import ArtifactFolder
from service.storage.tables import Epoch
from tests.faults.harness import FEW, QUICK_SPEC, FaultHarness, few_digits, open_harness
from tests.faults.invariants import Reference, check
from tests.workers.conftest import WorkerHarness, open_worker_harness
from workers import operations
from workers.messages import ChildEndpoint, Preparing, Progress, Report, decode, encode
from workers.operations import Call, Execution, Reply
from workers.training import limits, run
from workers.training.epochs import writer


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread() -> Iterator[None]:
    """As in a child: the bits are the same, and tests that run in parallel do not contend for the cores."""
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield


def replace_operation(monkeypatch: pytest.MonkeyPatch, operation: Any, replacement: Callable[..., Any]) -> None:
    """Have another function executed when a child calls an operation."""
    monkeypatch.setitem(operations._OPERATIONS, operations._CODES[operation], replacement)


class NoSupervisor(ChildEndpoint):
    """A child's endpoint without a supervisor at the other end: it executes operations itself."""

    def __init__(self, database: Database | None = None) -> None:
        self.database = database
        self.stopping, self.request = False, None
        self.reports: list[Report] = []
        self.after_batches: int | None = None
        """Ask the child to stop after this number of batches."""

    def stop(self, request: Request | None) -> None:
        self.stopping, self.request = True, request

    def send(self, report: Report) -> None:
        self.reports.append(report)

    def call(self, claim: Claim, message: Call) -> Reply:
        received = decode(encode(message))
        assert isinstance(received, Call)
        assert self.database is not None
        execution, reply = Execution(received), None
        while reply is None:
            reply = execution.attempt(self.database, claim, is_stopping=self.stopping)
        answer = decode(encode(reply))
        assert isinstance(answer, Reply)
        return answer

    def report_progress(self, report: Progress | Preparing) -> None:
        if self.after_batches is not None and isinstance(report, Progress):
            self.after_batches -= 1
            if self.after_batches <= 0:
                self.stop(self.request)


@dataclass
class InProcessHarness:
    """Trains jobs in the test process, where a simulated kill costs milliseconds."""

    workers: WorkerHarness
    points: Path
    accepted: list[str] = field(default_factory=list)

    @property
    def database(self) -> Database:
        return self.workers.database

    @property
    def artifacts(self) -> ArtifactFolder:
        return ArtifactFolder(self.workers.settings.artifacts)

    def submit(self, **spec: Any) -> str:
        self.accepted.append(self.workers.submit(**QUICK_SPEC | spec))
        return self.accepted[-1]

    def arm(self, name: str, fault: str = "abandon") -> None:
        (self.points / name).write_text(fault)

    def mark_reached(self, name: str) -> None:
        """End a ``wait`` of a failpoint."""
        (self.points / f"{name}.reached-test").touch()

    def claim(self, lease_s: float = 30) -> Claim:
        held = leases.claim(self.database, "process", lease_s)
        assert held is not None, "no job waits"
        return held

    def train(self, held: Claim | None = None, endpoint: NoSupervisor | None = None) -> str:
        """Train a claimed job in the test process, as a child would."""
        try:
            endpoint = endpoint or NoSupervisor()
            endpoint.database = self.database
            return run.train(self.workers.settings, held or self.claim(), endpoint)
        finally:
            limits.lift_memory_limit()  # it would also apply to the tests that follow

    def die_at(self, place: str, fault: str = "abandon") -> None:
        """Train until a simulated kill at ``place``, then record the lost child, as its supervisor would."""
        self.arm(place, fault)
        held = self.claim()
        with pytest.raises(failpoints.SimulatedKill):
            self.train(held)
        assert not (self.points / place).exists()
        with contextlib.suppress(LeaseLost):  # the job had already ended
            leases.record_child_loss(self.database, held, f"died at {place}")

    def epochs(self, job_id: str) -> Sequence[Epoch]:
        with self.database.read() as session:
            return lookup.epochs(session, job_id)

    def check(self, reference: Reference | None) -> None:
        check(self.database, self.artifacts, self.accepted, reference)


def checkpoints_newest_first(process: InProcessHarness, job_id: str) -> list[Path]:
    with process.database.read() as session:
        rows = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)[::-1]
    return [process.artifacts.root / row.path for row in rows]


def outage_error() -> OperationalError:
    return OperationalError("...", None, Exception("the database is away"))


def open_in_process(home: Path, url: str) -> Iterator[InProcessHarness]:
    """For a fixture: yields a harness, and closes it."""
    points = home.parent / f"{home.name}-points"
    points.mkdir()
    workers = open_worker_harness(home, url, data=few_digits())
    workers.train_count = FEW
    failpoints.arm(points)
    yield InProcessHarness(workers, points)
    failpoints.arm(None)
    workers.database.close()


@pytest.fixture
def process(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[InProcessHarness]:
    """On SQLite, or where real locks are the subject, on the ``indirect`` database. Short epochs share no commit."""
    monkeypatch.setattr(writer, "COMMIT_INTERVAL_S", 0.0)
    is_postgresql = getattr(request, "param", "sqlite") == "postgresql"
    yield from open_in_process(
        tmp_path / "home", request.getfixturevalue("private_postgres_url" if is_postgresql else "sqlite_url")
    )


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The results of an undisturbed QUICK_SPEC job."""
    home = tmp_path_factory.mktemp("reference") / "home"
    process = next(iterator := open_in_process(home, f"sqlite:///{home.parent / 'tapeline.db'}"))
    job_id = process.submit()
    assert process.train() == "succeeded"
    result = Reference.of(process.database, job_id)
    process.check(result)
    next(iterator, None)
    return result


@pytest.fixture
def harness(private_postgres_url: str, tmp_path: Path) -> Iterator[FaultHarness]:
    """Real processes on PostgreSQL, where they run at the same time."""
    with closing(open_harness(tmp_path / "home", private_postgres_url)) as harness:
        yield harness


@pytest.fixture
def sqlite_harness(tmp_path: Path) -> Iterator[FaultHarness]:
    """Real processes on SQLite alone, for tests that do not depend on the database."""
    with closing(open_harness(tmp_path / "home", f"sqlite:///{tmp_path / 'tapeline.db'}")) as harness:
        yield harness
