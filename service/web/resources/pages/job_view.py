"""The pages of one job: overview and Play."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from service.jobs.queries import lookup
from service.models.exports.contents import FORMATS
from service.storage.artifacts import ArtifactKind
from service.web.core.core import core, owner
from service.web.http.endpoint import endpoint
from service.web.http.responses import as_page
from service.web.resources.pages import job_overview, playground
from service.web.schemas.queries import ModelQuery

blueprint: Final = Blueprint("job_view", __name__)

TAG: Final = "Pages"


@blueprint.get("/ui/jobs/<job_id>")
@endpoint(TAG, "text/html", query=ModelQuery, problems=("job_not_found",))
def job(job_id: str, query: ModelQuery) -> Response:
    """Show the page of a job, updated live."""
    with core().database.read() as session:
        overview = job_overview.read(session, job_id, query.checkpoint, owner=owner())
        impediment = job_overview.impediment(session, overview.job, core().settings)
    return as_page("job/index.html", impediment=impediment, export_formats=FORMATS, **job_overview.represent(overview))


@blueprint.get("/ui/play/<job_id>")
@endpoint(TAG, "text/html", query=ModelQuery, problems=("job_not_found",))
def play(job_id: str, query: ModelQuery) -> Response:
    """Show the Play page: draw for a classifier, or walk through a GAN's latent space."""
    with core().database.read() as session:
        row = lookup.get(session, job_id, owner=owner())
        files = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
    return as_page("play/index.html", **playground.represent(row, files, query.checkpoint))
