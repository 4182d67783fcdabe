"""Jobs that train quickly, and fixtures to disturb them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
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
from service.storage.artifacts import ArtifactFolder, ArtifactKind
from service.storage.database import Database
from service.storage.tables import Epoch
from tests.faults.harness import FEW, QUICK, FaultHarness, few_digits, open_harness
from tests.faults.invariants import Reference, check
from tests.workers.conftest import WorkerHarness, open_worker_harness
from workers.messages import ChildEndpoint
from workers.training import limits, run


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread() -> Iterator[None]:
    """As in a child: the bits are the same, and no thread waits for another where many tests share the processors."""
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        yield


class NoSupervisor(ChildEndpoint):
    """The child's end of a pipe that nobody else holds."""

    def __init__(self) -> None:
        self.stopping, self.request = False, None
        self.after_batches: int | None = None
        """Ask the child to stop after so many batches."""

    def stop(self, request: Request | None) -> None:
        self.stopping, self.request = True, request

    def preparing(self) -> None:
        pass

    def progress(self, step: int, steps: int) -> None:
        if self.after_batches is not None:
            self.after_batches -= 1
            if self.after_batches <= 0:
                self.stop(self.request)


@dataclass
class InProcess:
    """Trains in this very process, so that a death costs milliseconds."""

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
        self.accepted.append(self.workers.submit(**QUICK | spec))
        return self.accepted[-1]

    def arm(self, name: str, how: str = "abandon") -> None:
        (self.points / name).write_text(how)

    def claim(self, lease_s: float = 30) -> Claim:
        held = leases.claim(self.database, "process", lease_s)
        assert held is not None, "no job waits"
        return held

    def train(self, held: Claim | None = None, endpoint: NoSupervisor | None = None) -> str:
        """Train in this process what a child would train."""
        try:
            return run.train(self.workers.settings, self.database, held or self.claim(), endpoint or NoSupervisor())
        finally:
            limits.lift_memory_limit()  # this process has other things to do

    def die(self, place: str, how: str = "abandon") -> None:
        """Train until the failpoint strikes; then the supervisor finds the child dead."""
        self.arm(place, how)
        held = self.claim()
        with pytest.raises(failpoints.SimulatedKill):
            self.train(held)
        assert not (self.points / place).exists()
        with contextlib.suppress(LeaseLost):  # its last message arrived
            leases.record_child_loss(self.database, held, f"died at {place}")

    def epochs(self, job_id: str) -> Sequence[Epoch]:
        with self.database.read() as session:
            return lookup.epochs(session, job_id)

    def check(self, reference: Reference | None) -> None:
        check(self.database, self.artifacts, self.accepted, reference)


def newest_checkpoints(process: InProcess, job_id: str) -> list[Path]:
    with process.database.read() as session:
        rows = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)[::-1]
    return [process.artifacts.root / row.path for row in rows]


def away() -> OperationalError:
    return OperationalError("...", None, Exception("the database is away"))


def _bench(home: Path, url: str) -> Iterator[InProcess]:
    points = home.parent / f"{home.name}-points"
    points.mkdir()
    workers = open_worker_harness(home, url, data=few_digits())
    workers.train_count = FEW
    failpoints.arm(points)
    yield InProcess(workers, points)
    failpoints.arm(None)
    workers.database.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.faults)])
def process(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[InProcess]:
    """On SQLite by default, on both databases in the whole suite."""
    yield from _bench(
        tmp_path / "home", request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_own")
    )


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The QUICK job as it ends when nobody disturbs it."""
    home = tmp_path_factory.mktemp("reference") / "home"
    opened: Callable[..., Iterator[InProcess]] = _bench
    process = next(iterator := opened(home, f"sqlite:///{home.parent / 'tapeline.db'}"))
    job_id = process.submit()
    assert process.train() == "succeeded"
    found = Reference.of(process.database, job_id)
    process.check(found)
    next(iterator, None)
    return found


@pytest.fixture
def harness(tmp_path: Path, own_url: str) -> Iterator[FaultHarness]:
    """Real processes, on each database."""
    made = open_harness(tmp_path / "home", own_url)
    yield made
    made.stop()
    made.database.close()


@pytest.fixture
def light(tmp_path: Path) -> Iterator[FaultHarness]:
    """On SQLite alone, for what does not hang on the database."""
    made = open_harness(tmp_path / "home", f"sqlite:///{tmp_path / 'tapeline.db'}")
    yield made
    made.stop()
    made.database.close()
