"""Which job another one was forked from or reproduces, and which jobs came out of it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session, load_only

from service.storage.tables import Job


def parent(session: Session, job: Job, *, owner: str | None = None) -> Job | None:
    """The job that this one was forked from or reproduces, if it still exists."""
    if job.parent_id is None:
        return None
    found = session.get(Job, job.parent_id)
    return found if found is not None and owner in (None, found.owner) else None


def children(session: Session, job_id: str, *, owner: str | None = None, limit: int) -> tuple[Sequence[Job], int]:
    """The newest forks and reproductions of a job, and how many there are in all."""
    mine = [Job.parent_id == job_id, *([Job.owner == owner] if owner is not None else [])]
    shown = (Job.id, Job.name, Job.kind, Job.status, Job.start_epoch, Job.reproduction)
    newest = select(Job).where(*mine).order_by(Job.created_ms.desc(), Job.id.desc()).limit(limit)
    rows = session.scalars(newest.options(load_only(*shown))).all()
    count = session.scalar(select(func.count()).select_from(Job).where(*mine)) if len(rows) == limit else len(rows)
    return rows, count or 0
