"""Estimate the cost of a training: parameters, bytes and seconds."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session, defer

from service.jobs.estimation import calibrations
from service.spec.estimation import costs, work
from service.spec.estimation.costs import total_steps
from service.spec.estimation.features import features_of
from service.spec.estimation.layer_shapes import Shape
from service.spec.schema import Spec
from service.spec.strict_json import canonical
from service.spec.validation import read_resolved
from service.states import DatasetKind, Status
from service.storage.tables import Epoch, Job, Upload

_MAX_CONSIDERED_JOBS: Final = 30
"""Maximum number of the latest finished jobs of the kind to consider."""
_MAX_SIMILAR_JOBS: Final = 10
"""Maximum number of similar jobs in an estimate."""
_MIN_OVERLAP: Final = 0.85
"""Two trainings are similar if at least this fraction of their time goes into the same kinds of work."""
_DEFAULT_SIDE: Final = 28
"""Rows and columns of the images of a finished job whose dataset is not an upload."""
_CALIBRATION_RANGE: Final = (0.65, 1.6)
"""Range of an estimate from a calibration alone, on an idle machine."""
_SINGLE_JOB_MARGIN: Final = 0.6
"""Relative margin of the range around a single similar job; for n jobs, 1 / sqrt(n) of it."""
_MAX_WALL_TO_EPOCHS: Final = 1.5
"""Maximum ratio of a job's time to the time of its epochs; the rest counts as waiting, for example for a download."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The duration of a training. Nine of ten trainings should lie between ``low_s`` and ``high_s``."""

    seconds: float
    low_s: float
    high_s: float
    basis: str
    """``calibration``, or ``3 similar jobs``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCost:
    """The size of a training."""

    parameters: int
    steps: int
    estimated_bytes: int
    """Peak memory: dataset, weights, gradients, optimiser and activations."""
    checkpoint_bytes: int
    expected_bytes: int
    """The most that the job's files take at a time."""
    estimate: Estimate | None
    """``None`` until a worker has measured a machine, or a job of this kind has been finished."""

    @property
    def estimated_seconds(self) -> float | None:
        """The expected median."""
        return self.estimate.seconds if self.estimate is not None else None


@dataclass(frozen=True, slots=True)
class _FinishedJob:
    """A succeeded job: its expected time by kind of work, its elapsed time, and its CPU time, an estimate of the
    time that it would have needed on an idle machine."""

    expected: Mapping[str, float]
    elapsed_s: float
    cpu_s: float


def plan(session: Session, spec: Spec, shape: Shape, *, owner: str | None = None) -> TrainingCost:
    """Estimate the cost of a validated spec.

    Args:
        owner: use only this owner's jobs; ``None``: all.
    """
    return TrainingCost(
        parameters=costs.parameters(spec, shape),
        steps=total_steps(spec, shape.train_count),
        estimated_bytes=costs.peak_bytes(spec, shape),
        checkpoint_bytes=costs.checkpoint_bytes(spec, shape),
        expected_bytes=costs.expected_bytes(spec, shape),
        estimate=_estimate(session, spec, shape, owner),
    )


def _estimate(session: Session, spec: Spec, shape: Shape, owner: str | None) -> Estimate | None:
    factors = calibrations.factors(session)
    expected = work.seconds(work.count(spec, shape), factors or {})
    finished = _finished_jobs(session, spec, factors or {}, owner)
    similar = [job for job in finished if work.overlap(job.expected, expected) >= _MIN_OVERLAP][:_MAX_SIMILAR_JOBS]
    if not similar and factors is None:
        similar = finished[:_MAX_SIMILAR_JOBS]
    seconds = sum(expected.values())
    if similar:
        _, median, high = _spread(sorted(job.elapsed_s / sum(job.expected.values()) for job in similar))
        low, _, _ = _spread(sorted(job.cpu_s / sum(job.expected.values()) for job in similar))
        count = len(similar)
        return _rounded_estimate(
            seconds * low, seconds * median, seconds * high, f"{count} similar job{'s'[: count > 1]}"
        )
    if factors is None:
        return None
    # The machine may be idler or busier when the job runs, so contention widens the range.
    contention = factors.get(work.CONTENTION, 1.0)
    low, high = seconds * _CALIBRATION_RANGE[0], seconds * contention * _CALIBRATION_RANGE[1] * math.sqrt(contention)
    return _rounded_estimate(low, seconds * contention, high, "calibration")


