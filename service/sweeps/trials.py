"""The jobs of a trial: their specs and results."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, defer

from service.access import owners
from service.jobs import leases, submissions
from service.jobs.submissions import Submission, TrialPlacement
from service.schema import costs
from service.schema.layer_shapes import Shape
from service.spec import validation
from service.spec.dataset_checks import check_fit
from service.spec.presets.adaptation import match_output_to_dataset
from service.spec.schema import Reuse, Spec
from service.states import CANCELLED, TERMINAL, DatasetKind, Status
from service.statistics import mean
from service.storage.database import locking
from service.storage.sweep_tables import Sweep, SweepTrial
from service.storage.tables import Epoch, Job
from service.sweeps.schema import OverSeeds
from service.sweeps.search.space import with_settings
from service.sweeps.trial_scheduler import Outcome

_MAX_NAME_LENGTH: int = 200
_WITHOUT_DOCUMENTS = (defer(Job.spec), defer(Job.resolved), defer(Job.provenance))
"""No decision reads them."""


def document(
    base: Mapping[str, Any], settings: Mapping[str, Any], *, seed: int, name: str | None, reuse: str = Reuse.NEVER
) -> dict[str, Any]:
    """The spec of a job, as a user would send it."""
    return with_settings(base, settings) | {"seed": seed, "name": name, "reuse": reuse}


def resolve(spec: Mapping[str, Any], shape: Shape) -> tuple[Spec, int]:
    """The resolved spec of a job, adapted to its dataset, and the most bytes that its files are expected to take.

    Raises:
        SpecError: lists every fault.
    """
    resolved = match_output_to_dataset(validation.resolve(spec), dict(spec), shape)
    return resolved, costs.expected_bytes(resolved, check_fit(resolved, shape), shape)


def name_of(sweep_name: str | None, trial: int, seed: int, *, several: bool) -> str:
    """The name of a trial's job."""
    suffix = f" {trial}" + (f" (seed {seed})" if several else "")
    return (sweep_name or "trial")[: _MAX_NAME_LENGTH - len(suffix)] + suffix


def submit(
    session: Session,
    sweep: Sweep,
    trial: int,
    settings: Mapping[str, Any],
    *,
    rungs: Sequence[int],
    max_epochs: int | None = None,
) -> tuple[dict[str, str], int]:
    """Store a trial's jobs, one per seed; returns their ids by seed, and the number of epochs of each.

    If they have more than ``max_epochs`` epochs, nothing is stored, and no ids are returned.

    Raises:
        SpecError: the settings are not valid together; nothing is stored.
    """
    base, seeds = sweep.resolved["base"], sweep.resolved["seeds"]
    shape = Shape(**sweep.data["shape"] | {"kind": DatasetKind(sweep.data["shape"]["kind"])})
    specs = []
    for seed in seeds:
        name = name_of(sweep.name, trial, seed, several=len(seeds) > 1)
        spec = document(base, settings, seed=seed, name=name, reuse=sweep.resolved.get("reuse", Reuse.NEVER))
        specs.append((spec, *resolve(spec, shape)))
    ids: dict[str, str] = {}
    epochs = specs[0][1].epochs
    if max_epochs is not None and epochs > max_epochs:
        return ids, epochs
    priority = owners.allowed_priority(session, sweep.owner, specs[0][1].priority)
    for seed, (spec, resolved, expected_bytes) in zip(seeds, specs, strict=True):
        job = submissions.add(
            session,
            Submission(
                spec=spec,
                resolved=resolved.model_copy(update={"priority": priority}),
                steps=costs.total_steps(resolved, shape.train_count),
                owner=sweep.owner,
                traceparent=sweep.traceparent,
                upload_id=sweep.data["upload_id"],
                dataset_sha256=sweep.data["sha256"],
                expected_bytes=expected_bytes,
                placement=TrialPlacement(
                    sweep_id=sweep.id, trial=trial, hold_epoch=rungs[0] if len(rungs) > 1 else None
                ),
            ),
        )
        ids[str(seed)] = job.id
    return ids, epochs


def jobs_of(session: Session, row: SweepTrial) -> dict[str, Job | None]:
    """The jobs of a trial by seed; ``None`` for a deleted one."""
    return _by_seed(row, session.scalars(_query(row)).all())


class JobsLockedError(Exception):
    """Another transaction has locked a job of the trial."""


def lock_jobs(session: Session, row: SweepTrial, *, wait: bool) -> dict[str, Job | None]:
    """Like ``jobs_of``, with the jobs locked, as they are now: a user may have cancelled one since it was read.

    Raises:
        JobsLockedError: a job is locked already, and ``wait`` is false.
    """
    jobs = session.scalars(locking(_query(row), skip_locked=not wait).options(*_WITHOUT_DOCUMENTS)).all()
    if len(jobs) < len(row.jobs) and len(jobs) < len(session.scalars(_query(row).with_only_columns(Job.id)).all()):
        raise JobsLockedError
    return _by_seed(row, jobs)


def _query(row: SweepTrial) -> Select[Job]:
    return select(Job).where(Job.id.in_(row.jobs.values())).order_by(Job.id)


def _by_seed(row: SweepTrial, jobs: Sequence[Job]) -> dict[str, Job | None]:
    by_id = {job.id: job for job in jobs}
    return {seed: by_id.get(job_id) for seed, job_id in row.jobs.items()}


def is_inactive(job: Job | None) -> bool:
    """Whether a job has ended, or waits for its sweep."""
    return job is None or job.status in TERMINAL or leases.is_paused_by_sweep(job)


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a trial, its values by seed, and the error if it failed."""

    outcome: Outcome
    values: Mapping[str, float | None]
    error: dict[str, Any] | None


def result(
    session: Session, jobs: Mapping[str, Job | None], *, metric: str, over_seeds: str, epoch: int | None
) -> Result | None:
    """The result of a trial at an epoch (``None``: at its end); ``None`` until all jobs are inactive."""
    if not all(is_inactive(job) for job in jobs.values()):
        return None
    failed, error = False, None
    values: dict[str, float | None] = {}
    for seed, job in jobs.items():
        if job is None or job.status in (Status.FAILED, Status.CANCELLED):
            failed = True
            job_error = {"code": "deleted", "message": "the job was deleted"} if job is None else job.error
            error = error or job_error or {"code": CANCELLED, "message": "the job was cancelled"}
            values[seed] = None
        else:
            values[seed] = _value(session, job.id, metric, epoch)
    finite = [value for value in values.values() if value is not None]
    is_complete = not failed and len(finite) == len(values)
    return Result(Outcome(_combine(finite, over_seeds) if is_complete else None, failed), values, error)


def _value(session: Session, job_id: str, metric: str, epoch: int | None) -> float | None:
    """The metric's value in the last epoch that measured it."""
    query = select(Epoch.metrics).where(Epoch.job_id == job_id)
    if epoch is not None:
        query = query.where(Epoch.epoch <= epoch)
    newest_first = query.order_by(Epoch.epoch.desc())
    # Most metrics are measured in each epoch: the last one is enough.
    for metrics in itertools.chain.from_iterable(map(session.scalars, (newest_first.limit(1), newest_first))):
        if metric in metrics:
            value = metrics[metric]
            return value if value is not None and math.isfinite(value) else None
    return None


def _combine(values: Sequence[float], over_seeds: str) -> float:
    match OverSeeds(over_seeds):
        case OverSeeds.MEAN:
            return mean(values)
        case OverSeeds.MEDIAN:
            return statistics.median(values)
        case OverSeeds.MIN:
            return min(values)
        case OverSeeds.MAX:
            return max(values)
