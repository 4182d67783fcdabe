"""Queries of sweeps and their trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session, defer, load_only

from service.errors import InvalidCursor, SweepNotFound
from service.spec.metric_info import Goal
from service.states import SweepStatus
from service.storage import cursors
from service.storage.sweep_tables import Sweep, SweepTrial
from service.storage.tables import Epoch, Job
from service.sweeps import statistics
from service.sweeps.search import proposals
from service.sweeps.search.space import values_of

_GROUPS: Final = 4
"""Number of bins into which the values of a numeric setting are grouped to compute its importance."""
_PLACES: Final = {"trial", "value", "epoch", "status"}


@dataclass(frozen=True, slots=True)
class TrialView:
    """A trial and its jobs, of which only the progress is loaded."""

    row: SweepTrial
    jobs: Mapping[str, Job]
    """By seed; deleted jobs are missing."""

    @property
    def metrics(self) -> dict[str, float]:
        """The mean of each metric over the seeds, of the last epoch of each job; without metrics of single layers."""
        found: dict[str, list[float]] = {}
        for job in self.jobs.values():
            for name, value in job.metrics.items():
                if value is not None and "/" not in name:
                    found.setdefault(name, []).append(value)
        return {name: statistics.mean(values) for name, values in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """The share of the objective's variance that a setting explains."""

    setting: str
    share: float | None
    """The correlation ratio (eta squared), in [0, 1]; ``None`` if there are too few results, or all are equal."""
    best: Any
    """The value, or the range of values, with the best mean."""


def get(session: Session, sweep_id: str, *, owner: str | None = None) -> Sweep:
    """One sweep.

    Raises:
        SweepNotFound: it does not exist, or belongs to another owner.
    """
    query = select(Sweep).where(Sweep.id == sweep_id)
    sweep = session.scalar(query if owner is None else query.where(Sweep.owner == owner))
    if sweep is None:
        raise SweepNotFound(sweep_id)
    return sweep


def jobs_of_trial(session: Session, sweep_id: str, trial: str, *, owner: str | None) -> Sequence[str]:
    """The ids of a trial's jobs; ``trial`` is its number, or empty for the best one.

    Raises:
        SweepNotFound: the sweep or the trial does not exist.
    """
    sweep = get(session, sweep_id, owner=owner)
    number = sweep.best_trial if not trial else int(trial) if trial.isdecimal() and len(trial) < 6 else None
    if number is None and not trial and sweep.trials == 1:
        number = 0
    row = session.get(SweepTrial, (sweep_id, number)) if number is not None else None
    if row is None:
        raise SweepNotFound(f"{sweep_id}:{trial}")
    return list(row.jobs.values())


def find(
    session: Session, *, owner: str | None, status: Sequence[SweepStatus], limit: int, cursor: str | None
) -> tuple[list[Sweep], str | None]:
    """A page of sweeps, newest first, and the cursor of the next page.

    Raises:
        InvalidCursor: the cursor was not issued by this service.
    """
    query = select(Sweep)
    if owner is not None:
        query = query.where(Sweep.owner == owner)
    if status:
        query = query.where(Sweep.status.in_(status))
    if cursor is not None:
        created_ms, last_id = cursors.read(cursor, 2)
        if type(created_ms) is not int or not isinstance(last_id, str):
            raise InvalidCursor("the cursor was not issued by this service")
        older = (Sweep.created_ms < created_ms) | ((Sweep.created_ms == created_ms) & (Sweep.id < last_id))
        query = query.where(older)
    rows = session.scalars(query.order_by(Sweep.created_ms.desc(), Sweep.id.desc()).limit(limit + 1)).all()
    page = list(rows[:limit])
    return page, cursors.write([page[-1].created_ms, page[-1].id]) if len(rows) > limit else None


def listed(session: Session, sweep_ids: Collection[str], *, owner: str | None = None) -> list[tuple[Sweep, int]]:
    """Sweeps with the numbers of their jobs, for lists of jobs."""
    if not sweep_ids:
        return []
    jobs = select(Job.sweep_id, func.count().label("jobs")).where(Job.sweep_id.in_(sweep_ids)).group_by(Job.sweep_id)
    counted = jobs.subquery()
    query = select(Sweep, counted.c.jobs).join(counted, counted.c.sweep_id == Sweep.id)
    if owner is not None:
        query = query.where(Sweep.owner == owner)
    return [(sweep, count) for sweep, count in session.execute(query.options(defer(Sweep.state), defer(Sweep.spec)))]


def is_sortable(sweep: Sweep, sort: str) -> bool:
    """Whether trials can be sorted by this property or setting."""
    return sort.removeprefix("-") in _PLACES or sort == "best" or sort.removeprefix("-") in sweep.resolved["space"]


def trials_of(
    session: Session, sweep: Sweep, *, sort: str = "trial", limit: int = 100, after: int = 0
) -> list[TrialView]:
    """A page of trials, sorted by ``best``, ``trial``, ``value``, ``epoch``, ``status`` or a setting's pointer."""
    rows = list(session.scalars(select(SweepTrial).where(SweepTrial.sweep_id == sweep.id).order_by(SweepTrial.trial)))
    name = sort.removeprefix("-")
    if name == "best":
        maximize = sweep.resolved["objective"]["goal"] == Goal.MAXIMIZE
        rows.sort(key=lambda row: (row.value is None, -row.rung, (row.value or 0) * (-1 if maximize else 1)))
    else:
        key = _key_of(name)
        known = [row for row in rows if key(row) is not None]
        known.sort(key=key, reverse=sort.startswith("-"))
        rows = known + [row for row in rows if key(row) is None]
    return with_jobs(session, rows[after : after + limit])


