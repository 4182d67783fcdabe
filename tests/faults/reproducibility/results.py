"""The result of a job, for comparison with that of another one."""

from __future__ import annotations

from typing import Any

from service.jobs import events
from service.jobs.queries import lookup
from service.storage.tables import Job
from tests.faults.conftest import InProcessHarness


def result(process: InProcessHarness, job: Job) -> list[Any]:
    """Return all values that must be the same as without reuse."""
    with process.database.read() as session:
        rows = lookup.epochs(session, job.id)
        files = lookup.artifacts(session, job.id)
        assert job.size_bytes == sum(row.size_bytes for row in files)
        for file in files:
            process.artifacts.read(file.path, file.sha256)
        assert all(file.path.startswith(f"{job.id}/") for file in files)
        announced = [
            (event.type, event.data["epoch"]) for event in events.read(session, job.id) if "epoch" in event.data
        ]
    return [
        job.status, job.result_digest, job.best_epoch, job.metrics, job.extremes, job.epoch, job.step, job.steps,
        [(row.epoch, row.step, row.metrics, row.confusion, row.samples_digest) for row in rows],
        {(file.kind, file.epoch) for file in files},
        [(kind, epoch) for kind, epoch in announced if kind in ("metrics", "sample", "checkpoint")],
    ]  # fmt: skip
