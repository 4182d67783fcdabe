"""The parent of a fork or reproduction, and the children of a job."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session, load_only

from service.storage.tables import Job


def parent(session: Session, job: Job, *, owner: str | None = None) -> Job | None:
    """The job that this one was forked from or reproduces, if it exists."""
    if job.parent_id is None:
        return None
    row = session.get(Job, job.parent_id)
    return row if row is not None and owner in (None, row.owner) else None


def children(session: Session, job_id: str, *, owner: str | None = None, limit: int) -> tuple[Sequence[Job], int]:
    """The newest forks and reproductions of a job, and their total number."""
    conditions = [Job.parent_id == job_id, *([Job.owner == owner] if owner is not None else [])]
    loaded = (Job.id, Job.name, Job.kind, Job.status, Job.start_epoch, Job.reproduction)
    newest = select(Job).where(*conditions).order_by(Job.created_ms.desc(), Job.id.desc()).limit(limit)
    rows = session.scalars(newest.options(load_only(*loaded))).all()
    count = (
        session.scalar(select(func.count()).select_from(Job).where(*conditions)) if len(rows) == limit else len(rows)
    )
    return rows, count or 0
