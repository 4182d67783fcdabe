"""The results of a job: metrics, log, confusion matrix and files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field
from sqlalchemy.orm import Session

from service import kinds
from service.access.shares import Shared
from service.diagnosis.class_scores import class_scores
from service.errors import ArtifactNotFound
from service.jobs import events
from service.jobs.events import EventFilter, EventType, FoundPeriod, Level, LogPage
from service.jobs.queries import files, lookup
from service.jobs.queries.files import FilePage
from service.jobs.transitions import shown_error
from service.states import TERMINAL, FindingCode, Severity, Status
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact, Epoch, Event, Job
from service.web.gate import shared_view
from service.web.gate.access_checks import is_shared, share_link
from service.web.http.problems import invalid_parameter
from service.web.http.queries import (
    MAX_COMPARED,
    Cursor,
    JobId,
    ModelName,
    OptionalText,
    PictureQuery,
    Query,
    Seq,
    WhichCheckpoint,
    blank_is_none,
    split,
)
from service.web.http.schemas import Metrics, ResponseModel, Seconds, Timestamp, finite
from service.web.jobs.schemas import (
    INTERVALS,
    STOPPED_BY_SWEEP,
    TEST_SCORE,
    IntervalItem,
    JobError,
    metric_intervals,
    test_fields,
)
from service.wording import at_time


class EventList(ResponseModel):
    """Part of a job's log."""

    data: list[dict[str, Any]] = Field(description="Each has `job`, `seq`, `type`, `at` and the fields of its type.")
    has_more: bool
    next_after: int = Field(description="`after` of the next request.")


class FoundItem(ResponseModel):
    """The period of a finding."""

    code: FindingCode
    severity: Severity
    message: str
    since: int = Field(description="The epoch after which it was detected.")
    until: int | None = Field(description="The epoch after which it was resolved; null if it is not.")

    @classmethod
    def of(cls, period: FoundPeriod) -> Self:
        """The period as the API shows it."""
        facts = {name: period.finding[name] for name in ("code", "severity", "message")}
        return cls(**facts, since=period.since, until=period.until)


class ResourceSeries(ResponseModel):
    """Resources used by each finished epoch. Unlike metrics, they vary between runs."""

    cpu_seconds: list[Seconds | None] = Field(description="CPU time of the training process during the epoch.")
    memory_bytes: list[int | None] = Field(description="Its resident memory at the end of the epoch.")


class MetricTable(ResponseModel):
    """The metrics of all finished epochs, as columns."""

    job: str
    epochs: list[int]
    series: dict[str, list[float | None]]
    seconds: list[Seconds]
    resources: ResourceSeries
    best_epoch: int | None
    findings: list[FoundItem] = Field(description="Findings with their periods, in order of detection.")


def event_document(event: Event, *, job_id: str, link: Shared | None = None) -> dict[str, Any]:
    """An event as in the log and the stream, with the URL of its file.

    Args:
        link: the share link that permits to read it, if one does.
    """
    data = finite(event.data)
    document = {"job": job_id, "seq": event.seq, "type": event.type, "at": at_time(event.created_ms), **data}
    if event.type == "sample":
        document["url"] = f"/jobs/{job_id}/samples/{data['epoch']}.png"
    elif event.type == "checkpoint":
        document["url"] = f"/jobs/{job_id}/checkpoints/{data['epoch']}"
    return shared_view.of_event(document, link, job_id=job_id)


def event_list(job_id: str, page: LogPage, *, after: int) -> EventList:
    """A page of a job's log.

    Args:
        after: where the next request starts if the page is empty.
    """
    data = [event_document(row, job_id=job_id, link=share_link()) for row in page.rows]
    return EventList(data=data, has_more=page.has_more, next_after=data[-1]["seq"] if data else after)


