"""Curves of a sweep's best trials: a metric by epoch, over their seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from service import statistics
from service.spec.metric_info import describe
from service.storage.sweep_tables import Sweep, SweepTrial
from service.storage.tables import Epoch
from service.sweeps import queries


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCurve:
    """A metric of a trial over its seeds, by epoch."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    trial: int
    label: str
    """The settings of the trial in words; for a seed group, the name of the sweep."""
    epochs: list[int]
    mean: list[float | None]
    low: list[float | None]
    """The lowest seed."""
    high: list[float | None]
    """The highest seed."""
    interval_low: Annotated[
        list[float | None],
        Field(
            description="Lower end of Student's 95% interval of the mean, clipped to the range of the metric; null "
            "with fewer than two seeds."
        ),
    ]
    interval_high: list[float | None]
    """Its upper end."""
    n: list[int]
    """Seeds with a value."""


def curves(
    session: Session, sweep: Sweep, metric: str, *, limit: int, among: Collection[int] | None = None
) -> list[TrialCurve]:
    """The curves of the best trials, or of the best ``among`` these, by trial."""
    best = sorted(queries.rows_of(session, sweep, sort="best", limit=limit, among=among), key=lambda row: row.trial)
    trial_of = {job_id: row.trial for row in best for job_id in row.jobs.values()}
    values_by_trial: dict[int, dict[int, list[float]]] = {row.trial: {} for row in best}
    for ids in queries.portions(list(trial_of)):
        query = select(Epoch.job_id, Epoch.epoch, Epoch.metrics).where(Epoch.job_id.in_(ids))
        for job_id, epoch, metrics in session.execute(query.order_by(Epoch.epoch)):
            if metric in metrics:
                values = values_by_trial[trial_of[job_id]].setdefault(epoch, [])
                values += [] if metrics[metric] is None else [metrics[metric]]
    limits = describe(metric).limits
    labels = _labels(best, queries.title(sweep))
    return [_curve(trial, labels[trial], by_epoch, limits) for trial, by_epoch in values_by_trial.items() if by_epoch]


def _labels(rows: Sequence[SweepTrial], title: str) -> dict[int, str]:
    """The label of each trial; random draws can repeat the settings of another one."""
    texts = {row.trial: queries.settings_text(row.settings) or title for row in rows}
    count = Counter(texts.values())
    return {trial: text if count[text] == 1 else f"{text} (trial {trial})" for trial, text in texts.items()}


def _curve(trial: int, label: str, by_epoch: dict[int, list[float]], limits: tuple[float, float]) -> TrialCurve:
    epochs = sorted(by_epoch)
    values = [by_epoch[epoch] for epoch in epochs]
    intervals = [statistics.interval(item, limits=limits) for item in values]
    return TrialCurve(
        trial=trial,
        label=label,
        epochs=epochs,
        mean=[statistics.mean(item) if item else None for item in values],
        low=[min(item, default=None) for item in values],
        high=[max(item, default=None) for item in values],
        interval_low=[low for low, _ in intervals],
        interval_high=[high for _, high in intervals],
        n=[len(item) for item in values],
    )
