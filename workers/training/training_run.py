"""The context of one job under one lease."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import structlog

from service.datasets.cache import Dataset
from service.datasets.repository import DatasetRepository
from service.jobs import commits, leases
from service.jobs.leases import Claim
from service.runtime import tracing
from service.runtime.settings import Settings
from service.spec.schema import Spec
from service.states import Request
from service.storage.artifacts import ArtifactStore
from service.storage.tables import Job
from workers.lease_session import LeaseSession
from workers.messages import ChildEndpoint, Preparing, StopRequested
from workers.usage import OwnMeter

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """One job under one lease."""

    lease: LeaseSession
    """Its retries end when a stop is ordered."""
    artifacts: ArtifactStore
    endpoint: ChildEndpoint
    meter: OwnMeter

    @property
    def claim(self) -> Claim:
        """The claim of the lease."""
        return self.lease.claim

    def discard(self, paths: Iterable[str]) -> None:
        """Remove files without rows. A failure does not stop the job: the scheduler removes orphaned files."""
        try:
            self.artifacts.remove(paths)
        except OSError as error:
            log.warning("files not removed", error=str(error))


class Budget:
    """The CPU time that a job may use.

    Args:
        job: as of the beginning of the lease.
    """

    def __init__(self, run: JobRun, job: Job) -> None:
        self._run = run
        self._spent_at = math.inf if job.budget_seconds is None else job.budget_seconds

    def check(self) -> None:
        """Compare the budget with the CPU time so far; a user may have raised it since the lease began.

        Raises:
            StopRequested: it is spent.
        """
        run = self._run
        if self._spent_at == math.inf or run.meter.cpu_seconds() < self._spent_at:
            return
        left = run.lease.call(leases.budget_left, run.meter.total())
        if left is not None and left <= 0:
            run.endpoint.request = Request.BUDGET
            raise StopRequested
        self._spent_at = math.inf if left is None else run.meter.cpu_seconds() + left


def load_data(run: JobRun, settings: Settings, job: Job) -> Dataset:
    """Load the dataset of a job; the progress of a download is logged in the job's events."""
    logged_at = 0.0

    def progress(received: int, total: int | None) -> None:
        nonlocal logged_at
        run.endpoint.check_stop()
        now = time.monotonic()
        if now - logged_at > 2:
            logged_at = now
            run.endpoint.report_progress(Preparing())
            of_total = f" of {total / 1e6:.1f}" if total else ""
            message = f"downloading {job.resolved['dataset']['name']}: {received / 1e6:.1f}{of_total} MB"
            run.lease.call(commits.log, "info", "downloading", message)

    repository = DatasetRepository(settings, run.lease)
    with tracing.span("load", {"tapeline.dataset": job.resolved["dataset"]["name"]}):
        dataset = repository.load(repository.of_job(job), progress=progress)
    run.endpoint.check_stop()
    return dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun(JobRun):
    """One training under one lease."""

    spec: Spec

    @classmethod
    def of(cls, run: JobRun, spec: Spec) -> Self:
        """The training that a job is for."""
        return cls(lease=run.lease, artifacts=run.artifacts, endpoint=run.endpoint, meter=run.meter, spec=spec)