def metric_table(job: Job, rows: Sequence[Epoch], health_events: Sequence[Event]) -> MetricTable:
    """Rows as columns, with null for missing values.

    Args:
        health_events: the job's events of type ``health``.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    return MetricTable(
        job=job.id,
        epochs=[row.epoch for row in rows],
        series={name: [finite(row.metrics.get(name)) for row in rows] for name in names},
        seconds=[row.seconds for row in rows],
        resources=ResourceSeries(
            cpu_seconds=[row.cpu_seconds for row in rows], memory_bytes=[row.memory_bytes for row in rows]
        ),
        best_epoch=job.best_epoch,
        findings=[FoundItem.of(period) for period in events.found(health_events)],
    )


class ArtifactItem(ResponseModel):
    """A file of a job."""

    id: str
    kind: str
    epoch: int
    name: str
    media_type: str
    size_bytes: int = Field(description="Of the stored file.")
    sha256: str = Field(description="Of the stored file. A classifier's sample grid is shown as a drawing of it.")
    created_at: Timestamp = Field(validation_alias="created_ms")
    url: str


class ArtifactList(ResponseModel):
    """A page of a job's files."""

    data: list[ArtifactItem] = Field(description="By kind and epoch.")
    has_more: bool
    next_cursor: str | None


class Checkpoint(ArtifactItem):
    """A checkpoint, in safetensors format."""

    best: bool
    latest: bool


class CheckpointList(ResponseModel):
    """A page of a job's stored checkpoints."""

    data: list[Checkpoint] = Field(description="By epoch.")
    has_more: bool
    next_cursor: str | None


class Films(ResponseModel):
    """URLs of the animation of all samples; its pixels are identical in each format."""

    gif: str
    webp: str = Field(description="The smaller file.")


class SampleList(ResponseModel):
    """A page of a job's sample grids."""

    data: list[ArtifactItem] = Field(description="By epoch.")
    has_more: bool
    next_cursor: str | None
    film: str | None = Field(description="Animation of all sample grids, as a GIF.")
    films: Films | None


def file_cursor(page: FilePage) -> dict[str, Any]:
    """The fields that lead to the next page of files."""
    return {"has_more": page.next_cursor is not None, "next_cursor": page.next_cursor}


def artifact_item(row: Artifact) -> ArtifactItem:
    """A file for a list."""
    return ArtifactItem.from_row(row, url=f"/jobs/{row.job_id}/artifacts/{row.id}")


def sample_item(row: Artifact) -> ArtifactItem:
    """A sample grid for a list."""
    return ArtifactItem.from_row(row, url=f"/jobs/{row.job_id}/samples/{row.epoch}.png")


def checkpoint_items(job: Job, rows: Sequence[Artifact]) -> list[Checkpoint]:
    """All of a job's checkpoints for a list, in the order of their epochs."""
    return [checkpoint_item(job, row, latest=rows[-1].epoch) for row in rows]


def checkpoint_item(job: Job, row: Artifact, *, latest: int) -> Checkpoint:
    """A checkpoint for a list. If no epoch is the best, the latest one counts as the best.

    Args:
        latest: the epoch of the job's latest checkpoint.
    """
    return Checkpoint.from_row(
        row,
        url=f"/jobs/{row.job_id}/checkpoints/{row.epoch}",
        best=row.epoch == (latest if job.best_epoch is None else job.best_epoch),
        latest=row.epoch == latest,
    )


def film_urls(job_id: str, *, exists: bool) -> Films | None:
    """The URLs of the animation, if there are samples."""
    return Films(gif=f"/jobs/{job_id}/samples.gif", webp=f"/jobs/{job_id}/samples.webp") if exists else None


class LogQuery(Query):
    """Which part of a job's log to return."""

    after: Seq = Field(0, description="Only events with a higher `seq`.")
    before: Annotated[Seq | None, BeforeValidator(blank_is_none)] = Field(
        None, description="Only events with a lower `seq`: the last `limit` of them, in ascending order."
    )
    limit: int = Field(500, ge=1, le=1000)
    type: Annotated[list[EventType], BeforeValidator(split)] = Field(
        default=[], description="One or more types, repeated or comma-separated."
    )
    level: Annotated[Level | None, BeforeValidator(blank_is_none)] = Field(
        None, description="Minimum level. Metrics and files are `info`; a failed job is an `error`."
    )
    q: OptionalText = Field(None, description="Substring of an event's content.")

    @property
    def event_filter(self) -> EventFilter:
        """The filter for the database."""
        if self.q and is_shared():  # it would find what is not shown
            raise invalid_parameter("q", "not allowed with a share link")
        return EventFilter(types=self.type, level=self.level, text=self.q)


