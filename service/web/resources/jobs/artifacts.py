"""All files of a job."""

from __future__ import annotations

from functools import partial
from typing import Final

from flask import Blueprint, Response

from service.application.jobs import Jobs
from service.jobs.queries import files, lookup
from service.storage.tables import Artifact
from service.web.core.core import core, owner, provided
from service.web.gate.access_checks import actor
from service.web.http import downloads
from service.web.http.endpoint import Result, endpoint
from service.web.http.responses import next_link
from service.web.resources.pages import job_pages
from service.web.schemas.files import ArtifactList, artifact_list
from service.web.schemas.queries import FilesQuery

blueprint: Final = Blueprint("artifacts", __name__)

TAG: Final = "Files"


@blueprint.get("/jobs/<job_id>/artifacts")
@endpoint(TAG, ArtifactList, query=FilesQuery, problems=("job_not_found", "invalid_cursor"), page=job_pages.artifacts)
def artifacts(job_id: str, query: FilesQuery) -> Result:
    """List the files of a job, each with its size and SHA-256."""
    with core().database.read() as session:
        lookup.get(session, job_id, owner=owner())
        page = files.page(session, job_id, limit=query.limit, cursor=query.cursor)
    return artifact_list(page), next_link(page.next_cursor)


@blueprint.get("/jobs/<job_id>/artifacts/<artifact_id>")
@endpoint(
    TAG,
    "application/octet-stream",
    headers=downloads.HEADERS,
    other_media=("image/png",),
    also=downloads.ALSO,
    problems=downloads.PROBLEMS,
)
def artifact(job_id: str, artifact_id: str) -> Response:
    """Download a file by its id."""
    find = partial(provided(Jobs).artifact, job_id, artifact_id, by=actor())
    return downloads.send_artifact(core().artifacts, find, name=_download_name, cache=downloads.FOREVER)


def _download_name(row: Artifact) -> str:
    return f"{row.job_id}-{row.name}"
