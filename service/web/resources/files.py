"""The files of a job: checkpoints, pictures of samples, plots, and the list of all."""

from __future__ import annotations

from typing import Final, cast

from flask import Blueprint, Response

from service.contract import jobs
from service.contract.artifacts import ArtifactKind
from service.contract.tables import Artifact, Job
from service.web import downloads, queries, representations
from service.web.answers import as_json
from service.web.drawings import Format, Picture, Plot
from service.web.operations import documented
from service.web.problems import Problem
from service.web.queries import NoQuery, PictureQuery
from service.web.representations import ArtifactList, CheckpointList, SampleList
from service.web.services import owner, services

blueprint: Final = Blueprint("files", __name__)

TAG: Final = "Files"
_FILE_HEADERS: Final = ("Range", "If-Range", "If-None-Match", "If-Match")
_PART: Final[dict[int, str | type]] = {206: "The part that `Range` names.", 304: "The client has it."}
_FILE_PROBLEMS: Final = (
    "job_not_found",
    "artifact_not_found",
    "precondition_failed",
    "range_not_satisfiable",
    "artifact_damaged",
)
_MEDIA: Final = {"png": "image/png", "svg": "image/svg+xml"}


@blueprint.get("/jobs/<job_id>/checkpoints")
@documented(TAG, CheckpointList, problems=("job_not_found",))
def checkpoints(job_id: str) -> Response:
    """List the checkpoints that are kept: the last few, and the best."""
    queries.read_query(NoQuery)
    with services().database.read() as session:
        job = jobs.get(session, job_id, owner=owner())
        rows = jobs.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
    data = [
        representations.checkpoint_item(row, best_epoch=job.best_epoch, latest_epoch=rows[-1].epoch) for row in rows
    ]
    return as_json(CheckpointList(data=data))


@blueprint.get("/jobs/<job_id>/checkpoints/<which>")
@documented(TAG, "application/octet-stream", headers=_FILE_HEADERS, also=_PART, problems=_FILE_PROBLEMS)
def checkpoint(job_id: str, which: str) -> Response:
    """Download a checkpoint: `best`, `latest`, or the number of an epoch. A safetensors file."""
    queries.read_query(NoQuery)
    database = services().database

    def find() -> Artifact:
        with database.read() as session:
            return jobs.checkpoint(session, jobs.get(session, job_id, owner=owner()), which)

    def name(row: Artifact) -> str:
        return f"{job_id}-epoch-{row.epoch:04d}.safetensors"

    cache = downloads.FOREVER if which.isdigit() else downloads.ASK
    return downloads.send_artifact(services().artifacts, find, name=name, cache=cache)


@blueprint.get("/jobs/<job_id>/samples")
@documented(TAG, SampleList, problems=("job_not_found",))
def samples(job_id: str) -> Response:
    """List the pictures of samples, an epoch each."""
    queries.read_query(NoQuery)
    with services().database.read() as session:
        jobs.get(session, job_id, owner=owner())
        rows = jobs.artifacts(session, job_id, ArtifactKind.SAMPLE)
    data = [representations.sample_item(row) for row in rows]
    return as_json(SampleList(data=data, film=representations.film_url(job_id, rows)))


@blueprint.get("/jobs/<job_id>/samples/<which>.png")
@documented(TAG, "image/png", headers=_FILE_HEADERS, also=_PART, problems=_FILE_PROBLEMS)
def sample(job_id: str, which: str) -> Response:
    """Show a picture of samples: `latest`, or the number of an epoch.

    A GAN's is drawn from the same noise each time; a classifier's shows digits with its predictions.
    """
    queries.read_query(NoQuery)
    database = services().database

    def find() -> Artifact:
        with database.read() as session:
            return jobs.sample(session, jobs.get(session, job_id, owner=owner()), which)

    cache = downloads.FOREVER if which.isdigit() else downloads.ASK
    return downloads.send_artifact(services().artifacts, find, name=None, cache=cache)


@blueprint.get("/jobs/<job_id>/samples.gif")
@documented(
    TAG,
    "image/gif",
    query=PictureQuery,
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=_FILE_PROBLEMS,
)
def film(job_id: str) -> Response:
    """Show all pictures of samples, one after the other."""
    queries.read_query(PictureQuery)
    return _send(services().drawings.film(_job(job_id)), "image/gif")


@blueprint.get("/jobs/<job_id>/plots/<which>.<form>")
@documented(
    TAG,
    "image/png",
    query=PictureQuery,
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=("job_not_found", "not_yet"),
)
def plot(job_id: str, which: str, form: str) -> Response:
    """Draw `curves` or `confusion`, as `.png` or `.svg`."""
    queries.read_query(PictureQuery)
    job = _job(job_id)
    if which not in ("curves", "confusion") or form not in _MEDIA:
        raise Problem("not_found", "there are curves and confusion, each as .png and .svg")
    return _send(services().drawings.plot(job, cast(Plot, which), cast(Format, form)), _MEDIA[form])


@blueprint.get("/jobs/<job_id>/artifacts")
@documented(TAG, ArtifactList, problems=("job_not_found",))
def artifacts(job_id: str) -> Response:
    """List all files of a job, each with its size and SHA-256."""
    queries.read_query(NoQuery)
    with services().database.read() as session:
        jobs.get(session, job_id, owner=owner())
        rows = jobs.artifacts(session, job_id)
    return as_json(ArtifactList(data=[representations.artifact_item(row) for row in rows]))


@blueprint.get("/jobs/<job_id>/artifacts/<artifact_id>")
@documented(TAG, "application/octet-stream", headers=_FILE_HEADERS, also=_PART, problems=_FILE_PROBLEMS)
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


def _job(job_id: str) -> Job:
    with services().database.read() as session:
        return jobs.get(session, job_id, owner=owner())


def _send(picture: Picture, media_type: str) -> Response:
    return downloads.send_bytes(picture.data, media_type, picture.etag)
