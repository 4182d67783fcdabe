"""All files of a job."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from service.contract import jobs
from service.contract.tables import Artifact
from service.web import downloads, queries, representations
from service.web.answers import as_json
from service.web.operations import documented
from service.web.queries import NoQuery
from service.web.representations import ArtifactList
from service.web.resources import job_pages
from service.web.services import owner, services

blueprint: Final = Blueprint("artifacts", __name__)

TAG: Final = "Files"


@blueprint.get("/jobs/<job_id>/artifacts")
@documented(TAG, ArtifactList, problems=("job_not_found",), page=job_pages.artifacts)
def artifacts(job_id: str) -> Response:
    """List all files of a job, each with its size and SHA-256."""
    queries.read_query(NoQuery)
    with services().database.read() as session:
        jobs.get(session, job_id, owner=owner())
        rows = jobs.artifacts(session, job_id)
    return as_json(ArtifactList(data=[representations.artifact_item(row) for row in rows]))


@blueprint.get("/jobs/<job_id>/artifacts/<artifact_id>")
@documented(
    TAG,
    "application/octet-stream",
    headers=downloads.HEADERS,
    other_media=("image/png",),
    also=downloads.ALSO,
    problems=downloads.PROBLEMS,
)
def artifact(job_id: str, artifact_id: str) -> Response:
    """Download a file by its id."""
    queries.read_query(NoQuery)
    database = services().database

    def find() -> Artifact:
        with database.read() as session:
            jobs.get(session, job_id, owner=owner())
            return jobs.artifact(session, job_id, artifact_id)

    def name(row: Artifact) -> str:
        return f"{job_id}-{row.name}"

    return downloads.send_artifact(services().artifacts, find, name=name, cache=downloads.FOREVER)
