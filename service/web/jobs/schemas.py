"""Jobs, cross-validations, and the estimated cost of a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

from pydantic import AliasPath, BeforeValidator, ConfigDict, Field
from sqlalchemy.orm import Session

from service.application.specs import Forecast
from service.jobs import actions, events
from service.jobs.queries import folds, listing, lookup
from service.jobs.queries.folds import FoldMean
from service.jobs.transitions import shown_error
from service.runtime import tracing
from service.schema import findings
from service.spec.intervals import METRICS_WITH_INTERVAL, interval_of
from service.spec.metric_info import TEST_SCORES
from service.states import TERMINAL, Action, FindingCode, JobKind, Reason, Request, Severity, Status
from service.storage.tables import Job
from service.web.gate import shared_view
from service.web.gate.access_checks import share_link
from service.web.http.schemas import Document, Metrics, ResponseModel, Seconds, Timestamp, finite


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The fields of a job that change while it runs."""

    last_seq: int
    status: str
    epoch: int
    epochs: int
    step: int
    steps: int
    steps_per_second: float | None

    @classmethod
    def of(cls, job: Job) -> Self:
        """The progress of a row that was just read."""
        return cls(**{name: getattr(job, name) for name in cls.__dataclass_fields__})

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended, unless it is retried."""
        return self.status in TERMINAL


PROGRESS_COLUMNS: Final = [getattr(Job, name) for name in JobProgress.__dataclass_fields__]


class Progress(ResponseModel):
    """Progress of a job."""

    epoch: int = Field(description="Finished epochs.")
    epochs: int
    step: int = Field(
        description="Finished batches, including those of the current epoch; of a prediction, finished rows or images."
    )
    steps: int
    fraction: float = Field(ge=0, le=1)
    eta_seconds: float | None = Field(
        description="Estimated remaining time. Null unless the job is running and its speed is known."
    )

    @classmethod
    def of(cls, job: Job | JobProgress) -> Self:
        """The progress of a job."""
        eta = None
        if job.status == Status.RUNNING and job.steps_per_second:
            eta = round(max(job.steps - job.step, 0) / job.steps_per_second, 1)
        fraction = min(job.step / job.steps, 1.0) if job.steps else 0.0
        return cls.from_row(job, fraction=round(fraction, 6), eta_seconds=eta)


class JobUrls(ResponseModel):
    """URLs of a job's resources, as paths on this service."""

    self: str
    results: str
    stream: str
    events: str
    metrics: str
    samples: str
    checkpoints: str
    artifacts: str
    page: str

    @classmethod
    def of(cls, job_id: str) -> Self:
        """The URLs of a job."""
        address = f"/jobs/{job_id}"
        resources = ("results", "stream", "events", "metrics", "samples", "checkpoints", "artifacts")
        return cls(
            self=address, page=f"/ui/jobs/{job_id}", **{resource: f"{address}/{resource}" for resource in resources}
        )


class JobError(ResponseModel):
    """Why a job failed."""

    model_config = ConfigDict(frozen=True, extra="allow")

    code: str
    message: str


class Difference(ResponseModel):
    """The first difference between a reproduction and its original."""

    epoch: int
    differs: list[str] = Field(description="Names of metrics, `samples`, `weights` or `epochs`.")


class Reproduction(ResponseModel):
    """The result of training a job again."""

    of: str = Field(description="Id of the original job.")
    match: bool | None = Field(description="Whether all results are bit-identical; null until known.")
    first_difference: Difference | None = None
    provenance_differs: list[str] = Field([], description="Names in `provenance` under which the two jobs differ.")


class FirstDifference(ResponseModel):
    """Where two trainings first differ, or where a stored result differs from its replay."""

    epoch: int
    batch: int | None = Field(description="Completed batches of the epoch; null: at an unknown batch of the epoch.")
    batches: int | None = Field(description="Batches of an epoch.")
    tensor: str | None
    element: list[int] = Field(description="The index of the first element that differs.")
    a: float | None
    b: float | None
    metrics: list[str] = Field(description="Metrics of the epoch that differ from the stored ones.")
    not_repeated: str | None = Field(
        description="The job whose stored result does not match its retraining: something else changed its bits."
    )
    from_epoch: int = Field(description="The epoch from whose checkpoints both were retrained; 0: from the start.")


class InvestigationItem(ResponseModel):
    """Two jobs that are retrained side by side."""

    a: str
    b: str
    found: Annotated[FirstDifference | None, BeforeValidator(lambda value: finite(value) or None)] = Field(
        description="Null until the job has succeeded, or if the jobs do not differ."
    )
    sentence: str | None = Field(description="The result in words.")