class EventQuery(LogQuery):
    """Which part of a job's log to return, and the format."""

    format: Literal["json", "jsonl"] = Field(
        "json", description="`jsonl`: all selected events, one JSON document per line; `limit` does not apply."
    )


class FeedQuery(Query):
    """Which jobs to follow."""

    jobs: Annotated[list[JobId], BeforeValidator(split)] = Field(
        default=[], max_length=MAX_COMPARED, description="Ids, repeated or comma-separated; default: all jobs."
    )


class FilesQuery(Query):
    """Which of a job's files to list."""

    limit: int = Field(1000, ge=1, le=1000)
    cursor: Cursor = None


class MetricsQuery(Query):
    """The format of the metrics."""

    format: Literal["json", "csv"] = "json"


class PlotQuery(PictureQuery):
    """Of which checkpoint to draw a plot."""

    checkpoint: WhichCheckpoint | None = Field(
        None,
        description="`best`, `latest`, or an epoch number. Default: `latest` for `confusion`, otherwise `best`. "
        "`curves` always has all epochs.",
    )


class PlayQuery(Query):
    """The checkpoint with which the Play page starts."""

    checkpoint: WhichCheckpoint = Field("best", description="`best`, `latest` or an epoch number.")


class ModelQuery(Query):
    """Which model a page shows."""

    checkpoint: ModelName = Field("best", description="The page shows the latest one if the best one is not stored.")


class SampleQuery(Query):
    """How to render a sample grid."""

    predicted_labels: bool = Field(
        False, description="Label each sample of a GAN with the class predicted by the reference classifier."
    )
    verdicts: bool = Field(
        False, description="The former name of `predicted_labels`.", json_schema_extra={"deprecated": True}
    )


class BestEpoch(ResponseModel):
    """The epoch of the best checkpoint."""

    epoch: int
    metrics: Metrics
    intervals: dict[str, IntervalItem] = Field(description=INTERVALS)


class ResultCheckpoints(ResponseModel):
    """The best and the latest checkpoint."""

    best: Checkpoint | None
    latest: Checkpoint | None


class ResultSamples(ResponseModel):
    """The latest sample grid, and the animation of all."""

    latest: ArtifactItem | None
    film: str | None = Field(description="The animation as a GIF.")
    films: Films | None


class Results(ResponseModel):
    """The results of a job; before its end, the results so far with ``final`` false."""

    job: str
    final: bool
    status: Status
    stopped_by_sweep: bool = Field(description=STOPPED_BY_SWEEP)
    metrics: Metrics
    intervals: dict[str, IntervalItem] = Field(description=INTERVALS)
    best: BestEpoch | None
    test_accuracy: float | None = Field(description=TEST_SCORE.format("Accuracy"))
    test_loss: float | None = Field(description=TEST_SCORE.format("Loss"))
    test_rmse: float | None = Field(None, description=TEST_SCORE.format("RMSE of a regressor"))
    test_mae: float | None = Field(None, description=TEST_SCORE.format("MAE of a regressor"))
    test_r2: float | None = Field(None, description=TEST_SCORE.format("R² of a regressor"))
    test_epoch: int | None = Field(description="The epoch whose weights were scored on the test part: the best one.")
    checkpoints: ResultCheckpoints
    samples: ResultSamples
    plots: dict[str, str] = Field(description="URLs of plots by name, as PNG; replace the suffix by `.svg` for SVG.")
    artifacts: list[ArtifactItem] = Field(description="One page of the job's files, by kind and epoch.")
    has_more: bool = Field(description="Whether there are more files.")
    next_cursor: str | None = Field(
        description="Cursor of the next page of files, here and in `GET /jobs/{job_id}/artifacts`."
    )
    artifact_count: int = Field(description="Number of all files, not only of this page.")
    sizes: dict[ArtifactKind, int] = Field(
        description="Total size of the files by kind; kinds of exports only if there are any."
    )
    size_bytes: int = Field(description="Total size of all files.")
    trained_seconds: Seconds = Field(
        description="Time spent on finished epochs: without waiting, pauses, and reused epochs (`reuse`)."
    )
    result_digest: str | None
    mixed_provenance: list[str] = Field(
        [], description="How it was continued under another provenance: its bits may differ from an undisturbed run."
    )
    error: Annotated[JobError | None, BeforeValidator(finite)]


