"""Queries of sweeps and their trials."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session, defer, load_only

from service import statistics
from service.errors import SweepNotFound, TrialNotFound, UnusableParameter
from service.jobs.queries import lookup
from service.runtime import cursors
from service.schema.metrics import Goal
from service.spec.metric_info import describe
from service.spec.strict_json import pointer_of
from service.states import Status, SweepStatus, TrialStatus
from service.storage.database import visible
from service.storage.sweep_tables import Sweep, SweepTrial
from service.storage.tables import Job
from service.wording import value_text
from tapeline.inputs.values import dotted

T = TypeVar("T")

_MAX_VARIABLES: Final = 500
"""SQLite limits the number of variables of a statement."""
_MAX_TEXT_LENGTH: Final = 80
"""Of the settings of a trial in words: a network can have many layers."""
_UNFINISHED: Final = (TrialStatus.RUNNING, TrialStatus.WAITING)
_SORT_KEYS: Final = {"trial", "value", "epoch", "status"}


@dataclass(frozen=True, slots=True)
class TrialView:
    """A trial and its jobs, of which only the progress is loaded."""

    row: SweepTrial
    jobs: Mapping[str, Job]
    """By seed; deleted jobs are missing."""
    objective: str
    """The metric of the sweep's objective."""

    @property
    def metrics(self) -> dict[str, float]:
        """The mean of each metric over the seeds, of the last epoch of each job; without metrics of single layers."""
        values_by_name: dict[str, list[float]] = {}
        for job in self.jobs.values():
            for name, value in job.metrics.items():
                if value is not None and "/" not in name:
                    values_by_name.setdefault(name, []).append(value)
        return {name: statistics.mean(values) for name, values in values_by_name.items()}

    @property
    def value_rung(self) -> int:
        """The rung at which ``value`` was measured: of a trial that trains for the next one, the one before it."""
        return self.row.rung - (self.row.status == TrialStatus.RUNNING and self.row.rung > 0)

    @property
    def last_epoch(self) -> int:
        """The last completed epoch of the most advanced job."""
        return max([self.row.epoch, *(job.epoch for job in self.jobs.values())])

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's 95% interval of the mean of the objective over the seeds; ``None`` with fewer than two values."""
        values = [value for value in self.row.values.values() if value is not None]
        low, high = statistics.interval(values, limits=describe(self.objective).limits)
        return None if low is None or high is None else (low, high)


class Epochs(NamedTuple):
    """Epochs of all jobs of a sweep together, without those of deleted jobs."""

    trained: int = 0
    reused: int = 0
    """Reused from earlier jobs."""
    cpu_seconds: float = 0.0
    running_jobs: int = 0

    def seconds_left(self, epochs: int | None) -> float | None:
        """The estimated time until that many epochs are done, by the CPU time of those so far and the number of jobs
        that run; ``None``: unknown."""
        if epochs is None or not (self.trained and self.cpu_seconds and self.running_jobs):
            return None
        return max(epochs - self.trained - self.reused, 0) * self.cpu_seconds / self.trained / self.running_jobs


class ListedSweep(NamedTuple):
    """A sweep in a list of jobs."""

    sweep: Sweep
    jobs: int
    """The number of its jobs."""
    finished_trials: int


def get(session: Session, sweep_id: str, *, owner: str | None = None) -> Sweep:
    """One sweep.

    Raises:
        SweepNotFound: it does not exist, or belongs to another owner.
    """
    query = select(Sweep).where(Sweep.id == sweep_id, visible(Sweep.owner, owner))
    sweep = session.scalar(query.options(defer(Sweep.state)))  # large, and seldom needed
    if sweep is None:
        raise SweepNotFound(sweep_id)
    return sweep


def names_trial(name: str) -> bool:
    """Whether a name is that of a trial (``swp_…:3``) or a sweep (for its best trial), not of a job."""
    return name.startswith("swp_")


def jobs_of_trial(session: Session, name: str, *, owner: str | None) -> Mapping[str, str]:
    """The ids of a trial's jobs by seed; ``name`` is as in ``names_trial``.

    Raises:
        SweepNotFound, TrialNotFound: the sweep or the trial does not exist.
    """
    sweep_id, _, trial = name.partition(":")
    sweep = get(session, sweep_id, owner=owner)
    number = sweep.best_trial if not trial else int(trial) if trial.isdecimal() and len(trial) < 6 else None
    if number is None and not trial and sweep.trials == 1:
        number = 0
    row = session.get(SweepTrial, (sweep_id, number)) if number is not None else None
    if row is None:
        count_query = select(func.count()).where(SweepTrial.sweep_id == sweep_id)
        raise TrialNotFound(sweep_id, trial, count=session.scalar(count_query) or 0)
    return row.jobs


