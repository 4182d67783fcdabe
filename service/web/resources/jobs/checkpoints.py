"""Checkpoints: list and download them."""

from __future__ import annotations

from functools import partial
from typing import Final

from flask import Blueprint, Response

from service.application.jobs import Jobs
from service.jobs.queries import files, lookup
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact
from service.web.core.core import core, owner, provided
from service.web.gate.access_checks import actor
from service.web.http import downloads
from service.web.http.endpoint import Result, endpoint
from service.web.http.responses import next_link
from service.web.resources.pages import job_pages
from service.web.schemas.files import CheckpointList, checkpoint_list
from service.web.schemas.queries import FilesQuery

blueprint: Final = Blueprint("checkpoints", __name__)

TAG: Final = "Files"


@blueprint.get("/jobs/<job_id>/checkpoints")
@endpoint(
    TAG, CheckpointList, query=FilesQuery, problems=("job_not_found", "invalid_cursor"), page=job_pages.checkpoints
)
def checkpoints(job_id: str, query: FilesQuery) -> Result:
    """List the stored checkpoints: the latest ones and the best."""
    with core().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
        page = files.page(session, job_id, ArtifactKind.CHECKPOINT, limit=query.limit, cursor=query.cursor)
        latest = files.latest_epoch(session, job_id, ArtifactKind.CHECKPOINT)
    return checkpoint_list(job, page, latest=latest), next_link(page.next_cursor)


@blueprint.get("/jobs/<job_id>/checkpoints/<which>")
@endpoint(TAG, "application/octet-stream", headers=downloads.HEADERS, also=downloads.ALSO, problems=downloads.PROBLEMS)
def checkpoint(job_id: str, which: str) -> Response:
    """Download a checkpoint (`best`, `latest`, or an epoch number) as a safetensors file."""
    find = partial(provided(Jobs).checkpoint, job_id, which, by=actor())
    return downloads.send_artifact(core().artifacts, find, name=_download_name, cache=downloads.cache_of(which))


def _download_name(row: Artifact) -> str:
    return f"{row.job_id}-epoch-{row.epoch:04d}.safetensors"
