"""Workers and the queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from service.jobs.queries.queue import Queue, Waiting
from service.storage.tables import Job, Worker
from service.web.schemas.base import Answer, Timestamp
from service.web.schemas.jobs import Progress


class RunningJob(Answer):
    """A job on a worker."""

    id: str
    name: str | None
    kind: str
    owner: str | None
    progress: Progress
    page: str


class WorkerItem(Answer):
    """A worker process that was seen within the last minute."""

    id: str
    host: str
    pid: int
    slots: int = Field(description="Maximum number of concurrent jobs.")
    running: int = Field(description="Running jobs of all owners.")
    draining: bool = Field(
        description="Whether it is shutting down: it finishes or returns its jobs, and claims no new ones."
    )
    started_at: Timestamp = Field(validation_alias="started_ms")
    seen_at: Timestamp = Field(validation_alias="seen_ms")
    jobs: list[RunningJob] = Field(description="Running jobs that are visible to the caller.")


class WorkerList(Answer):
    """The workers that are alive."""

    data: list[WorkerItem]


class QueuedJob(Answer):
    """A job that waits for a worker."""

    id: str
    name: str | None
    kind: str
    owner: str | None
    priority: int
    position: int = Field(description="Place among the queued jobs of all owners, from 1.")
    queued_at: Timestamp = Field(validation_alias="queued_ms")
    waited_seconds: float
    page: str


class QueueList(Answer):
    """The queue in claim order: highest priority first, then the oldest."""

    data: list[QueuedJob]
    total: int = Field(description="Queued jobs of all owners.")
    own: int = Field(description="Queued jobs visible to the caller; at most `limit` are listed.")
    owners: dict[str, int] | None = Field(
        description="Queued jobs per owner, for the scope `admin`; an empty name stands for jobs without an owner."
    )


def worker_item(row: Worker, jobs: Sequence[Job]) -> WorkerItem:
    """A worker for a list, with those of its jobs that may be seen."""
    return WorkerItem.represent(row, jobs=[_running(job) for job in jobs])


def _running(job: Job) -> RunningJob:
    return RunningJob.represent(job, progress=Progress.of(job), page=f"/ui/jobs/{job.id}")


def queue_list(queue: Queue, owners: Mapping[str | None, int] | None) -> QueueList:
    """The queue; ``owners`` only for those who may see all."""
    return QueueList(
        data=[_queued(item) for item in queue.waiting],
        total=queue.total,
        own=queue.own,
        owners={name or "": count for name, count in owners.items()} if owners is not None else None,
    )


def _queued(item: Waiting) -> QueuedJob:
    return QueuedJob.represent(
        item.job, position=item.position, waited_seconds=round(item.waited_s, 1), page=f"/ui/jobs/{item.job.id}"
    )
