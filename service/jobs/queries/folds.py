"""The jobs of a cross-validation, and the means of their metrics."""

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
"""The metrics that are averaged over folds, as names of columns."""


def jobs(session: Session, group: str, *, owner: str | None = None) -> list[Job]:
    """The existing jobs of a cross-validation, in the order of their folds.

    Raises:
        FoldsNotFound: there are none, or they belong to another owner.
    """
    conditions = [Job.owner == owner] if owner is not None else []
    members = session.scalars(select(Job).where(Job.fold_group == group, *conditions)).all()
    if not members:
        raise FoldsNotFound(group)
    return sorted(members, key=lambda job: int(job.resolved["dataset"]["fold"]))


def measured(column: Column, jobs_: Sequence[Job]) -> Mean | None:
    """The mean over the succeeded folds; ``None`` if none of them has this metric."""
    values = [column.value(job) for job in jobs_ if job.status == Status.SUCCEEDED]
    finite = [float(value) for value in values if value is not None and math.isfinite(value)]
    return Mean.of(finite) if finite else None


def columns() -> list[Column]:
    """The columns of ``MEASURED``."""
    return [parse(name) for name in MEASURED]
