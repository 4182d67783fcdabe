"""Exports: the trained model in the formats of other programs."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from flask import Blueprint, Response
from pydantic import Field, StringConstraints

from service.access.audit import Actor
from service.application.models import ExportRequest, Exports
from service.errors import ArtifactNotFound
from service.kinds.kind import Ability
from service.runtime import tracing
from service.storage.artifacts import EXPORT_NAMES, EXPORTS, ArtifactKind
from service.storage.tables import Artifact
from service.web.core.core import core, provided, read_job
from service.web.gate.access_checks import actor
from service.web.http import downloads
from service.web.http.endpoint import endpoint
from service.web.http.path_parameters import PathParameter, Values
from service.web.http.problems import Problem
from service.web.http.queries import Query, Text, WhichCheckpoint
from service.web.inference import exporting, loading
from service.web.jobs.plots import draw_curves
from service.web.models import certificates

blueprint: Final = Blueprint("exports", __name__)

TAG: Final = "Files"
TARGET: Final = PathParameter("target", f"One of {', '.join(f'`{kind}`' for kind in EXPORTS)}.", "onnx")


PROBLEMS: Final = (
    *downloads.PROBLEMS,
    "not_yet",
    "not_certifiable",
    "wrong_kind",
    "signing_unavailable",
    "dataset_not_found",
    "dataset_changed",
    "extra_missing",
    "storage_full",
    "quota_exceeded",
    "busy",
)
License = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,99}$")]
LICENSE: Final = Field(
    None,
    description="License of the model, an SPDX identifier such as `mit`, for the model card of `huggingface`. "
    "Default: that of the dataset.",
)


def _is_shown_by_links(path: Values) -> bool:
    target = EXPORT_NAMES.get(path["target"])
    return target is None or EXPORTS[target].is_shown_by_links  # an unknown format is a 404 for everybody


class ExportQuery(Query):
    """Which checkpoint to export, and under which license."""

    checkpoint: WhichCheckpoint = Field(
        "best", description="`best`, `latest`, or an epoch number. `tensorboard` always has all epochs."
    )
    license: License | None = LICENSE
    v: Text | None = Field(None, description="Ignored; a new value makes a browser load the file again.")


@blueprint.get("/jobs/<job_id>/export/<target>")
@endpoint(
    TAG,
    "application/zip",
    query=ExportQuery,
    **downloads.SAVED,
    problems=PROBLEMS,
    is_shown_by_links=_is_shown_by_links,
)
def export(job_id: str, target: str, query: ExportQuery) -> Response:
    """Export a trained model: `onnx`, `torch`, `tensorboard`, `huggingface` or `certificate`.

    `onnx` is one file, the others are zip files. The model contains its preprocessing: a classifier takes levels from 0
    to 255 and returns the probabilities of `predict`; the generator of a GAN takes latent points and returns levels.
    `torch` is a module that needs only PyTorch. `tensorboard` has event files with all metrics and samples.
    `huggingface` is a folder with a model card, the weights, and the model as ONNX and PyTorch. `certificate` is the
    folder of `GET /jobs/{job_id}/certificate`. An export is made once and kept with the job's files.
    """
    loading.job_of(job_id, Ability.EXPORT)  # first: another owner's job is a 404 for any format
    return send_export(job_id, target, query)


def send_export(job_id: str, target: str, query: ExportQuery) -> Response:
    """The response with an export."""
    find = partial(_find, job_id, _format(target), query, actor())
    return downloads.send_artifact(core().artifacts, find, cache=downloads.ASK)


def make(request: ExportRequest) -> bytes:
    """The bytes of an export."""
    with tracing.span("export", {"tapeline.export.format": request.format.value, "tapeline.job.id": request.job.id}):
        if request.format is ArtifactKind.CERTIFICATE:
            return certificates.make(request)
        return exporting.make(request, lambda: draw_curves(request.job, "png").data)


def _find(job_id: str, target: ArtifactKind, query: ExportQuery, by: Actor | None) -> Artifact:
    try:
        return provided(Exports).export(job_id, target, which=query.checkpoint, license=query.license, by=by)
    except ArtifactNotFound as error:
        with read_job(job_id) as (session, job):
            loading.require_a_checkpoint(session, job, error)
        raise


def _format(target: str) -> ArtifactKind:
    if target not in EXPORT_NAMES:
        available = ", ".join(EXPORTS)
        raise Problem("not_found", f"there is no export format {target[:40]!r}; available: {available}")
    return EXPORT_NAMES[target]