def pair(session: Session, a: str, b: str, *, owner: str | None) -> tuple[Job, Job]:
    """Two trainings. Of a trial (as in ``names_trial``), the job with the other's seed, or that of its first seed.

    Raises:
        JobNotFound, SweepNotFound, TrialNotFound: one does not exist, or belongs to another owner.
        UnusableParameter: a trial has no jobs, or a job is a prediction.
    """
    jobs_a, jobs_b = (_by_seed(session, side, name, owner) for side, name in (("a", a), ("b", b)))
    common_seed = next((seed for seed in jobs_a if seed in jobs_b), "")
    first, second = (jobs.get(common_seed) or next(iter(jobs.values())) for jobs in (jobs_a, jobs_b))
    return lookup.get(session, first, owner=owner), lookup.get(session, second, owner=owner)


def _by_seed(session: Session, side: str, name: str, owner: str | None) -> Mapping[str, str]:
    if not names_trial(name):
        job = lookup.get(session, name, owner=owner)
        lookup.require_training(side, job)
        return {str(job.resolved["seed"]): job.id}
    jobs = jobs_of_trial(session, name, owner=owner)
    if not jobs:
        raise UnusableParameter(side, "the trial has no jobs: its settings are not valid")
    return jobs


def title(sweep: Sweep) -> str:
    """The display name of a sweep, which may have no name."""
    return sweep.name or f"sweep {sweep.id[-6:].lower()}"


def trial_title(sweep: Sweep, trial: int) -> str:
    """The display name of a trial; for a seed group, which has only one trial, that of the sweep."""
    return title(sweep) if sweep.trials == 1 else f"{title(sweep)} trial {trial}"


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings in a few words: ``learning_rate 0.01, batch_size 50``. A name is as long as it must be to be unique."""
    names = [dotted(pointer) for pointer in settings]
    last = [name.rpartition(".")[2] for name in names]
    short = [name if last.count(end) > 1 else end for name, end in zip(names, last, strict=True)]
    texts = [f"{name} {value_text(value)}" for name, value in zip(short, settings.values(), strict=True)]
    return textwrap.shorten(", ".join(texts), _MAX_TEXT_LENGTH, placeholder=" …")


def find(
    session: Session, *, owner: str | None, status: Sequence[SweepStatus], limit: int, cursor: str | None
) -> tuple[list[Sweep], str | None]:
    """A page of sweeps, newest first, and the cursor of the next page.

    Raises:
        InvalidCursor: the cursor was not issued by this service.
    """
    query = select(Sweep).where(visible(Sweep.owner, owner))
    if status:
        query = query.where(Sweep.status.in_(status))
    if cursor is not None:
        created_ms, last_id = cursors.read(cursor, int, str)
        older = (Sweep.created_ms < created_ms) | ((Sweep.created_ms == created_ms) & (Sweep.id < last_id))
        query = query.where(older)
    rows = session.scalars(query.order_by(Sweep.created_ms.desc(), Sweep.id.desc()).limit(limit + 1)).all()
    page = list(rows[:limit])
    return page, cursors.write([page[-1].created_ms, page[-1].id]) if len(rows) > limit else None


def listed(session: Session, sweep_ids: Collection[str], *, owner: str | None = None) -> list[ListedSweep]:
    """Sweeps for lists of jobs."""
    if not sweep_ids:
        return []
    jobs = select(Job.sweep_id, func.count().label("jobs")).where(Job.sweep_id.in_(sweep_ids)).group_by(Job.sweep_id)
    job_counts = jobs.subquery()
    query = select(Sweep, job_counts.c.jobs, _finished_trials()).join(job_counts, job_counts.c.sweep_id == Sweep.id)
    query = query.where(visible(Sweep.owner, owner))
    rows = session.execute(query.options(defer(Sweep.state), defer(Sweep.spec)))
    return [ListedSweep(sweep, jobs, finished) for sweep, jobs, finished in rows]


def _finished_trials() -> ColumnElement[int]:
    """The number of ended trials. Earlier versions did not count those that the sweep's end stopped."""
    ended = select(func.count()).where(SweepTrial.sweep_id == Sweep.id, SweepTrial.status.not_in(_UNFINISHED))
    is_counted = Sweep.finished_ms.is_(None) | (Sweep.finished_trials >= Sweep.trials)
    return case((is_counted, Sweep.finished_trials), else_=ended.scalar_subquery())


def sort_key(sweep: Sweep, sort: str) -> str | None:
    """An order of trials for ``rows_of``, by a property or by a setting in either notation; ``None``: there is no
    such order."""
    name = sort.removeprefix("-")
    if name in _SORT_KEYS or sort == "best":
        return sort
    pointer = pointer_of(name)
    return sort.replace(name, pointer) if name and pointer in sweep.resolved["space"] else None


