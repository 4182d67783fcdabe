"""Trials of a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from service.states import Request, Status, TrialStatus
from service.storage.sweep_tables import Sweep
from service.sweeps.queries import TrialView
from service.sweeps.schema import MAX_TRIALS
from service.web.http.downloads import csv_cell, csv_line
from service.web.http.queries import Query
from service.web.http.schemas import Answer, Document, Metrics
from service.web.schemas.experiments.sweeps import SweepError


class TrialQuery(Query):
    """Which trials to list, and in which order."""

    sort: Annotated[str, StringConstraints(max_length=200)] = Field(
        "trial",
        description="`trial`, `value`, `epoch`, `status` or a setting such as `/batch_size`, with `-` for descending "
        "order; `best`: the best first. Trials without a value are last. With halving, `best` and `value` begin with "
        "the highest rung, since values of different rungs are not comparable.",
    )
    limit: int = Field(100, ge=1, le=MAX_TRIALS)
    after: int = Field(0, ge=0, le=MAX_TRIALS, description="Skip this many trials.")
    format: Literal["json", "csv"] = Field("json", description="`csv`: all trials; `limit` and `after` do not apply.")


class TrialJob(Answer):
    """A job of a trial."""

    seed: int
    job: str
    status: Status | None = Field(description="Null: the job was deleted.")
    requested: Request | None
    epoch: int | None
    epochs: int | None
    value: float | None = Field(description="Of the objective, when the sweep last took notice of the trial.")


class TrialItem(Answer):
    """A trial: one setting, with every seed."""

    trial: int
    settings: Document = Field(description="By JSON pointer.")
    status: TrialStatus
    rung: int = Field(description="The rung that it trains for, or has reached; from 0.")
    epoch: int = Field(description="The epoch of `value`.")
    rung_epoch: int | None = Field(
        None,
        description="With halving: the epoch of the rung at which `value` was measured; only values of one rung are "
        "comparable. Null without halving or without a value.",
    )
    last_epoch: int = Field(description="The last epoch that a job of the trial has completed.")
    value: float | None = Field(description="Of the objective, over all seeds.")
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        description="Student's 95% interval of the mean of the seeds' values, clipped to the range of the metric; null "
        "with fewer than two."
    )
    metrics: Metrics = Field(description="Means over the seeds, each of the last epoch of its job.")
    jobs: list[TrialJob]
    error: SweepError | None


class TrialList(Answer):
    """Trials of a sweep."""

    data: list[TrialItem]
    total: int
    has_more: bool


def trial_item(view: TrialView, sweep: Sweep) -> TrialItem:
    """A trial with its jobs."""
    row = view.row
    jobs = []
    for seed, job_id in row.jobs.items():
        job = view.jobs.get(seed)
        jobs.append(
            TrialJob(
                seed=int(seed),
                job=job_id,
                status=Status(job.status) if job is not None else None,
                requested=Request(job.requested) if job is not None and job.requested else None,
                epoch=job.epoch if job is not None else None,
                epochs=job.epochs if job is not None else None,
                value=row.values.get(seed),
            )
        )
    rungs = sweep.resolved["rungs"]
    return TrialItem.represent(
        row,
        jobs=jobs,
        metrics=view.metrics,
        last_epoch=view.last_epoch,
        interval=list(view.interval) if view.interval else None,
        rung_epoch=rungs[view.value_rung] if len(rungs) > 1 and row.value is not None else None,
    )


def trial_lines(sweep: Sweep, views: list[TrialView]) -> Iterator[str]:
    """A line of names, then a line for each trial."""
    settings, seeds = list(sweep.resolved["space"]), [str(seed) for seed in sweep.resolved["seeds"]]
    metric = sweep.resolved["objective"]["metric"]
    names = [f"{metric} (seed {seed})" for seed in seeds]
    ids = [f"job (seed {seed})" for seed in seeds]
    interval_names = [f"{metric} (interval_low)", f"{metric} (interval_high)"]
    yield csv_line(
        ["trial", "status", "epoch", metric, *settings, *names, *ids, "last_epoch", *interval_names, "error"]
    )
    for view in views:
        row = view.row
        cells: list[Any] = [row.trial, row.status, row.epoch, row.value, *(row.settings.get(name) for name in settings)]
        cells += [row.values.get(seed) for seed in seeds] + [row.jobs.get(seed) for seed in seeds]
        error = row.error["message"] if row.error else None
        cells += [view.last_epoch, *(view.interval or (None, None)), error]
        yield csv_line([csv_cell(cell) for cell in cells])
