"""Checkpoints: list and download them."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from service.contract import jobs
from service.contract.artifacts import ArtifactKind
from service.contract.tables import Artifact
from service.web import downloads, queries, representations
from service.web.answers import as_json
from service.web.operations import documented
from service.web.queries import NoQuery
from service.web.representations import CheckpointList
from service.web.resources import job_pages
from service.web.services import owner, services

blueprint: Final = Blueprint("checkpoints", __name__)

TAG: Final = "Files"


@blueprint.get("/jobs/<job_id>/checkpoints")
@documented(TAG, CheckpointList, problems=("job_not_found",), page=job_pages.checkpoints)
def checkpoints(job_id: str) -> Response:
    """List the stored checkpoints: the latest ones and the best."""
    queries.read_query(NoQuery)
    with services().database.read() as session:
        job = jobs.get(session, job_id, owner=owner())
        rows = jobs.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
    return as_json(CheckpointList(data=representations.checkpoint_items(job, rows)))


@blueprint.get("/jobs/<job_id>/checkpoints/<which>")
@documented(
    TAG, "application/octet-stream", headers=downloads.HEADERS, also=downloads.ALSO, problems=downloads.PROBLEMS
)
def checkpoint(job_id: str, which: str) -> Response:
    """Download a checkpoint (`best`, `latest`, or an epoch number) as a safetensors file."""
    queries.read_query(NoQuery)
    database = services().database

    def find() -> Artifact:
        with database.read() as session:
            return jobs.checkpoint(session, jobs.get(session, job_id, owner=owner()), which)

    def name(row: Artifact) -> str:
        return f"{job_id}-epoch-{row.epoch:04d}.safetensors"

    cache = downloads.FOREVER if which.isdigit() else downloads.ASK
    return downloads.send_artifact(services().artifacts, find, name=name, cache=cache)