class StoppedEarly(ResponseModel):
    """Why a job succeeded before its last epoch."""

    metric: str = Field(description="The metric that stopped improving.")
    best: float
    best_epoch: int
    patience: int = Field(description="Number of epochs without improvement.")


class AdviceItem(ResponseModel):
    """A change of the spec to try."""

    settings: Document = Field(
        description="Settings by dotted name, to be changed together, as `train(settings=…)` of the client takes them; "
        "empty if the reason names only a direction."
    )
    reason: str = Field(description="Why, or what to know; may be empty.")


class FindingItem(ResponseModel):
    """A problem with a training, with the values at its detection."""

    code: FindingCode
    severity: Severity
    epoch: int = Field(description="The epoch after which it was detected.")
    message: str
    numbers: dict[str, float] = Field(description="The values that triggered it.")
    advice: list[AdviceItem] = Field(description="What to try, best first.")


TEST_SCORE: Final = "{} on the dataset's test part, scored once at the end; null before, or without such a part."

STOPPED_BY_SWEEP: Final = (
    "Whether the job is cancelled because its sweep stopped its trial, which was not promoted or had not finished when "
    "the sweep ended or was cancelled."
)


class IntervalItem(ResponseModel):
    """The 95% interval of a metric, for the number of examples: Wilson's of an accuracy, the normal one of an error in
    the unit of the target."""

    value: float = Field(description="The metric.")
    n: int | None = Field(description="Number of examples that were scored; null: unknown.")
    low: float
    high: float
    text: str = Field(description="In words, such as `of 30, 95% CI 89% to 100%`.")


INTERVALS: Final = (
    "Of `val_accuracy`, `val_rmse`, `val_mae` and those of the test part: the 95% interval for the number of examples; "
    "empty where that is unknown."
)


class JobSummary(ResponseModel):
    """A job in a list."""

    id: str
    kind: JobKind
    name: str | None
    tags: list[str]
    owner: str | None
    status: Status
    requested: Request | None = Field(description="A pending request to a running job: to cancel or to pause.")
    attempt: int
    lease: int
    priority: int
    starred: bool
    note: str | None = Field(description="Free text.")
    spec_hash: str
    dataset_sha256: str | None = Field(
        None, description="SHA-256 of the data that it trains on; null until it is known."
    )
    progress: Progress
    metrics: Metrics = Field(description="Metrics of the last finished epoch.")
    best_epoch: int | None
    test_accuracy: float | None = Field(description=TEST_SCORE.format("Accuracy"))
    test_loss: float | None = Field(description=TEST_SCORE.format("Loss"))
    test_rmse: float | None = Field(None, description=TEST_SCORE.format("RMSE of a regressor"))
    test_mae: float | None = Field(None, description=TEST_SCORE.format("MAE of a regressor"))
    test_r2: float | None = Field(None, description=TEST_SCORE.format("R² of a regressor"))
    test_epoch: int | None = Field(description="The epoch whose weights were scored on the test part: the best one.")
    health: Annotated[list[FindingItem], BeforeValidator(finite), BeforeValidator(findings.with_steps)] = Field(
        description="Current findings, oldest first."
    )
    parent_id: str | None = Field(description="The job that this one is a fork or a reproduction of.")
    start_epoch: int = Field(
        description="The epoch of the parent's checkpoint that it continues from; 0: trained from scratch."
    )
    reproduction: Reproduction | None
    fold_group: str | None = Field(description="Shared by the jobs of one cross-validation, one for each fold.")
    investigation: InvestigationItem | None = Field(
        description="Set for a job that retrains two others to find where they diverge (`POST /differences`)."
    )
    reused_from: str | None = Field(description="The job whose first epochs this one took over (`reuse`).")
    reused_epochs: int = Field(
        description="Number of epochs that were copied from another job, with their files, instead of being trained."
    )
    sweep_id: str | None = Field(description="The sweep that this job is a part of.")
    trial: int | None = Field(description="Number of the sweep's trial that it belongs to.")
    error: Annotated[JobError | None, BeforeValidator(finite)]
    stopped_early: StoppedEarly | None = Field(description="Why early stopping ended the job; null if it did not.")
    result_digest: str | None
    cpu_seconds: Seconds | None = Field(description="CPU time so far, over all attempts.")
    peak_memory_bytes: int | None = Field(description="Peak resident memory of the training process.")
    size_bytes: int = Field(description="Total size of its files: checkpoints and samples.")
    created_at: Timestamp = Field(validation_alias="created_ms")
    started_at: Timestamp | None = Field(validation_alias="started_ms")
    finished_at: Timestamp | None = Field(validation_alias="finished_ms")
    allowed_actions: list[Action]
    urls: JobUrls


