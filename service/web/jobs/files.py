"""The files of a job: all of them, checkpoints, sample grids and their animation, and plots."""

from __future__ import annotations

from typing import Final, cast

from flask import Blueprint, Response

from service import kinds
from service.errors import ArtifactNotFound
from service.jobs.queries import files, lookup
from service.pictures.animations import AnimationFormat
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Artifact
from service.web.core.core import core, read_job
from service.web.gate.access_checks import share_link
from service.web.gate.shared_view import of_file
from service.web.http import downloads
from service.web.http.endpoint import endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.problems import Problem
from service.web.http.queries import PictureQuery
from service.web.inference import loading
from service.web.jobs import plots
from service.web.jobs.result_schemas import (
    ArtifactList,
    CheckpointList,
    FilesQuery,
    PlotQuery,
    SampleList,
    SampleQuery,
    artifact_item,
    checkpoint_item,
    file_cursor,
    film_urls,
    sample_item,
)

artifacts_blueprint: Final = Blueprint("artifacts", __name__)

TAG: Final = "Files"
ARTIFACT_ID: Final = PathParameter(
    "artifact_id",
    "A file's id.",
    "art_01J00000000000000000000000",
    not_found=lambda path: ArtifactNotFound(path["job_id"], f"artifact {path['artifact_id'][:60]!r}"),
)
WHICH: Final = PathParameter(
    "which", "`latest`, `best` (checkpoints only), an epoch number, or the name of a plot.", "latest"
)
FORM: Final = PathParameter("form", "`png` or `svg`.", "png")


@artifacts_blueprint.get("/jobs/<job_id>/artifacts")
@endpoint(
    TAG,
    ArtifactList,
    query=FilesQuery,
    problems=("job_not_found", "invalid_cursor"),
    page="/ui/jobs/{job_id}#files",
    is_shown_by_links=True,
)
def artifacts(job_id: str, query: FilesQuery) -> ArtifactList:
    """List the files of a job, each with its size and SHA-256."""
    with read_job(job_id) as (session, _):
        page = files.page(session, job_id, limit=query.limit, cursor=query.cursor)
    data = [artifact_item(row) for row in page.rows]
    return ArtifactList(data=data, **file_cursor(page))


@artifacts_blueprint.get("/jobs/<job_id>/artifacts/<artifact_id>")
@endpoint(
    TAG,
    "application/octet-stream",
    headers=downloads.HEADERS,
    other_media=("image/png", "text/csv"),
    other_responses=downloads.SAVED_RESPONSES,
    shows_examples=True,
    problems=downloads.PROBLEMS,
    is_shown_by_links=True,
)
def artifact(job_id: str, artifact_id: str) -> Response:
    """Download a file by its id, as it is stored: the sample grid of a classifier has the images alone."""

    def find() -> Artifact:
        with read_job(job_id) as (session, _):
            row = lookup.artifact(session, job_id, artifact_id)
        return of_file(row, share_link(), core().artifacts)

    return downloads.send_artifact(core().artifacts, find, cache=downloads.FOREVER)


checkpoints_blueprint: Final = Blueprint("checkpoints", __name__)


@checkpoints_blueprint.get("/jobs/<job_id>/checkpoints")
@endpoint(
    TAG,
    CheckpointList,
    query=FilesQuery,
    problems=("job_not_found", "invalid_cursor"),
    page="/ui/jobs/{job_id}#files",
    is_shown_by_links=True,
)
def checkpoints(job_id: str, query: FilesQuery) -> CheckpointList:
    """List the stored checkpoints: the latest ones and the best."""
    with read_job(job_id) as (session, job):
        page = files.page(session, job_id, ArtifactKind.CHECKPOINT, limit=query.limit, cursor=query.cursor)
        latest = files.latest_epoch(session, job_id, ArtifactKind.CHECKPOINT)
    data = [checkpoint_item(job, row, latest=latest) for row in page.rows]
    return CheckpointList(data=data, **file_cursor(page))


@checkpoints_blueprint.get("/jobs/<job_id>/checkpoints/<which>")
@endpoint(
    TAG,
    "application/octet-stream",
    headers=downloads.HEADERS,
    other_responses=downloads.SAVED_RESPONSES,
    problems=downloads.PROBLEMS,
    is_shown_by_links=True,
)
def checkpoint(job_id: str, which: str) -> Response:
    """Download a checkpoint (`best`, `latest`, or an epoch number) as a safetensors file."""

    def find() -> Artifact:
        with read_job(job_id) as (session, job):
            row = lookup.checkpoint(session, job, which)
        return of_file(row, share_link(), core().artifacts)

    return downloads.send_artifact(core().artifacts, find, cache=downloads.cache_of(which))


