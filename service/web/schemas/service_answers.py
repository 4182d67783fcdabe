"""What the API answers about the service itself: workers, the queue, keys and usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from service.access import keys
from service.access.keys import Scope
from service.access.usage import Usage
from service.jobs.queries.queue import Queue, Waiting
from service.states import Status
from service.storage.tables import ApiKey, Job, Worker
from service.web.schemas.representations import Answer, Progress, at_time


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
    started_at: str
    seen_at: str
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
    queued_at: str
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


class KeyItem(Answer):
    """An API key, without its secret."""

    id: str
    name: str
    owner: str
    scope: Scope
    created_at: str
    expires_at: str | None = Field(description="Null: never.")
    revoked_at: str | None
    state: str = Field(description="`valid`, `expired` or `revoked`.")
    last_recorded_at: str | None = Field(
        description="The key's last action in the audit: a submission, a change, a sign-in. Reads are not recorded."
    )
    last_used_at: str | None = Field(
        description="The key's last request of any kind, accurate to about half a minute; null: none since the upgrade "
        "to a version that records it."
    )
    replaced_by: str | None = Field(description="Id of the key that a rotation created in its place.")


class NewKey(KeyItem):
    """A new API key, with its secret."""

    key: str = Field(description="The key itself. It is shown once and cannot be read again.")


class RotatedKey(NewKey):
    """The new API key after a rotation, with its secret."""

    replaces: KeyItem = Field(description="The old key, with its new expiry.")


class KeyList(Answer):
    """All API keys, the oldest first, revoked ones included."""

    data: list[KeyItem]
    of_settings: int = Field(description="Further keys in `TAPELINE_API_KEYS`; only the operator can change these.")
    required: bool = Field(description="Whether this service requires keys.")


class UsageItem(Answer):
    """What one owner uses. Deleted jobs and files are not included."""

    owner: str | None = Field(description="Null: jobs and files that were created without keys.")
    jobs: dict[Status, int] = Field(description="Jobs by status; a status without jobs is left out.")
    cpu_seconds: float = Field(description="CPU time of all jobs, as far as measured.")
    artifact_bytes: int = Field(description="Checkpoints and samples.")
    dataset_bytes: int = Field(description="Uploaded datasets.")
    keys: int = Field(description="Keys that are not revoked.")
    requests_left: int | None = Field(description="Requests left in this minute; null: no limit.")
    upload_bytes_left: int | None = Field(description="Bytes that may still be uploaded today; null: no limit.")


class UsageList(Answer):
    """Usage per owner, largest first: of all owners for the scope `admin`, otherwise of the caller."""

    data: list[UsageItem]


def worker_item(row: Worker, jobs: Sequence[Job]) -> WorkerItem:
    """A worker for a list, with those of its jobs that may be seen."""
    return WorkerItem(
        id=row.id,
        host=row.host,
        pid=row.pid,
        slots=row.slots,
        running=row.running,
        draining=row.draining,
        started_at=at_time(row.started_ms),
        seen_at=at_time(row.seen_ms),
        jobs=[
            RunningJob(
                id=job.id,
                name=job.name,
                kind=job.kind,
                owner=job.owner,
                progress=Progress.of(job),
                page=f"/ui/jobs/{job.id}",
            )
            for job in jobs
        ],
    )


def queue_list(queue: Queue, owners: Mapping[str | None, int] | None) -> QueueList:
    """The queue; ``owners`` only for those who may see all."""
    return QueueList(
        data=[_queued(item) for item in queue.waiting],
        total=queue.total,
        own=queue.own,
        owners={name or "": count for name, count in owners.items()} if owners is not None else None,
    )


def _queued(item: Waiting) -> QueuedJob:
    job = item.job
    return QueuedJob(
        id=job.id,
        name=job.name,
        kind=job.kind,
        owner=job.owner,
        priority=job.priority,
        position=item.position,
        queued_at=at_time(job.queued_ms),
        waited_seconds=round(item.waited_s, 1),
        page=f"/ui/jobs/{job.id}",
    )


def key_item(row: ApiKey, *, now: int, last_ms: int | None = None) -> KeyItem:
    """A key for a list.

    Args:
        now: the database's clock, in milliseconds.
        last_ms: when its last action was recorded.
    """
    used_ms = keys.last_used(row, last_ms)
    return KeyItem(
        id=row.id,
        name=row.name,
        owner=row.owner,
        scope=Scope(row.scope),
        created_at=at_time(row.created_ms),
        expires_at=at_time(row.expires_ms) if row.expires_ms is not None else None,
        revoked_at=at_time(row.revoked_ms) if row.revoked_ms is not None else None,
        state=keys.state_of(row, now=now),
        last_recorded_at=at_time(last_ms) if last_ms is not None else None,
        last_used_at=at_time(used_ms) if used_ms is not None else None,
        replaced_by=row.replaced_by,
    )


def usage_item(item: Usage, *, requests_left: int | None, upload_bytes_left: int | None) -> UsageItem:
    """One owner's usage."""
    return UsageItem(
        owner=item.owner,
        jobs=item.jobs,
        cpu_seconds=round(item.cpu_seconds, 1),
        artifact_bytes=item.artifact_bytes,
        dataset_bytes=item.dataset_bytes,
        keys=item.keys,
        requests_left=requests_left,
        upload_bytes_left=upload_bytes_left,
    )
