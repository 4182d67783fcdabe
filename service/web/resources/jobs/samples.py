"""Sample grids and their animation."""

from __future__ import annotations

from functools import partial
from typing import Final

from flask import Blueprint, Response

from service.jobs.queries import files, lookup
from service.pictures.animations import AnimationFormat
from service.spec.schema import Kind
from service.storage.artifacts import ArtifactKind
from service.web.endpoints import Result, endpoint
from service.web.files import downloads
from service.web.middleware.access_checks import actor
from service.web.resources.pages import job_pages
from service.web.responses import next_link
from service.web.schemas.files import SampleList, sample_list
from service.web.schemas.queries import FilesQuery, PictureQuery, SampleQuery
from service.web.services import owner, services

blueprint: Final = Blueprint("samples", __name__)

TAG: Final = "Files"


@blueprint.get("/jobs/<job_id>/samples")
@endpoint(TAG, SampleList, query=FilesQuery, problems=("job_not_found", "invalid_cursor"), page=job_pages.samples)
def samples(job_id: str, query: FilesQuery) -> Result:
    """List the sample images, one per epoch."""
    with services().database.read() as session:
        lookup.get(session, job_id, owner=owner())
        page = files.page(session, job_id, ArtifactKind.SAMPLE, limit=query.limit, cursor=query.cursor)
        exists = files.latest_epoch(session, job_id, ArtifactKind.SAMPLE) > 0
    return sample_list(job_id, page, exists=exists), next_link(page.next_cursor)


@blueprint.get("/jobs/<job_id>/samples/<which>.png")
@endpoint(
    TAG,
    "image/png",
    other_media=downloads.AS_OCTETS,
    query=SampleQuery,
    headers=downloads.HEADERS,
    also=downloads.ALSO,
    problems=(*downloads.PROBLEMS, "no_verdicts", "busy"),
)
def sample(job_id: str, which: str, query: SampleQuery) -> Response:
    """Show a sample grid: `latest`, or an epoch number.

    A GAN's grid is generated from the same latent points in every epoch. With `verdicts=true`, each sample has the
    class predicted by the reference classifier, with the number of samples per class below. A classifier's grid always
    shows images with their predictions.
    """
    app_services, find = services(), partial(services().jobs.sample, job_id, which, by=actor())
    if query.verdicts:
        job = app_services.jobs.get(job_id, by=actor())
        if job.kind == Kind.GAN:
            return downloads.send_picture(app_services.drawings.classified_samples(job, find()), "image/png")
    return downloads.send_artifact(app_services.artifacts, find, name=None, cache=downloads.cache_of(which))


@blueprint.get("/jobs/<job_id>/samples.gif")
@endpoint(
    TAG,
    "image/gif",
    other_media=downloads.AS_OCTETS,
    query=PictureQuery,
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=(*downloads.PROBLEMS, "not_yet", "busy"),
)
def film(job_id: str) -> Response:
    """Show all sample grids as an animated GIF.

    It has at most 120 frames, evenly spaced. `samples.webp` has the same pixels in less than half the bytes.
    """
    return _film(job_id, "gif")


@blueprint.get("/jobs/<job_id>/samples.webp")
@endpoint(
    TAG,
    "image/webp",
    other_media=downloads.AS_OCTETS,
    query=PictureQuery,
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=(*downloads.PROBLEMS, "not_yet", "busy"),
)
def small_film(job_id: str) -> Response:
    """Show all sample grids as an animated WebP.

    It has the same pixels as `samples.gif` in 10% to 40% of the bytes.
    """
    return _film(job_id, "webp")


def _film(job_id: str, fmt: AnimationFormat) -> Response:
    job = services().jobs.get(job_id, by=actor())
    return downloads.send_picture(services().drawings.film(job, fmt), f"image/{fmt}")