samples_blueprint: Final = Blueprint("samples", __name__)


@samples_blueprint.get("/jobs/<job_id>/samples")
@endpoint(
    TAG,
    SampleList,
    query=FilesQuery,
    problems=("job_not_found", "invalid_cursor"),
    page="/ui/jobs/{job_id}#samples",
    is_shown_by_links=True,
)
def samples(job_id: str, query: FilesQuery) -> SampleList:
    """List the sample images, one per epoch."""
    with read_job(job_id) as (session, _):
        page = files.page(session, job_id, ArtifactKind.SAMPLE, limit=query.limit, cursor=query.cursor)
        exists = files.latest_epoch(session, job_id, ArtifactKind.SAMPLE) > 0
    films, data = film_urls(job_id, exists=exists), [sample_item(row) for row in page.rows]
    return SampleList(data=data, film=films.gif if films else None, films=films, **file_cursor(page))


@samples_blueprint.get("/jobs/<job_id>/samples/<which>.png")
@endpoint(
    TAG,
    "image/png",
    other_media=downloads.AS_OCTETS,
    query=SampleQuery,
    headers=downloads.HEADERS,
    other_responses=downloads.OTHER_RESPONSES,
    problems=(*downloads.PROBLEMS, "no_verdicts", "busy"),
    shows_examples=True,
    is_shown_by_links=True,
)
def sample(job_id: str, which: str, query: SampleQuery) -> Response:
    """Show a sample grid: `latest`, or an epoch number.

    A GAN's grid is generated from the same latent points in every epoch. With `predicted_labels=true`, each sample has
    the class predicted by the reference classifier, with the number of samples per class below. A classifier's grid
    always shows images with their predictions, which are drawn for each request from the stored file.
    """

    def find() -> Artifact:
        with read_job(job_id) as (session, job):
            return lookup.sample(session, job, which)

    if query.predicted_labels or query.verdicts:
        job = loading.job_of(job_id)
        if kinds.of(job.kind).has_reference_classifier:
            return downloads.send_picture(plots.classified_samples(job, find()), "image/png")
    return downloads.send_artifact(core().artifacts, find, cache=downloads.cache_of(which), draw=plots.shown_samples)


@samples_blueprint.get("/jobs/<job_id>/samples.gif")
@endpoint(
    TAG,
    "image/gif",
    **downloads.DRAWN,
    query=PictureQuery,
    problems=(*downloads.PROBLEMS, "not_yet", "busy"),
    shows_examples=True,
    is_shown_by_links=True,
)
def film(job_id: str) -> Response:
    """Show all sample grids as an animated GIF.

    It has at most 120 frames, evenly spaced. `samples.webp` has the same pixels in less than half the bytes.
    """
    return _film(job_id, "gif")


@samples_blueprint.get("/jobs/<job_id>/samples.webp")
@endpoint(
    TAG,
    "image/webp",
    **downloads.DRAWN,
    query=PictureQuery,
    problems=(*downloads.PROBLEMS, "not_yet", "busy"),
    shows_examples=True,
    is_shown_by_links=True,
)
def small_film(job_id: str) -> Response:
    """Show all sample grids as an animated WebP.

    It has the same pixels as `samples.gif` in 10% to 40% of the bytes.
    """
    return _film(job_id, "webp")


def _film(job_id: str, fmt: AnimationFormat) -> Response:
    job = loading.job_of(job_id)
    return downloads.send_picture(plots.film(job, fmt), f"image/{fmt}")


plots_blueprint: Final = Blueprint("plots", __name__)

_PLOTS: Final = tuple(dict.fromkeys(name for kind in kinds.ALL for name in kind.plots))


@plots_blueprint.get("/jobs/<job_id>/plots/<which>.<form>")
@endpoint(
    TAG,
    "image/png",
    **downloads.DRAWN,
    query=PlotQuery,
    problems=(*loading.PROBLEMS, "not_found", "dataset_unavailable"),
    shows_examples=lambda path: path["which"] == "residuals",
    path_examples={"which": "curves"},
    is_shown_by_links=True,
)
def plot(job_id: str, which: str, form: str, query: PlotQuery) -> Response:
    """Draw a plot: `curves`, `confusion`, `calibration`, `residuals` or `importance` (of a table), `.png` or `.svg`."""
    job = loading.job_of(job_id)
    if which not in _PLOTS or form not in plots.MEDIA_TYPES:
        raise Problem("not_found", f"there is no such plot; available: {', '.join(_PLOTS)}, as .png or .svg")
    drawn = plots.draw(job, which, cast(plots.Format, form), query.checkpoint)
    return downloads.send_picture(drawn, plots.MEDIA_TYPES[form])
