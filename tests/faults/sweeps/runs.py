"""Sweeps on real workers: the results that must not depend on how a sweep was run, and random kills."""

from __future__ import annotations

import collections
import random
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select

from service.application.specs import SpecChecks
from service.datasets.repository import DatasetRepository
from service.features.sweeps.use_cases import Sweeps
from service.runtime.slots import SlotPool
from service.states import SWEEP_ENDED, Status
from service.storage.stores import ArtifactFolder
from service.storage.sweep_tables import Sweep
from service.storage.tables import Epoch, Event, Job
from service.sweeps import events
from service.sweeps.events import DECISIONS
from tests.faults.harness import QUICK_SPEC, FaultHarness, kill_training_child, open_harness
from tests.waiting import wait_until
from tests.workers.conftest import WorkerHarness, kill_groups

RANDOM: Final[dict[str, Any]] = {
    "base": QUICK_SPEC | {"epochs": 4},
    "seeds": [0, 1],
    "space": {
        "/optimizer/learning_rate": {"log": [0.003, 0.3]},
        "/layers/0/units": {"int": [8, 32], "step": 8},
    },
    "search": {"name": "random", "trials": 6, "seed": 7},
    "halving": {"min_epochs": 1, "factor": 3},
    "parallel": 3,
}
TPE: Final = RANDOM | {"search": {"name": "tpe", "trials": 12, "seed": 7}}
ASHA: Final = TPE | {"halving": {"min_epochs": 1, "factor": 3, "mode": "asynchronous"}}
SEARCHES: Final = {"tpe": TPE, "asha": ASHA}

BUSY_TIMEOUT_S: Final = 5.0

LIFT_LOSS_LIMIT: Final = "from service.jobs import leases\nleases.MAX_DEATHS = 10**9\n"
"""Lifts the limit of three worker losses without a new epoch: constant kills are not the job's fault."""


@dataclass
class SweepResult:
    """The results that must not depend on how a sweep was run."""

    digest: str | None
    winner: tuple[int | None, float | None]
    decisions: list[tuple[str, dict[str, Any]]]


def submit(harness: WorkerHarness, document: dict[str, Any]) -> str:
    repository = DatasetRepository(harness.settings, harness.database)
    use_case = Sweeps(
        database=harness.database,
        artifacts=ArtifactFolder(harness.settings.artifacts),
        specs=SpecChecks(database=harness.database, datasets=repository),
        slots=SlotPool("checks of sweeps", 1),
    )
    return str(use_case.submit(document).answer["id"])


def state(harness: WorkerHarness, sweep_id: str) -> Sweep:
    with harness.database.read() as session:
        return session.get_one(Sweep, sweep_id)


def has_ended(harness: WorkerHarness, sweep_id: str) -> bool:
    return state(harness, sweep_id).status in SWEEP_ENDED


def until_end(harness: WorkerHarness, sweep_id: str, timeout_s: float = 240) -> SweepResult:
    wait_until(lambda: has_ended(harness, sweep_id), "the end of the sweep", timeout_s)
    with harness.database.read() as session:
        sweep = session.get_one(Sweep, sweep_id)
        rows = events.read(session, sweep_id, limit=10_000)
        assert [row.seq for row in rows] == list(range(1, sweep.last_seq + 1))
        # No committed epoch was trained twice, and none is missing.
        epoch_count = session.scalar(select(func.count()).select_from(Epoch).join(Job).where(Job.sweep_id == sweep_id))
        jobs = session.scalars(select(Job).where(Job.sweep_id == sweep_id)).all()
        assert epoch_count == sum(job.epoch for job in jobs)
        assert epoch_count == sweep.epochs_started
        ids = [job.id for job in jobs]
        code = Event.data["code"].as_string()
        violations = select(func.count()).where(Event.job_id.in_(ids), code == "determinism_violation")
        assert session.scalar(violations) == 0
        metrics_events = select(Event.job_id, Event.data["epoch"].as_integer()).where(Event.type == "metrics")
        announced_epochs = session.execute(metrics_events.where(Event.job_id.in_(ids))).all()
        assert len(set(announced_epochs)) == len(announced_epochs) == epoch_count, (
            "an epoch was announced twice, or not at all"
        )
        kinds = {kind.value for kind in DECISIONS}
        decisions = [(row.type, row.data) for row in rows if row.type in kinds]
    assert sweep.status == "succeeded", sweep.error
    return SweepResult(sweep.sweep_digest, (sweep.best_trial, sweep.best_value), decisions)


def run_undisturbed(home: Path, document: dict[str, Any]) -> SweepResult:
    """Run a sweep with one worker and a scheduler, undisturbed."""
    with closing(open_harness(home / "home", f"sqlite:///{home / 'tapeline.db'}")) as harness:
        sweep_id = submit(harness, document)
        harness.start()
        harness.start("workers.scheduler")
        return until_end(harness, sweep_id, 300)


@dataclass
class Killer:
    """Several workers and a scheduler, which are killed one after another."""

    harness: FaultHarness
    rng: random.Random
    worker_count: int
    pause_s: tuple[float, float]
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    """Kills of workers and children that had a running job, and of schedulers."""

    def start(self) -> None:
        self.harness.patch(LIFT_LOSS_LIMIT)
        self.workers = [self.harness.start() for _ in range(self.worker_count)]
        self.scheduler = self.harness.start("workers.scheduler")

    @property
    def total(self) -> int:
        return self.kills.total()

    def run(self, until: Callable[[], object], *, max_kills: int) -> None:
        """Kill until a condition holds or ``max_kills`` have counted."""
        while not until() and self.total < max_kills:
            time.sleep(self.rng.uniform(*self.pause_s))
            self._kill_one(self.rng.choice(["worker", "child", "child", "scheduler"]))

    def stop(self) -> None:
        """Kill everything: a worker that has long been without a broker exits only after its next attempt."""
        for worker in self.workers:
            kill_groups([worker])
        self.scheduler.kill()
        self.scheduler.wait()

    def _kill_one(self, target: str) -> None:
        if target == "scheduler":
            self.scheduler.kill()
            self.scheduler.wait()
            self.scheduler = self.harness.start("workers.scheduler")
            self.kills[target] += 1
            return
        busy: list[subprocess.Popen[bytes]] = []
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while not busy and time.monotonic() < deadline:
            busy = [worker for worker in self.workers if self._holds_a_job(worker.pid)]
            time.sleep(0.02)
        if not busy:  # the sweep has ended, or the workers are still starting
            return
        victim = self.rng.choice(busy)
        if target == "child":
            self.kills[target] += kill_training_child(victim.pid)
            return
        kill_groups([victim])
        self.workers[self.workers.index(victim)] = self.harness.start()
        self.kills[target] += 1

    def _holds_a_job(self, pid: int) -> bool:
        with self.harness.database.read() as session:
            running = session.scalars(select(Job.lease_owner).where(Job.status == Status.RUNNING)).all()
        return any(f"-{pid}-" in (owner or "") for owner in running)