def _spread(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Low, median and high expected ratio of another job. Of five or more, the extremes are ignored."""
    count = len(ratios)
    median = ratios[count // 2] if count % 2 else (ratios[count // 2 - 1] + ratios[count // 2]) / 2
    trimmed = ratios[1:-1] if count >= 5 else ratios
    margin = 1 + _SINGLE_JOB_MARGIN / math.sqrt(count)
    return trimmed[0] / margin, median, trimmed[-1] * margin


def _rounded_estimate(low: float, median: float, high: float, basis: str) -> Estimate:
    return Estimate(seconds=round(median, 1), low_s=round(low, 1), high_s=round(high, 1), basis=basis)


def _finished_jobs(session: Session, spec: Spec, factors: Mapping[str, float], owner: str | None) -> list[_FinishedJob]:
    """The latest succeeded jobs of the kind that are not forks and needed only one attempt."""
    recent = (
        select(Job.id)
        .where(Job.status == Status.SUCCEEDED, Job.kind == spec.kind, Job.start_epoch == 0, Job.attempt == 1)
        .where(Job.reused_from.is_(None))
        .order_by(Job.created_ms.desc(), Job.id.desc())
        .limit(_MAX_CONSIDERED_JOBS)
    )
    if owner is not None:
        recent = recent.where(Job.owner == owner)
    dataset = Job.resolved[("dataset", "name")].as_string()
    # PostgreSQL cannot group by a JSON column, but accepts columns that depend on the grouped primary keys.
    rows = session.execute(
        select(Job, Upload, func.sum(Epoch.seconds))
        .join(Epoch, Epoch.job_id == Job.id)
        .outerjoin(Upload, and_(Upload.owner == func.coalesce(Job.owner, ""), Upload.name == dataset))
        .where(Job.id.in_(recent.scalar_subquery()))
        .group_by(Job.id, Upload.id)
        .order_by(Job.created_ms.desc(), Job.id.desc())
        .options(defer(Job.spec), defer(Job.provenance))
    )
    jobs = []
    for job, upload, trained_s in rows:
        expected = work.seconds(_work_of(job, upload), factors)
        if trained_s and sum(expected.values()):
            wall_s = ((job.finished_ms or 0) - (job.started_ms or 0)) / 1000
            elapsed_s = max(trained_s, min(wall_s, _MAX_WALL_TO_EPOCHS * trained_s + 1))
            jobs.append(_FinishedJob(expected, elapsed_s, min(elapsed_s, job.cpu_seconds or elapsed_s)))
    return jobs


def _work_of(job: Job, upload: Upload | None) -> work.Work:
    picture = (_DEFAULT_SIDE, _DEFAULT_SIDE, 1)
    if upload is not None and upload.kind == DatasetKind.TABLE:
        picture = (1, features_of(upload.columns or []), 1)
    elif upload is not None:
        picture = (upload.image_rows, upload.image_columns, upload.image_channels)
    return _count_work(canonical(job.resolved), job.epoch, job.steps, picture)


@functools.lru_cache(maxsize=256)
def _count_work(resolved: str, epochs: int, steps: int, picture: tuple[int, int, int]) -> work.Work:
    spec = read_resolved(json.loads(resolved))
    images = steps * spec.batch_size // max(1, epochs)
    rows, columns, channels = picture
    shape = Shape(rows=rows, columns=columns, channels=channels, classes=0, train_count=images)
    return work.count(spec, shape, epochs=epochs)