class BudgetItem(ResponseModel):
    """What a job may use."""

    seconds: float = Field(description="CPU seconds of all attempts together.")


class JobDetail(JobSummary):
    """A job with its spec."""

    budget: Annotated[
        BudgetItem | None, BeforeValidator(lambda value: {"seconds": value} if isinstance(value, float) else value)
    ] = Field(
        validation_alias="budget_seconds",
        description="The budget in force; `spec` and `resolved` keep the one of the submission. Null: no limit.",
    )
    spec: Document = Field(description="The spec as sent.")
    resolved: Document = Field(description="Full spec (defaults included).")
    provenance: Document | None = Field(description="Environment: versions and hardware that the result depends on.")
    stopped_by_sweep: bool = Field(description=STOPPED_BY_SWEEP)
    reason: Reason | None = Field(
        None, description="Why the job is queued or paused again, if not at its user's request, as in its last event."
    )
    trace_id: Annotated[str | None, BeforeValidator(tracing.trace_id_of)] = Field(
        None, validation_alias="traceparent", description="Of the request that queued the job."
    )


class SubmittedJob(JobDetail):
    """A new job; of a spec with `dataset.folds` the first of several."""

    fold_jobs: list[str] = Field([], description="Ids of all jobs of a cross-validation, in the order of the folds.")


class LayerItem(ResponseModel):
    """A layer of a network."""

    type: str = Field(validation_alias=AliasPath("layer", "type"))
    output_shape: list[int] = Field(
        validation_alias="size", description="Without the batch: number of values, or rows, columns and channels."
    )
    parameters: int = Field(validation_alias="weights", description="Number of trainable weights and biases.")


class NetworkItem(ResponseModel):
    """A network of a spec, layer by layer."""

    pointer: str = Field(description="JSON pointer to its layers: `#/layers`, `#/generator/layers`.")
    input_shape: list[int] = Field(validation_alias="input_size")
    layers: list[LayerItem] = Field(
        validation_alias="layer_shapes", description="In order, up to the first layer whose input has a wrong shape."
    )


class DryRun(ResponseModel):
    """The full spec and the estimated cost of a job."""

    resolved: dict[str, Any]
    networks: list[NetworkItem]
    parameters: int
    steps: int
    estimated_bytes: int = Field(description="Estimated peak memory.")
    checkpoint_bytes: int
    expected_bytes: int = Field(
        description="The most that the job's files are expected to take at a time, without exports; it counts against "
        "the quota of job files until the job has ended."
    )
    estimated_seconds: float = Field(description="Estimate of the duration, approximate before a similar job.")
    estimated_seconds_low: float | None = Field(
        description="90% of jobs are expected to take at least this long; null before a similar job has succeeded."
    )
    estimated_seconds_high: float | None = Field(description="90% of jobs are expected to take at most this long.")
    estimate_basis: str = Field(
        description="Basis of the estimate: `number of operations`, or for example `3 similar jobs`."
    )
    notes: list[str] = Field(
        description="Remarks before submitting: a dataset that has to be downloaded, or a preset that was adapted to "
        "the "
        "dataset."
    )

    @classmethod
    def of(cls, forecast: Forecast) -> Self:
        """The response for a checked spec."""
        estimate = forecast.cost.estimate
        return cls.from_row(
            forecast.cost,
            resolved=forecast.spec.model_dump(mode="json"),
            networks=[NetworkItem.from_row(network) for network in forecast.networks],
            estimated_seconds=estimate.seconds,
            estimated_seconds_low=estimate.low_s,
            estimated_seconds_high=estimate.high_s,
            estimate_basis=estimate.basis,
            notes=forecast.notes,
        )


def job_summary(job: Job) -> JobSummary:
    """A job for a list."""
    return JobSummary.from_row(job, **derived_fields(job))


def job_detail(job: Job, *, stopped_by_sweep: bool = False, reason: Reason | None = None) -> JobDetail:
    """A job with its spec, as far as the current request may see it."""
    return shared_view.of_model(_detail(job, stopped_by_sweep=stopped_by_sweep, reason=reason), share_link())


