"""The jobs of a cross-validation, and the means of their metrics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import kinds
from service.errors import FoldsNotFound
from service.jobs.queries.columns import Column, parse
from service.spec.metric_info import describe
from service.states import Status
from service.statistics import interval, mean
from service.storage.database import visible
from service.storage.tables import Job


def jobs(session: Session, group: str, *, owner: str | None = None) -> list[Job]:
    """The existing jobs of a cross-validation, in the order of their folds.

    Raises:
        FoldsNotFound: there are none, or they belong to another owner.
    """
    members = session.scalars(select(Job).where(Job.fold_group == group, visible(Job.owner, owner))).all()
    if not members:
        raise FoldsNotFound(group)
    return sorted(members, key=lambda job: int(job.resolved["dataset"]["fold"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldMean:
    """The mean of a metric over the folds that have succeeded."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    label: str
    percent: bool
    """Whether it is a fraction, to be shown as a percentage."""
    count: int
    """Number of folds with a value."""
    mean: float
    standard_deviation: float | None
    """Sample standard deviation over the folds; null for one fold."""
    low: float | None
    """Lower end of the 95% interval (Student's t, within the metric's range); null for one fold."""
    high: float | None


def spread_of(values: Sequence[float]) -> float | None:
    """The sample standard deviation of finite values; ``None`` for a single one, or if it is too large for a float."""
    try:
        return statistics.stdev(values) if len(values) > 1 else None
    except OverflowError:
        return None


def measured(column: Column, jobs_: Sequence[Job]) -> FoldMean | None:
    """The mean over the succeeded folds; ``None`` if none of them has this metric."""
    values = [column.value(job) for job in jobs_ if job.status == Status.SUCCEEDED]
    finite = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return None
    low, high = interval(finite, limits=describe(str(column.metric)).limits)
    return FoldMean(
        label=column.label,
        percent=column.percent,
        count=len(finite),
        mean=mean(finite),
        standard_deviation=spread_of(finite),
        low=low,
        high=high,
    )


def columns(kind: str) -> list[Column]:
    """The metrics of the jobs of a cross-validation."""
    return [parse(name) for name in kinds.of(kind).fold_metrics]
