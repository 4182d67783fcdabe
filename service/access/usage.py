"""Usage per owner: jobs, CPU time, stored bytes. Deleted jobs and datasets are not counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.access import storage_quota
from service.states import Status
from service.storage.sweep_tables import is_stopped_by_sweep
from service.storage.tables import ApiKey, Job, Upload


@dataclass(slots=True, kw_only=True)
class Usage:
    """One owner's usage; ``owner`` is ``None`` for jobs and datasets created without keys."""

    owner: str | None
    jobs: dict[Status, int] = field(default_factory=dict)
    stopped_by_sweep: int = 0
    """Cancelled jobs that their sweeps stopped."""
    cpu_seconds: float = 0.0
    artifact_bytes: int = 0
    expected_bytes: int = 0
    """Further bytes that unfinished jobs may store."""
    dataset_bytes: int = 0
    keys: int = 0
    """Number of keys that are not revoked."""


def read(session: Session, *, owner: str | None = None) -> Sequence[Usage]:
    """The usage of one owner, or (``None``) of all. Expensive: it scans all rows of their jobs."""
    usages: dict[str | None, Usage] = {}

    def usage_of(name: str | None) -> Usage:
        return usages.setdefault(name, Usage(owner=name))

    growth = func.sum(storage_quota.expected_growth())
    jobs = select(Job.owner, Job.status, func.count(), func.sum(Job.cpu_seconds), func.sum(Job.size_bytes), growth)
    jobs = jobs.group_by(Job.owner, Job.status)
    stopped = select(Job.owner, func.count()).where(is_stopped_by_sweep()).group_by(Job.owner)
    uploads = select(Upload.owner, func.sum(Upload.size_bytes)).group_by(Upload.owner)
    keys = select(ApiKey.owner, func.count()).where(ApiKey.revoked_ms.is_(None)).group_by(ApiKey.owner)
    if owner is not None:
        jobs, stopped = jobs.where(Job.owner == owner), stopped.where(Job.owner == owner)
        uploads, keys = uploads.where(Upload.owner == owner), keys.where(ApiKey.owner == owner)
        usage_of(owner)
    for name, status, count, seconds, size, expected in session.execute(jobs):
        usage_of(name).jobs[Status(status)] = count
        usage_of(name).cpu_seconds += seconds or 0.0
        usage_of(name).artifact_bytes += int(size)
        usage_of(name).expected_bytes += int(expected)
    for name, count in session.execute(stopped):
        usage_of(name).stopped_by_sweep = count
    for name, size in session.execute(uploads):
        usage_of(name or None).dataset_bytes = int(size)
    for name, count in session.execute(keys):
        usage_of(name).keys = count
    return sorted(usages.values(), key=lambda item: -(item.artifact_bytes + item.dataset_bytes))
