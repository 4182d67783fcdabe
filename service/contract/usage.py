"""What each owner uses: jobs, processor time, stored bytes. What was deleted is not counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.contract.states import Status
from service.contract.tables import ApiKey, Artifact, Job, Upload


@dataclass(slots=True, kw_only=True)
class Usage:
    """One owner's share of the service; ``owner`` is ``None`` for what was made without keys."""

    owner: str | None
    jobs: dict[Status, int] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    artifact_bytes: int = 0
    dataset_bytes: int = 0
    keys: int = 0
    """Keys that are not revoked."""


def read(session: Session, *, owner: str | None = None) -> Sequence[Usage]:
    """The usage of one owner, or (``None``) of all. It reads every row of their jobs and files: ask seldom."""
    found: dict[str | None, Usage] = {}

    def of(name: str | None) -> Usage:
        return found.setdefault(name, Usage(owner=name))

    jobs = select(Job.owner, Job.status, func.count(), func.sum(Job.cpu_seconds)).group_by(Job.owner, Job.status)
    files = select(Job.owner, func.sum(Artifact.size_bytes)).join(Job, Job.id == Artifact.job_id).group_by(Job.owner)
    uploads = select(Upload.owner, func.sum(Upload.size_bytes)).group_by(Upload.owner)
    keys = select(ApiKey.owner, func.count()).where(ApiKey.revoked_ms.is_(None)).group_by(ApiKey.owner)
    if owner is not None:
        jobs, files = jobs.where(Job.owner == owner), files.where(Job.owner == owner)
        uploads, keys = uploads.where(Upload.owner == owner), keys.where(ApiKey.owner == owner)
        of(owner)
    for name, status, count, seconds in session.execute(jobs):
        of(name).jobs[Status(status)] = count
        of(name).cpu_seconds += seconds or 0.0
    for name, size in session.execute(files):
        of(name).artifact_bytes = int(size)
    for name, size in session.execute(uploads):
        of(name or None).dataset_bytes = int(size)
    for name, count in session.execute(keys):
        of(name).keys = count
    return sorted(found.values(), key=lambda item: -(item.artifact_bytes + item.dataset_bytes))


def trained_on(session: Session, dataset: str, *, owner: str | None = None, limit: int = 20) -> Sequence[Job]:
    """The newest jobs of an owner (``None``: of all) that name a dataset."""
    query = select(Job).where(Job.resolved["dataset"]["name"].as_string() == dataset)
    if owner is not None:
        query = query.where(Job.owner == owner)
    return session.scalars(query.order_by(Job.created_ms.desc(), Job.id.desc()).limit(limit)).all()
