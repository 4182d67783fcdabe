"""The jobs of one cross-validation, and what they measured together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import FoldsNotFound
from service.jobs.queries.columns import Column, parse
from service.jobs.queries.intervals import Mean
from service.states import Status
from service.storage.tables import Job

MEASURED: Final = ("val_accuracy", "best:val_accuracy", "val_loss", "test_accuracy")
"""The metrics that are averaged over folds, as columns of the list have them."""


def jobs(session: Session, group: str, *, owner: str | None = None) -> list[Job]:
    """The jobs of a set that still exist, in the order of their folds.

    Raises:
        FoldsNotFound: there is none, or they are somebody else's.
    """
    mine = [Job.owner == owner] if owner is not None else []
    found = session.scalars(select(Job).where(Job.fold_group == group, *mine)).all()
    if not found:
        raise FoldsNotFound(group)
    return sorted(found, key=lambda job: int(job.resolved["dataset"]["fold"]))


def measured(column: Column, jobs_: Sequence[Job]) -> Mean | None:
    """The mean over the folds that have succeeded; ``None``: none of them has this metric."""
    values = [column.value(job) for job in jobs_ if job.status == Status.SUCCEEDED]
    finite = [float(value) for value in values if value is not None and math.isfinite(value)]
    return Mean.of(finite) if finite else None


def columns() -> list[Column]:
    """What is measured."""
    return [parse(name) for name in MEASURED]
