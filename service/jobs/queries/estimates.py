"""Estimate the cost of a training: parameters, bytes and seconds.

Until a similar job has succeeded, seconds are "about" (`schema.costs`). Then they are multiplied by the median of
actual to computed time of the owner's last similar jobs: same kind and dataset, with or without convolutions, a step of
a quarter to four times the time. Their extremes, widened by 60% / √n, are the range, which spans at most a factor of
three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session, load_only

from service.schema import costs
from service.schema.layer_shapes import Network, Shape
from service.spec.estimation.networks import networks
from service.spec.schema import Conv2D, Conv2DTranspose, Spec
from service.spec.validation import read_resolved
from service.states import Status
from service.storage.database import visible
from service.storage.tables import Epoch, Job
from service.wording import counted

_MAX_CONSIDERED_JOBS: Final = 15
"""Maximum number of the latest finished jobs of the kind and dataset to consider."""
_MAX_STEP_RATIO: Final = 4
"""The steps of similar jobs take at most this many times as long."""
_SINGLE_JOB_MARGIN: Final = 0.6
"""Relative margin of the range around a single similar job; for n jobs, 1 / sqrt(n) of it."""
_MAX_RANGE: Final = 3
"""Maximum ratio of the ends of a range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The duration of a training. Nine of ten trainings should lie between ``low_s`` and ``high_s``."""

    seconds: float
    low_s: float | None = None
    """Unknown before a similar job."""
    high_s: float | None = None
    basis: str
    """``number of operations`` or ``3 similar jobs``."""
    slowdown: float = 1.0
    """Elapsed time divided by CPU time of the similar jobs: above 1 on a busy machine."""


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
    estimate: Estimate


def plan(
    session: Session, spec: Spec, spec_networks: Sequence[Network], shape: Shape, *, owner: str | None = None
) -> TrainingCost:
    """Estimate the cost of a validated spec.

    Args:
        owner: use only this owner's jobs; ``None``: all.
    """
    return TrainingCost(
        parameters=costs.parameters(spec_networks),
        steps=costs.total_steps(spec, shape.train_count),
        estimated_bytes=costs.peak_bytes(spec, spec_networks, shape),
        checkpoint_bytes=costs.checkpoint_bytes(spec, spec_networks),
        expected_bytes=costs.expected_bytes(spec, spec_networks, shape),
        estimate=_estimate(session, spec, spec_networks, shape, owner),
    )


def _estimate(
    session: Session, spec: Spec, spec_networks: Sequence[Network], shape: Shape, owner: str | None
) -> Estimate:
    """The computed seconds, corrected by the speed of similar jobs."""
    steps = costs.total_steps(spec, shape.train_count)
    seconds = costs.seconds(spec, spec_networks, steps=steps, epochs=spec.epochs)
    ratios, slowdowns = [], []
    for job, trained_s, cpu_s, between_ms in _finished_jobs(session, spec, owner):
        job_spec = read_resolved(job.resolved)
        job_networks = networks(job_spec, shape)
        expected_s = costs.seconds(job_spec, job_networks, steps=job.steps, epochs=job.epoch)
        step_ratio = expected_s / job.steps / (seconds / steps)
        is_similar = 1 / _MAX_STEP_RATIO <= step_ratio <= _MAX_STEP_RATIO
        if is_similar and _has_convolutions(job_networks) is _has_convolutions(spec_networks):
            ratios.append(max(trained_s, between_ms / 1000) / expected_s)
            slowdowns.append(trained_s / (cpu_s or trained_s))
    if not ratios:
        return Estimate(seconds=round(seconds, 1), basis="number of operations")
    low, middle, high = _spread(ratios)
    basis = counted(len(ratios), "similar job")
    return Estimate(
        seconds=round(seconds * middle, 1),
        low_s=round(seconds * low, 1),
        high_s=round(seconds * high, 1),
        basis=basis,
        slowdown=median(slowdowns),
    )


def _spread(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Low, median and high expected ratio of another job. Of five or more, the extremes are ignored."""
    count, middle = len(ratios), median(ratios)
    trimmed = sorted(ratios)[1:-1] if count >= 5 else ratios
    margin, limit = 1 + _SINGLE_JOB_MARGIN / math.sqrt(count), math.sqrt(_MAX_RANGE)
    return max(min(trimmed) / margin, middle / limit), middle, min(max(trimmed) * margin, middle * limit)


def _has_convolutions(all_networks: Sequence[Network]) -> bool:
    return any(isinstance(layer, Conv2D | Conv2DTranspose) for network in all_networks for layer in network.layers)


def _finished_jobs(session: Session, spec: Spec, owner: str | None) -> list[Row[Job, float, float | None, int]]:
    """The latest succeeded jobs of the kind and dataset that trained from start to end without a break, each with the
    elapsed time of its epochs, their CPU time, and the milliseconds from the first commit to the last."""
    recent = (
        select(Job.id)
        .where(Job.status == Status.SUCCEEDED, Job.kind == spec.kind, Job.start_epoch == 0, Job.lease == 1)
        .where(visible(Job.owner, owner), Job.reused_from.is_(None))
        .where(Job.resolved[("dataset", "name")].as_string() == spec.dataset.name)
        .order_by(Job.created_ms.desc(), Job.id.desc())
        .limit(_MAX_CONSIDERED_JOBS)
    )
    # PostgreSQL cannot group by a JSON column, but accepts columns that depend on the grouped primary key.
    return list(
        session.execute(
            select(
                Job,
                func.sum(Epoch.seconds),
                func.sum(Epoch.cpu_seconds),
                func.max(Epoch.finished_ms) - func.min(Epoch.finished_ms),
            )
            .join(Epoch, Epoch.job_id == Job.id)
            .where(Job.id.in_(recent.scalar_subquery()))
            .group_by(Job.id)
            .having(func.sum(Epoch.seconds) > 0)
            .order_by(Job.created_ms.desc(), Job.id.desc())
            .options(load_only(Job.resolved, Job.steps, Job.epoch))
        )
    )
