"""Sweeps and their trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from service.schema.metrics import Goal
from service.spec.schema import Kind
from service.states import Request, Status, SweepAction, SweepStatus, TrialStatus
from service.storage.sweep_tables import Sweep
from service.sweeps import actions
from service.sweeps.decisions import plan_of
from service.sweeps.queries import Epochs, TrialView
from service.sweeps.results.best_trial import BestTrial
from service.sweeps.results.curves import TrialCurve
from service.sweeps.results.importance import ImportanceItem
from service.sweeps.schema import MAX_TRIALS, OverSeeds, SearchName
from service.web.gate import shared_view
from service.web.gate.access_checks import share_link
from service.web.http.downloads import csv_cell, csv_line
from service.web.http.queries import Cursor, NumberCursor, OtherOwner, Query, Seq, former_name, split
from service.web.http.schemas import Document, Metrics, ResponseModel, Timestamp


class SweepListQuery(Query):
    """Which sweeps to list."""

    status: Annotated[list[SweepStatus], BeforeValidator(split)] = Field(
        default=[], description="One or more, repeated or comma-separated."
    )
    owner: OtherOwner = None
    limit: int = Field(20, ge=1, le=100)
    cursor: Cursor = None


Trials = Annotated[
    list[Annotated[int, Field(ge=0, le=MAX_TRIALS - 1)]], BeforeValidator(split), Field(max_length=MAX_TRIALS)
]


class CurveQuery(Query):
    """Which curves to return."""

    metric: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        None, description="Default: the metric of the objective."
    )
    limit: int = Field(20, ge=1, le=100, description="The best trials so far.")
    trials: Trials = Field(default=[], description="Only the best among these, repeated or comma-separated.")
    format: Literal["json", "csv"] = Field("json", description="`csv`: a line for each trial and epoch.")


class CurvePlotQuery(Query):
    """Which curves to draw, and with which band."""

    metric: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        None, description="Default: the metric of the objective."
    )
    limit: int = Field(8, ge=1, le=8, description="The best trials so far.")
    trials: Trials = Field(default=[], description="Only the best among these, repeated or comma-separated.")
    band: Literal["range", "interval", "none"] = Field(
        "range",
        description="`range`: from the lowest to the highest seed; `interval`: Student's 95% interval of the mean.",
    )


class SweepEventQuery(Query):
    """Which part of a sweep's log to return."""

    after: Seq = Field(0, description="Only events with a higher `seq`.")
    limit: int = Field(500, ge=1, le=2000)


class SweepObjective(ResponseModel):
    """What a sweep optimizes."""

    metric: str
    goal: Goal
    over_seeds: OverSeeds


class TrialCounts(ResponseModel):
    """Trials of a sweep by state."""

    total: int = Field(description="As many as there will be, unless the budget ends first.")
    running: int = Field(description="Training, or queued.")
    waiting: int = Field(description="Waiting for a decision.")
    stopped: int
    succeeded: int
    failed: int


class SweepUrls(ResponseModel):
    """URLs of a sweep's resources, as paths on this service."""

    self: str
    trials: str
    decisions: str
    importance: str
    stream: str
    page: str


class SweepError(ResponseModel):
    """Why a sweep failed."""

    code: str
    message: str


class SweepSummary(ResponseModel):
    """A sweep in a list."""

    id: str
    name: str | None
    owner: str | None
    kind: Kind
    status: SweepStatus
    objective: SweepObjective
    search: SearchName
    seeds: list[int]
    trials: TrialCounts
    epochs_started: int = Field(
        description="Epochs planned so far: those that the started trials were to train, which count against the "
        "budget. Jobs that fail or are cancelled train fewer."
    )
    epochs_trained: int = Field(description="Epochs that all jobs together have trained; deleted jobs do not count.")
    epochs_reused: int = Field(description="Epochs that all jobs together have reused from earlier jobs.")
    epochs_at_most: int | None = Field(
        description="Maximum number of epochs of all jobs together, known from the start. Asynchronous halving usually "
        "trains fewer. Null if each trial has its own number of epochs and there is no budget."
    )
    eta_seconds: float | None = Field(
        description="Estimated time until `epochs_at_most`, with as many jobs at a time as run now. Null unless jobs "
        "run and their speed is known."
    )
    budget_epochs: int | None
    best_trial: int | None = Field(description="So far; the winner of a sweep that has succeeded.")
    best_value: float | None
    sweep_digest: str | None = Field(
        description="SHA-256 of the sweep and of all decisions with their numbers: equal for the same sweep, however "
        "many workers it had and however often they were killed."
    )
    error: SweepError | None
    last_seq: int
    created_at: Timestamp = Field(validation_alias="created_ms")
    finished_at: Timestamp | None = Field(validation_alias="finished_ms")
    allowed_actions: list[SweepAction]
    urls: SweepUrls


