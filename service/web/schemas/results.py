"""What a job has given so far, as one document; its files in it come page by page."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.errors import ArtifactNotFound
from service.jobs.queries import files, lookup
from service.spec.schema import Kind
from service.states import TERMINAL, Status
from service.storage.tables import Artifact, Epoch, Job
from service.web.schemas.queries import FilesQuery
from service.web.schemas.representations import (
    BestEpoch,
    Checkpoint,
    ResultCheckpoints,
    Results,
    ResultSamples,
    artifact_item,
    checkpoint_item,
    film_urls,
    finite,
    job_error,
    sample_item,
)


def read_results(session: Session, job: Job, query: FilesQuery) -> Results:
    """Everything that a job has given so far.

    Raises:
        InvalidCursor: the query's cursor is not one of ours.
    """
    page = files.page(session, job.id, limit=query.limit, cursor=query.cursor)
    totals = files.totals(session, job.id)
    best = session.get(Epoch, (job.id, job.best_epoch)) if job.best_epoch is not None else None
    sample = _sample(session, job)
    films = film_urls(job.id, exists=sample is not None)
    return Results(
        job=job.id,
        final=job.status in TERMINAL,
        status=Status(job.status),
        metrics=finite(job.metrics),
        best=BestEpoch(epoch=best.epoch, metrics=finite(best.metrics)) if best is not None else None,
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
        sizes=dict(totals.sizes),
        size_bytes=totals.size_bytes(),
        result_digest=job.result_digest,
        error=job_error(job),
    )


def _plots(job: Job) -> dict[str, str]:
    names = ["curves"] if job.epoch else []
    if job.epoch and job.kind == Kind.CLASSIFIER:
        names.append("confusion")
    return {name: f"/jobs/{job.id}/plots/{name}.png" for name in names}


def _checkpoint(session: Session, job: Job, which: str) -> Checkpoint | None:
    try:
        row, latest = lookup.checkpoint(session, job, which), lookup.checkpoint(session, job, "latest")
    except ArtifactNotFound:
        return None
    return checkpoint_item(job, row, latest=latest.epoch)


def _sample(session: Session, job: Job) -> Artifact | None:
    try:
        return lookup.sample(session, job, "latest")
    except ArtifactNotFound:
        return None