def read_results(session: Session, job: Job, query: FilesQuery) -> Results:
    """The results of a job so far.

    Raises:
        InvalidCursor: this service did not issue the cursor.
    """
    page = files.page(session, job.id, limit=query.limit, cursor=query.cursor)
    totals = files.totals(session, job.id)
    best = session.get(Epoch, (job.id, job.best_epoch)) if job.best_epoch is not None else None
    count = lookup.validation_counts(session, [job]).get(job.id)
    sample = _sample(session, job)
    films = film_urls(job.id, exists=sample is not None)
    results = Results.from_row(
        job,
        job=job.id,
        final=job.status in TERMINAL,
        error=shown_error(job),
        stopped_by_sweep=bool(lookup.stopped_by_sweep(session, [job])),
        intervals=metric_intervals(job.metrics, count, job.test_scores),
        best=BestEpoch.from_row(best, intervals=metric_intervals(best.metrics, count)) if best is not None else None,
        **test_fields(job),
        checkpoints=ResultCheckpoints(
            best=_checkpoint_or_none(session, job, "best"), latest=_checkpoint_or_none(session, job, "latest")
        ),
        samples=ResultSamples(
            latest=sample_item(sample) if sample is not None else None, film=films.gif if films else None, films=films
        ),
        plots=_plots(job),
        artifacts=[artifact_item(row) for row in page.rows],
        **file_cursor(page),
        artifact_count=totals.count(),
        sizes={kind: size for kind, size in totals.sizes.items() if size or kind in _ALWAYS_LISTED},
        size_bytes=totals.size_bytes(),
        trained_seconds=lookup.trained_s(session, job),
        mixed_provenance=[] if job.reusable else events.mixed_provenance(session, job.id),
    )
    return shared_view.of_model(results, share_link())


_ALWAYS_LISTED: Final = (ArtifactKind.CHECKPOINT, ArtifactKind.SAMPLE)
"""Kinds of files whose size is told even if there are none."""


def _plots(job: Job) -> dict[str, str]:
    names = kinds.of(job.kind).result_plots if job.epoch else ()
    return {name: f"/jobs/{job.id}/plots/{name}.png" for name in names}


def _checkpoint_or_none(session: Session, job: Job, reference: str) -> Checkpoint | None:
    with suppress(ArtifactNotFound):
        latest = lookup.checkpoint(session, job, "latest").epoch
        return checkpoint_item(job, lookup.checkpoint(session, job, reference), latest=latest)
    return None


def _sample(session: Session, job: Job) -> Artifact | None:
    with suppress(ArtifactNotFound):
        return lookup.sample(session, job, "latest")
    return None


class ClassScoreItem(ResponseModel):
    """Precision, recall and F1 of a class."""

    class_name: str
    support: int = Field(description="Validation images of this class.")
    precision: float | None = Field(description="Null: no image was predicted as this class.")
    recall: float | None = Field(description="Null: there is no image of this class.")
    f1: float | None = Field(description="Null: the class is neither present nor predicted.")


class ConfusionMatrix(ResponseModel):
    """A confusion matrix with its scores."""

    epoch: int
    class_names: list[str]
    matrix: list[list[int]] = Field(description="A row for each true class, a column for each predicted one.")
    per_class: list[ClassScoreItem] = Field(description="In the order of `class_names`.")
    macro_precision: float | None = Field(
        description="Mean precision of the classes that are present or predicted; 0 for one that is never predicted."
    )
    macro_f1: float | None = Field(description="Mean F1 of the classes that are present or predicted.")
    balanced_accuracy: float | None = Field(description="Mean recall of the classes that are present.")
    unscored_classes: list[str] = Field(
        description="Classes without validation images or rows: accuracy, loss and the means say nothing about them."
    )

    @classmethod
    def of(cls, epoch: int, class_names: Sequence[str], matrix: Sequence[Sequence[int]]) -> ConfusionMatrix:
        """The response for one epoch's matrix."""
        scores = class_scores(matrix)
        return cls.from_row(
            scores,
            epoch=epoch,
            class_names=class_names,
            matrix=matrix,
            per_class=[
                ClassScoreItem.from_row(item, class_name=name)
                for name, item in zip(class_names, scores.classes, strict=True)
            ],
            unscored_classes=[name for name, item in zip(class_names, scores.classes, strict=True) if not item.support],
        )
