"""Checkpoints: list and download them."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from service.jobs.queries import files, lookup
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact
from service.web.answers import next_link
from service.web.endpoints import Result, endpoint
from service.web.files import downloads
from service.web.resources.pages import job_pages
from service.web.schemas.files import CheckpointList, checkpoint_item
from service.web.schemas.queries import FilesQuery
from service.web.services import owner, services

blueprint: Final = Blueprint("checkpoints", __name__)

TAG: Final = "Files"


@blueprint.get("/jobs/<job_id>/checkpoints")
@endpoint(
    TAG, CheckpointList, query=FilesQuery, problems=("job_not_found", "invalid_cursor"), page=job_pages.checkpoints
)
def checkpoints(job_id: str, query: FilesQuery) -> Result:
    """List the stored checkpoints: the latest ones and the best."""
    with services().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
        page = files.page(session, job_id, ArtifactKind.CHECKPOINT, limit=query.limit, cursor=query.cursor)
        latest = files.latest_epoch(session, job_id, ArtifactKind.CHECKPOINT)
    data = [checkpoint_item(job, row, latest=latest) for row in page.rows]
    found = CheckpointList(data=data, has_more=page.next_cursor is not None, next_cursor=page.next_cursor)
    return found, next_link(page.next_cursor)


@blueprint.get("/jobs/<job_id>/checkpoints/<which>")
@endpoint(TAG, "application/octet-stream", headers=downloads.HEADERS, also=downloads.ALSO, problems=downloads.PROBLEMS)
def checkpoint(job_id: str, which: str) -> Response:
    """Download a checkpoint (`best`, `latest`, or an epoch number) as a safetensors file."""
    database = services().database

    def find() -> Artifact:
        with database.read() as session:
            return lookup.checkpoint(session, lookup.get(session, job_id, owner=owner()), which)

    def name(row: Artifact) -> str:
        return f"{job_id}-epoch-{row.epoch:04d}.safetensors"

    cache = downloads.FOREVER if which.isdigit() else downloads.ASK
    return downloads.send_artifact(services().artifacts, find, name=name, cache=cache)