class SweepDetail(SweepSummary):
    """A sweep with its spec."""

    spec: Document = Field(description="As sent.")
    resolved: Document = Field(description="With defaults; `rungs` are the epochs at which trials are promoted.")
    best_epoch: int | None = Field(
        None, description="With halving: the epoch of the rung at which `best_trial` is the best. Null without halving."
    )
    not_distinguishable: list[int] | None = Field(
        None,
        description="Trials of the same rung whose difference to `best_trial` has a 95% interval that contains 0, "
        "by the t test paired by seed; of the 100 with the nearest values. Null where there is no basis: one seed, "
        "or an objective other than the mean of the seeds.",
    )
    best_sentence: str | None = Field(
        None, description="What `best_epoch` and `not_distinguishable` say in words, or why this is unknown."
    )


class SweepList(ResponseModel):
    """A page of sweeps."""

    data: list[SweepSummary]
    has_more: bool
    next_cursor: str | None


class SweepDryRun(ResponseModel):
    """What a sweep would do."""

    resolved: Document
    trials: int
    jobs: int
    epochs: int = Field(
        description="Maximum number of epochs of all jobs together. Asynchronous halving usually trains fewer; `notes` "
        "has the number of synchronous halving."
    )
    epochs_without_halving: int
    expected_bytes: int = Field(
        description="The most that the files of all jobs together are expected to take; the quota of job files "
        "must have room for it."
    )
    first_settings: list[Document] = Field(description="Of the first trials, where they are known beforehand.")
    notes: list[str]


class SweepEventItem(ResponseModel):
    """An event of a sweep."""

    seq: int
    type: str
    at: Timestamp = Field(validation_alias="created_ms")
    data: Document


class SweepEventList(ResponseModel):
    """Events of a sweep, in order."""

    data: list[SweepEventItem]
    has_more: bool
    next_after: int


class TrialCurves(ResponseModel):
    """Curves of a sweep's best trials."""

    metric: str
    data: list[TrialCurve]


class ImportanceList(ResponseModel):
    """The settings of a sweep, the most important first."""

    data: list[ImportanceItem]
    epoch: int | None = Field(description="The values compared are those of this epoch, which all trials reach.")
    note: str = Field(description="How to read it, in words.")


def sweep_summary(sweep: Sweep, counts: Mapping[str, int], epochs: Epochs) -> SweepSummary:
    """A sweep for a list."""
    return SweepSummary.from_row(sweep, **_derived(sweep, counts, epochs))


def sweep_detail(sweep: Sweep, counts: Mapping[str, int], epochs: Epochs, best: BestTrial | None = None) -> SweepDetail:
    """A sweep with its spec."""
    detail = SweepDetail.from_row(
        sweep,
        **_derived(sweep, counts, epochs),
        best_epoch=best.epoch if best is not None else None,
        not_distinguishable=best.not_distinguishable if best is not None else None,
        best_sentence=best.sentence if best is not None else None,
    )
    return shared_view.of_model(detail, share_link())


def new_sweep(sweep: Sweep) -> SweepDetail:
    """A sweep whose first trials were just submitted."""
    running = len(sweep.state["running"])
    return sweep_detail(sweep, {TrialStatus.RUNNING: running, TrialStatus.FAILED: sweep.failed_trials}, Epochs())