def new_job(job: Job) -> JobDetail:
    """The job of a submission. The thread of another request may create it, which stores both in one transaction."""
    return _detail(job, stopped_by_sweep=False, reason=None)


def _detail(job: Job, *, stopped_by_sweep: bool, reason: Reason | None) -> JobDetail:
    resolved = job.resolved | {"budget": job.spec.get("budget")}  # the database has it in `spec` only
    derived = derived_fields(job) | {"resolved": resolved, "stopped_by_sweep": stopped_by_sweep, "reason": reason}
    return JobDetail.from_row(job, **derived)


def read_detail(session: Session, job: Job) -> JobDetail:
    """A job with its spec, and why it waits or was stopped."""
    stopped = bool(lookup.stopped_by_sweep(session, [job]))
    return job_detail(job, stopped_by_sweep=stopped, reason=events.reason_to_wait(session, job))


def derived_fields(job: Job) -> dict[str, Any]:
    """The fields of ``JobSummary`` that are not columns."""
    return {
        "error": shown_error(job),
        "progress": Progress.of(job),
        "allowed_actions": actions.actions_of(job),
        "urls": JobUrls.of(job.id),
        **test_fields(job),
    }


def test_fields(job: Job) -> dict[str, Any]:
    """The scores on the test part."""
    return {name: (job.test_scores or {}).get(name) for name in (*TEST_SCORES, "test_epoch")}


def metric_intervals(
    metrics: Mapping[str, Any], validation_count: int | None, test_scores: Mapping[str, Any] | None = None
) -> dict[str, IntervalItem]:
    """The intervals of the metrics whose number of examples is known, by metric."""
    test = test_scores or {}
    scored = [(test, test.get("test_count"), "test_"), (metrics, validation_count, "val_")]
    return {
        name: IntervalItem.from_row(interval)
        for scores, n, prefix in scored
        for name in METRICS_WITH_INTERVAL
        if name.startswith(prefix) and (interval := interval_of(name, scores, n)) is not None
    }


class FaultItem(ResponseModel):
    """An error in a request."""

    pointer: str | None = Field(None, description="JSON pointer into the body.")
    parameter: str | None = Field(None, description="Name of a URL parameter, header or form field.")
    detail: str
    code: str
    suggestion: str | None = None


class ProblemDocument(ResponseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str | None
    errors: list[FaultItem] | None = Field(None, description="All errors, or the first hundred of `error_count`.")
    error_count: int | None = None
    allowed_actions: list[Action] | None = None
    jobs: list[str] | None = None
    line: int | None = None
    column: int | None = None
    resolved: dict[str, Any] | None = Field(
        None, description="For a dry run whose fields are valid, but inconsistent or unsuitable for the dataset."
    )
    networks: list[NetworkItem] | None = Field(None, description="Included together with `resolved`.")


class FoldJob(ResponseModel):
    """The job that validates on one fold."""

    fold: int
    id: str
    title: str
    status: Status
    progress: Progress
    metrics: Metrics = Field(
        description="Of a classifier, `val_accuracy` and `val_loss` of the last epoch, `best:val_accuracy` of all "
        "epochs, and `test_accuracy`; of a regressor, `val_rmse` and `test_rmse` in their place, and `val_r2`."
    )
    urls: JobUrls


class FoldSet(ResponseModel):
    """The jobs of a cross-validation and their results."""

    fold_group: str
    folds: int = Field(description="Number of folds.")
    finished: int = Field(description="Number of jobs that have succeeded.")
    jobs: list[FoldJob] = Field(description="In the order of the folds, without those that were deleted.")
    means: dict[str, FoldMean] = Field(description="By metric.")

    @classmethod
    def of(cls, group: str, jobs: Sequence[Job]) -> Self:
        """The response for the jobs of a cross-validation."""
        columns = folds.columns(jobs[0].kind)
        means = {column.name: folds.measured(column, jobs) for column in columns}
        return cls(
            fold_group=group,
            folds=int(jobs[0].resolved["dataset"]["folds"]),
            finished=sum(job.status == Status.SUCCEEDED for job in jobs),
            jobs=[
                FoldJob.from_row(
                    job,
                    fold=job.resolved["dataset"]["fold"],
                    title=listing.title(job.id, job.name, job.kind),
                    progress=Progress.of(job),
                    metrics=finite({column.name: column.value(job) for column in columns}),
                    urls=JobUrls.of(job.id),
                )
                for job in jobs
            ],
            means={name: measured for name, measured in means.items() if measured is not None},
        )