def trials_of(
    session: Session, sweep: Sweep, *, sort: str = "trial", limit: int = 100, after: int = 0
) -> list[TrialView]:
    """A page of trials with their jobs, sorted as by ``rows_of``."""
    rows = rows_of(session, sweep, sort=sort, limit=limit, after=after)
    jobs: dict[str, Job] = {}
    loaded = load_only(Job.id, Job.status, Job.requested, Job.epoch, Job.epochs, Job.metrics, raiseload=True)
    for ids in portions([job_id for row in rows for job_id in row.jobs.values()]):
        jobs |= {job.id: job for job in session.scalars(select(Job).where(Job.id.in_(ids)).options(loaded))}
    objective = sweep.resolved["objective"]["metric"]
    return [
        TrialView(row, {seed: jobs[job_id] for seed, job_id in row.jobs.items() if job_id in jobs}, objective)
        for row in rows
    ]


def rows_of(
    session: Session, sweep: Sweep, *, sort: str, limit: int, after: int = 0, among: Collection[int] | None = None
) -> list[SweepTrial]:
    """A page of trials, sorted by ``best``, ``trial``, ``value``, ``epoch``, ``status`` or a setting's pointer.

    Values of different rungs are not comparable: by value, the trials of the highest rung are first. ``among``: only
    these trials; not with a setting.

    The cursor is an offset. One made of values would not be more stable: results move trials while a sweep runs.
    """
    query = select(SweepTrial).where(SweepTrial.sweep_id == sweep.id)
    if among is not None:
        query = query.where(SweepTrial.trial.in_(among))
    name = sort.removeprefix("-")
    if not name.startswith("/"):
        return list(session.scalars(query.order_by(*_order_of(sweep, sort)).offset(after).limit(limit)))
    page = _by_setting(session, sweep, name, descending=sort.startswith("-"))[after : after + limit]
    rows: dict[int, SweepTrial] = {}
    for numbers in portions(page):
        rows |= {row.trial: row for row in session.scalars(query.where(SweepTrial.trial.in_(numbers)))}
    return [rows[number] for number in page]


def portions(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split a sequence into portions of at most ``_MAX_VARIABLES`` items."""
    for first in range(0, len(items), _MAX_VARIABLES):
        yield items[first : first + _MAX_VARIABLES]


def value_rung() -> ColumnElement[int]:
    """``TrialView.value_rung`` as an expression."""
    is_ahead = (SweepTrial.status == TrialStatus.RUNNING) & (SweepTrial.rung > 0)
    return case((is_ahead, SweepTrial.rung - 1), else_=SweepTrial.rung)


def _order_of(sweep: Sweep, sort: str) -> list[ColumnElement[Any]]:
    value, trial = SweepTrial.value, SweepTrial.trial.asc()
    if sort in ("best", "value", "-value"):
        maximize = sweep.resolved["objective"]["goal"] == Goal.MAXIMIZE
        descending = maximize if sort == "best" else sort == "-value"
        return [value.is_(None), value_rung().desc(), value.desc() if descending else value.asc(), trial]
    column = getattr(SweepTrial, sort.removeprefix("-"))
    return [column.is_(None), column.desc() if sort.startswith("-") else column.asc(), trial]


def _by_setting(session: Session, sweep: Sweep, pointer: str, *, descending: bool) -> list[int]:
    """All trials by the value of a setting. It is JSON, which the databases sort differently."""
    query = select(SweepTrial.trial, SweepTrial.settings).where(SweepTrial.sweep_id == sweep.id)
    pairs = [(trial, settings.get(pointer)) for trial, settings in session.execute(query.order_by(SweepTrial.trial))]
    with_value = [pair for pair in pairs if pair[1] is not None]
    with_value.sort(key=lambda pair: _sort_key(pair[1]), reverse=descending)
    return [trial for trial, _ in with_value] + [trial for trial, value in pairs if value is None]


def _sort_key(value: Any) -> tuple[int, float, str]:
    return (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))


def counts(session: Session, sweep_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """For each sweep, the number of its trials by status."""
    query = (
        select(SweepTrial.sweep_id, SweepTrial.status, func.count())
        .where(SweepTrial.sweep_id.in_(sweep_ids))
        .group_by(SweepTrial.sweep_id, SweepTrial.status)
    )
    by_sweep: dict[str, dict[str, int]] = {sweep_id: {} for sweep_id in sweep_ids}
    for sweep_id, status, count in session.execute(query):
        by_sweep[sweep_id][status] = count
    return by_sweep


def epochs(session: Session, sweep_ids: Sequence[str]) -> dict[str, Epochs]:
    """For each sweep, the numbers of epochs that its jobs have trained and reused."""
    is_running = case((Job.status == Status.RUNNING, 1), else_=0)
    totals = (Job.epoch - Job.reused_epochs, Job.reused_epochs, func.coalesce(Job.cpu_seconds, 0.0), is_running)
    query = select(Job.sweep_id, *map(func.sum, totals)).where(Job.sweep_id.in_(sweep_ids)).group_by(Job.sweep_id)
    # PostgreSQL returns sums as decimals.
    by_sweep = {
        sweep_id: Epochs(int(trained), int(reused), float(cpu_seconds), int(running))
        for sweep_id, trained, reused, cpu_seconds, running in session.execute(query)
    }
    return {sweep_id: by_sweep.get(sweep_id, Epochs()) for sweep_id in sweep_ids}