def _key_of(name: str) -> Callable[[SweepTrial], Any]:
    def key(row: SweepTrial) -> Any:
        value = row.settings.get(name) if name.startswith("/") else getattr(row, name)
        if value is None:
            return None
        return (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))

    return key


def with_jobs(session: Session, rows: Sequence[SweepTrial]) -> list[TrialView]:
    """Trials with their jobs."""
    ids = [job_id for row in rows for job_id in row.jobs.values()]
    found: dict[str, Job] = {}
    shown = load_only(Job.id, Job.status, Job.requested, Job.epoch, Job.epochs, Job.metrics, Job.result_digest)
    for first in range(0, len(ids), 500):  # SQLite limits the number of variables
        query = select(Job).where(Job.id.in_(ids[first : first + 500])).options(shown)
        found |= {job.id: job for job in session.scalars(query)}
    return [TrialView(row, {seed: found[i] for seed, i in row.jobs.items() if i in found}) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A metric of a trial over its seeds, by epoch."""

    trial: int
    epochs: list[int]
    mean: list[float | None]
    low: list[float | None]
    high: list[float | None]
    interval_low: list[float | None]
    interval_high: list[float | None]
    """Student's 95% interval of the mean; ``None`` with fewer than two values."""
    n: list[int]


def curves(session: Session, sweep: Sweep, metric: str, *, limit: int) -> list[Curve]:
    """The curves of the best trials, by trial."""
    made = []
    for view in sorted(trials_of(session, sweep, sort="best", limit=limit), key=lambda view: view.row.trial):
        found: dict[int, list[float]] = {}
        query = select(Epoch.epoch, Epoch.metrics).where(Epoch.job_id.in_(list(view.row.jobs.values())))
        for epoch, metrics in session.execute(query.order_by(Epoch.epoch)):
            if metric in metrics:
                found.setdefault(epoch, []).extend([] if metrics[metric] is None else [metrics[metric]])
        if found:
            values = list(found.values())
            intervals = [statistics.interval(item) for item in values]
            made.append(
                Curve(
                    trial=view.row.trial,
                    epochs=list(found),
                    mean=[math.fsum(item) / len(item) if item else None for item in values],
                    low=[min(item, default=None) for item in values],
                    high=[max(item, default=None) for item in values],
                    interval_low=[low for low, _ in intervals],
                    interval_high=[high for _, high in intervals],
                    n=[len(item) for item in values],
                )
            )
    return made


def counts(session: Session, sweep_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """For each sweep, the number of its trials by status."""
    query = (
        select(SweepTrial.sweep_id, SweepTrial.status, func.count())
        .where(SweepTrial.sweep_id.in_(sweep_ids))
        .group_by(SweepTrial.sweep_id, SweepTrial.status)
    )
    made: dict[str, dict[str, int]] = {sweep_id: {} for sweep_id in sweep_ids}
    for sweep_id, status, count in session.execute(query):
        made[sweep_id][status] = count
    return made


def importance(session: Session, sweep: Sweep) -> list[Importance]:
    """The importance of each setting, highest first.

    It is computed from the values at the first rung, because all trials have a value at that epoch.
    """
    first = {trial: value for trial, value in (sweep.state.get("results") or [[]])[0] if value is not None}
    rows = session.scalars(select(SweepTrial).where(SweepTrial.sweep_id == sweep.id).order_by(SweepTrial.trial))
    known = [(row.settings, first[row.trial]) for row in rows if row.trial in first]
    maximize = sweep.resolved["objective"]["goal"] == Goal.MAXIMIZE
    made = []
    for pointer, span in proposals.ranges_of(sweep.resolved).items():
        values = values_of(span)
        is_numeric = span.choice is None and (values is None or len(values) > _GROUPS)
        groups = _grouped([(settings[pointer], value) for settings, value in known], is_numeric=is_numeric)
        share = _correlation_ratio(list(groups.values()))
        pick = max if maximize else min
        best = pick(groups, key=lambda name: math.fsum(groups[name]) / len(groups[name])) if groups else None
        made.append(Importance(setting=pointer, share=share, best=best))
    return sorted(made, key=lambda item: (item.share is None, -(item.share or 0), item.setting))


def _grouped(pairs: Sequence[tuple[Any, float]], *, is_numeric: bool) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    if not is_numeric:
        for setting, value in pairs:
            groups.setdefault(_text(setting), []).append(value)
        return groups
    ordered = sorted(pairs, key=lambda pair: pair[0])
    count = min(_GROUPS, max(1, len(ordered) // 2))
    for place in range(count):
        part = ordered[len(ordered) * place // count : len(ordered) * (place + 1) // count]
        if part:
            groups.setdefault(f"{_text(part[0][0])} to {_text(part[-1][0])}", []).extend(value for _, value in part)
    return groups


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _correlation_ratio(groups: Sequence[Sequence[float]]) -> float | None:
    values = [value for group in groups for value in group]
    if len(values) < 4 or len(groups) < 2:
        return None
    centre = math.fsum(values) / len(values)
    total = math.fsum((value - centre) ** 2 for value in values)
    if total == 0:
        return None
    between = math.fsum(len(group) * (math.fsum(group) / len(group) - centre) ** 2 for group in groups)
    return min(1.0, between / total)
