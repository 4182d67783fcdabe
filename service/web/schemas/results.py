"""The results of a job so far, with one page of its files."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from sqlalchemy.orm import Session

from service.errors import ArtifactNotFound
from service.jobs.queries import files, lookup
from service.jobs.transitions import shown_error
from service.spec.schema import Kind
from service.states import TERMINAL, Status
from service.storage.artifacts import EXPORTS, ArtifactKind
from service.storage.tables import Artifact, Epoch, Job
from service.web.http.schemas import Answer, Metrics, Seconds, finite
from service.web.schemas.files import (
    ArtifactItem,
    Checkpoint,
    Films,
    artifact_item,
    checkpoint_item,
    film_urls,
    sample_item,
)
from service.web.schemas.jobs import (
    INTERVALS,
    STOPPED_BY_SWEEP,
    TEST_SCORE,
    AccuracyInterval,
    JobError,
    accuracy_intervals,
    test_fields,
)
from service.web.schemas.queries import FilesQuery


class BestEpoch(Answer):
    """The epoch of the best checkpoint."""

    epoch: int
    metrics: Metrics
    intervals: dict[str, AccuracyInterval] = Field(description=INTERVALS)


class ResultCheckpoints(Answer):
    """The best and the latest checkpoint."""

    best: Checkpoint | None
    latest: Checkpoint | None


class ResultSamples(Answer):
    """The latest sample grid, and the animation of all."""

    latest: ArtifactItem | None
    film: str | None = Field(description="The animation as a GIF.")
    films: Films | None


class Results(Answer):
    """The results of a job; before its end, the results so far with ``final`` false."""

    job: str
    final: bool
    status: Status
    stopped_by_sweep: bool = Field(description=STOPPED_BY_SWEEP)
    metrics: Metrics
    intervals: dict[str, AccuracyInterval] = Field(description=INTERVALS)
    best: BestEpoch | None
    test_accuracy: float | None = Field(description=TEST_SCORE.format("Accuracy"))
    test_loss: float | None = Field(description=TEST_SCORE.format("Loss"))
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
    return Results.represent(
        job,
        job=job.id,
        final=job.status in TERMINAL,
        error=shown_error(job),
        stopped_by_sweep=bool(lookup.stopped_by_sweep(session, [job])),
        intervals=accuracy_intervals(job.metrics, count, job.test_scores),
        best=_best(best, count) if best is not None else None,
        **test_fields(job),
        checkpoints=ResultCheckpoints(
            best=_checkpoint(session, job, "best"), latest=_checkpoint(session, job, "latest")
        ),
        samples=ResultSamples(
            latest=sample_item(sample) if sample is not None else None, film=films.gif if films else None, films=films
        ),
        plots=_plots(job),
        artifacts=[artifact_item(row) for row in page.rows],
        has_more=page.next_cursor is not None,
        next_cursor=page.next_cursor,
        artifact_count=totals.count(),
        sizes={kind: size for kind, size in totals.sizes.items() if size or kind not in EXPORTS},
        size_bytes=totals.size_bytes(),
        trained_seconds=lookup.trained_s(session, job),
    )


def _best(row: Epoch, validation_count: int | None) -> BestEpoch:
    return BestEpoch.represent(row, intervals=accuracy_intervals(row.metrics, validation_count))


def _plots(job: Job) -> dict[str, str]:
    names = ["curves"] if job.epoch else []
    if job.epoch and job.kind == Kind.CLASSIFIER:
        names.append("confusion")
    return {name: f"/jobs/{job.id}/plots/{name}.png" for name in names}


def _checkpoint(session: Session, job: Job, reference: str) -> Checkpoint | None:
    try:
        row, latest = lookup.checkpoint(session, job, reference), lookup.checkpoint(session, job, "latest")
    except ArtifactNotFound:
        return None
    return checkpoint_item(job, row, latest=latest.epoch)


def _sample(session: Session, job: Job) -> Artifact | None:
    try:
        return lookup.sample(session, job, "latest")
    except ArtifactNotFound:
        return None
