"""The files of a job: artifacts, checkpoints and samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from service.jobs.queries.files import FilePage
from service.storage.tables import Artifact, Job
from service.web.http.schemas import Answer, Timestamp


class ArtifactItem(Answer):
    """A file of a job."""

    id: str
    kind: str
    epoch: int
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    created_at: Timestamp = Field(validation_alias="created_ms")
    url: str


class ArtifactList(Answer):
    """A page of a job's files."""

    data: list[ArtifactItem] = Field(description="By kind and epoch.")
    has_more: bool
    next_cursor: str | None


class Checkpoint(ArtifactItem):
    """A checkpoint, in safetensors format."""

    best: bool
    latest: bool


class CheckpointList(Answer):
    """A page of a job's stored checkpoints."""

    data: list[Checkpoint] = Field(description="By epoch.")
    has_more: bool
    next_cursor: str | None


class Films(Answer):
    """URLs of the animation of all samples; its pixels are identical in each format."""

    gif: str
    webp: str = Field(description="The smaller file.")


class SampleList(Answer):
    """A page of a job's sample grids."""

    data: list[ArtifactItem] = Field(description="By epoch.")
    has_more: bool
    next_cursor: str | None
    film: str | None = Field(description="Animation of all sample grids, as a GIF.")
    films: Films | None


def artifact_list(page: FilePage) -> ArtifactList:
    """A page of a job's files."""
    return ArtifactList(data=[artifact_item(row) for row in page.rows], **_cursor(page))


def checkpoint_list(job: Job, page: FilePage, *, latest: int) -> CheckpointList:
    """A page of a job's checkpoints.

    Args:
        latest: the epoch of the job's latest checkpoint.
    """
    return CheckpointList(data=[checkpoint_item(job, row, latest=latest) for row in page.rows], **_cursor(page))


def sample_list(job_id: str, page: FilePage, *, exists: bool) -> SampleList:
    """A page of a job's sample grids.

    Args:
        exists: whether the job has any.
    """
    films = film_urls(job_id, exists=exists)
    data = [sample_item(row) for row in page.rows]
    return SampleList(data=data, film=films.gif if films else None, films=films, **_cursor(page))


def _cursor(page: FilePage) -> dict[str, Any]:
    return {"has_more": page.next_cursor is not None, "next_cursor": page.next_cursor}


def artifact_item(row: Artifact) -> ArtifactItem:
    """A file for a list."""
    return ArtifactItem.represent(row, url=f"/jobs/{row.job_id}/artifacts/{row.id}")


def sample_item(row: Artifact) -> ArtifactItem:
    """A sample grid for a list."""
    return ArtifactItem.represent(row, url=f"/jobs/{row.job_id}/samples/{row.epoch}.png")


def checkpoint_items(job: Job, rows: Sequence[Artifact]) -> list[Checkpoint]:
    """All of a job's checkpoints for a list, in the order of their epochs."""
    return [checkpoint_item(job, row, latest=rows[-1].epoch) for row in rows]


def checkpoint_item(job: Job, row: Artifact, *, latest: int) -> Checkpoint:
    """A checkpoint for a list. If no epoch is the best, the latest one counts as the best.

    Args:
        latest: the epoch of the job's latest checkpoint.
    """
    return Checkpoint.represent(
        row,
        url=f"/jobs/{row.job_id}/checkpoints/{row.epoch}",
        best=row.epoch == (latest if job.best_epoch is None else job.best_epoch),
        latest=row.epoch == latest,
    )


def film_urls(job_id: str, *, exists: bool) -> Films | None:
    """The URLs of the animation, if there are samples."""
    return Films(gif=f"/jobs/{job_id}/samples.gif", webp=f"/jobs/{job_id}/samples.webp") if exists else None