def _derived(sweep: Sweep, counts: Mapping[str, int], epochs: Epochs) -> dict[str, Any]:
    """The fields of ``SweepSummary`` that are not columns."""
    address, resolved = f"/sweeps/{sweep.id}", sweep.resolved
    at_most = plan_of(resolved, sweep.trials).epochs_at_most()
    seconds_left = epochs.seconds_left(at_most)
    return {
        "epochs_trained": epochs.trained,
        "epochs_reused": epochs.reused,
        "epochs_at_most": at_most,
        "eta_seconds": None if seconds_left is None or sweep.finished_ms else round(seconds_left, 1),
        "objective": resolved["objective"],
        "search": resolved["search"]["name"],
        "seeds": resolved["seeds"],
        "budget_epochs": (resolved["budget"] or {}).get("epochs"),
        "trials": {status.value: counts.get(status, 0) for status in TrialStatus} | {"total": sweep.trials},
        "allowed_actions": actions.allowed(sweep),
        "urls": {
            "self": address,
            "page": f"/ui/sweeps/{sweep.id}",
            **{resource: f"{address}/{resource}" for resource in ("trials", "decisions", "importance", "stream")},
        },
    }


_CURVE_COLUMNS: Final = ("mean", "low", "high", "interval_low", "interval_high", "n")


def curve_lines(metric: str, curves: Sequence[TrialCurve]) -> Iterator[str]:
    """A line of names, then a line for each trial and epoch."""
    yield csv_line(["trial", "epoch", *(name if name == "n" else f"{metric} ({name})" for name in _CURVE_COLUMNS)])
    for curve in curves:
        for index, epoch in enumerate(curve.epochs):
            cells = [curve.trial, epoch, *(getattr(curve, name)[index] for name in _CURVE_COLUMNS)]
            yield csv_line([csv_cell(cell) for cell in cells])


class TrialQuery(Query):
    """Which trials to list, and in which order."""

    sort: Annotated[str, StringConstraints(max_length=200)] = Field(
        "trial",
        description="`trial`, `value`, `epoch`, `status` or a setting such as `batch_size`, with `-` for descending "
        "order; `best`: the best first. Trials without a value are last. With halving, `best` and `value` begin with "
        "the highest rung, since values of different rungs are not comparable.",
    )
    limit: int = Field(100, ge=1, le=MAX_TRIALS)
    cursor: NumberCursor = None
    after: Annotated[int, Field(ge=0, le=MAX_TRIALS), former_name("Former name of `cursor`.")] = 0
    format: Literal["json", "csv"] = Field("json", description="`csv`: all trials; `limit` and `cursor` do not apply.")

    @property
    def first(self) -> int:
        """Number of trials to skip."""
        return int(self.cursor or self.after)


class TrialJob(ResponseModel):
    """A job of a trial."""

    seed: int
    job: str
    status: Status | None = Field(description="Null: the job was deleted.")
    requested: Request | None
    epoch: int | None
    epochs: int | None
    value: float | None = Field(description="Of the objective, when the sweep last took notice of the trial.")


class TrialItem(ResponseModel):
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


class TrialList(ResponseModel):
    """Trials of a sweep."""

    data: list[TrialItem]
    total: int
    has_more: bool
    next_cursor: str | None


def trial_item(view: TrialView, sweep: Sweep) -> TrialItem:
    """A trial with its jobs."""
    row = view.row
    columns = ("status", "requested", "epoch", "epochs")
    jobs = [
        {name: getattr(view.jobs.get(seed), name, None) for name in columns}
        | {"seed": int(seed), "job": job_id, "value": row.values.get(seed)}
        for seed, job_id in row.jobs.items()
    ]
    rungs = sweep.resolved["rungs"]
    item = TrialItem.from_row(
        row,
        jobs=jobs,
        metrics=view.metrics,
        last_epoch=view.last_epoch,
        interval=list(view.interval) if view.interval else None,
        rung_epoch=rungs[view.value_rung] if len(rungs) > 1 and row.value is not None else None,
    )
    return shared_view.of_model(item, share_link())


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
