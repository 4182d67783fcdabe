"""What a spec will cost: parameters, bytes, and seconds."""

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
from service.spec.estimation.layer_shapes import Shape
from service.spec.schema import Spec
from service.spec.strict_json import canonical
from service.spec.validation import read_resolved
from service.states import Status
from service.storage.tables import Epoch, Job, Upload

_LOOK_BACK: Final = 30
"""So many finished jobs of the kind are looked at, the latest first."""
_SIMILAR_JOBS: Final = 10
"""So many of those that are similar count."""
_SIMILAR: Final = 0.85
"""Two runs are similar if this share of their time, or more, goes into the same kinds of work."""
_SIDE: Final = 28
"""Rows and columns of the images of a finished job, where its dataset does not tell."""
_CALIBRATED: Final = (0.65, 1.6)
"""The range of an estimate that rests on a calibration alone, where the machine has nothing else to do."""
_LEARNED: Final = 0.6
"""How far the range reaches beyond what one similar job took; of n jobs, 1 / sqrt(n) of that."""
_LONGEST_FILES: Final = 1.5
"""What counts at most of a job's time, as a multiple of its epochs': the rest is waiting, such as for a download."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How long a training will take. Nine of ten are meant to lie between ``low_s`` and ``high_s``."""

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
    estimate: Estimate | None
    """``None`` until a worker has measured a machine, or a job of this kind has been finished."""

    @property
    def estimated_seconds(self) -> float | None:
        """The median expected."""
        return self.estimate.seconds if self.estimate is not None else None


@dataclass(frozen=True, slots=True)
class _Finished:
    """A job that succeeded: how its time was expected to be spent, how long it took, and of that the processor's time,
    which it would have taken on an idle machine."""

    expected: Mapping[str, float]
    took_s: float
    used_s: float


def plan(session: Session, spec: Spec, shape: Shape, *, owner: str | None = None) -> TrainingCost:
    """Estimate what a checked spec will cost.

    Args:
        owner: rest the estimate on this owner's jobs only; ``None`` means all.
    """
    return TrainingCost(
        parameters=costs.parameters(spec, shape),
        steps=total_steps(spec, shape.train_count),
        estimated_bytes=costs.peak_bytes(spec, shape),
        checkpoint_bytes=costs.checkpoint_bytes(spec, shape),
        estimate=_estimate(session, spec, shape, owner),
    )


def _estimate(session: Session, spec: Spec, shape: Shape, owner: str | None) -> Estimate | None:
    factors = calibrations.factors(session)
    expected = work.seconds(work.count(spec, shape), factors or {})
    finished = _finished(session, spec, factors or {}, owner)
    similar = [job for job in finished if work.overlap(job.expected, expected) >= _SIMILAR][:_SIMILAR_JOBS]
    if not similar and factors is None:
        similar = finished[:_SIMILAR_JOBS]
    seconds = sum(expected.values())
    if similar:
        _, middle, high = _spread(sorted(job.took_s / sum(job.expected.values()) for job in similar))
        low, _, _ = _spread(sorted(job.used_s / sum(job.expected.values()) for job in similar))
        count = len(similar)
        return _rounded(seconds * low, seconds * middle, seconds * high, f"{count} similar job{'s'[: count > 1]}")
    if factors is None:
        return None
    # A busy machine may be idle by then, or busier: the busier it was, the less is known.
    contention = factors.get(work.CONTENTION, 1.0)
    low, high = seconds * _CALIBRATED[0], seconds * contention * _CALIBRATED[1] * math.sqrt(contention)
    return _rounded(low, seconds * contention, high, "calibration")


def _spread(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The range that another one is expected in, around the median. One ratio of many may be an exception."""
    count = len(ratios)
    middle = ratios[count // 2] if count % 2 else (ratios[count // 2 - 1] + ratios[count // 2]) / 2
    kept = ratios[1:-1] if count >= 5 else ratios
    beyond = 1 + _LEARNED / math.sqrt(count)
    return kept[0] / beyond, middle, kept[-1] * beyond


def _rounded(low: float, middle: float, high: float, basis: str) -> Estimate:
    return Estimate(seconds=round(middle, 1), low_s=round(low, 1), high_s=round(high, 1), basis=basis)


def _finished(session: Session, spec: Spec, factors: Mapping[str, float], owner: str | None) -> list[_Finished]:
    """The latest jobs of the kind that succeeded from their first epoch on, without an interruption."""
    recent = (
        select(Job.id)
        .where(Job.status == Status.SUCCEEDED, Job.kind == spec.kind, Job.start_epoch == 0, Job.attempt == 1)
        .order_by(Job.created_ms.desc(), Job.id.desc())
        .limit(_LOOK_BACK)
    )
    if owner is not None:
        recent = recent.where(Job.owner == owner)
    dataset = Job.resolved[("dataset", "name")].as_string()
    # PostgreSQL cannot group by a JSON column, but lets columns pass that hang on the grouped primary keys.
    found = session.execute(
        select(Job, Upload, func.sum(Epoch.seconds))
        .join(Epoch, Epoch.job_id == Job.id)
        .outerjoin(Upload, and_(Upload.owner == func.coalesce(Job.owner, ""), Upload.name == dataset))
        .where(Job.id.in_(recent.scalar_subquery()))
        .group_by(Job.id, Upload.id)
        .order_by(Job.created_ms.desc(), Job.id.desc())
        .options(defer(Job.spec), defer(Job.provenance))
    )
    jobs = []
    for job, upload, trained_s in found:
        expected = work.seconds(_work_of(job, upload), factors)
        if trained_s and sum(expected.values()):
            whole_s = ((job.finished_ms or 0) - (job.started_ms or 0)) / 1000
            took_s = max(trained_s, min(whole_s, _LONGEST_FILES * trained_s + 1))
            jobs.append(_Finished(expected, took_s, min(took_s, job.cpu_seconds or took_s)))
    return jobs


def _work_of(job: Job, upload: Upload | None) -> work.Work:
    rows, columns = (upload.image_rows, upload.image_columns) if upload is not None else (_SIDE, _SIDE)
    return _counted(canonical(job.resolved), job.epoch, job.steps, rows, columns)


@functools.lru_cache(maxsize=256)
def _counted(resolved: str, epochs: int, steps: int, rows: int, columns: int) -> work.Work:
    spec = read_resolved(json.loads(resolved))
    images = steps * spec.batch_size // max(1, epochs)
    return work.count(spec, Shape(rows=rows, columns=columns, classes=0, train_count=images), epochs=epochs)
