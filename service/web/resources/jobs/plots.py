"""Plots of a job, drawn on request."""

from __future__ import annotations

from typing import Final, cast

from flask import Blueprint, Response

from service.jobs.queries import lookup
from service.web.endpoints import endpoint
from service.web.files import downloads
from service.web.files.drawings import MEDIA_TYPES, Format, Plot
from service.web.inference import loading, validation_results
from service.web.middleware.problems import Problem
from service.web.schemas.queries import PlotQuery
from service.web.services import owner, services

blueprint: Final = Blueprint("plots", __name__)

TAG: Final = "Files"
_PLOTS: Final = ("curves", "confusion", "calibration", "importance")


@blueprint.get("/jobs/<job_id>/plots/<which>.<form>")
@endpoint(
    TAG,
    "image/png",
    other_media=downloads.AS_OCTETS,
    query=PlotQuery,
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=(*loading.PROBLEMS, "not_found", "dataset_unavailable"),
)
def plot(job_id: str, which: str, form: str, query: PlotQuery) -> Response:
    """Draw a plot: `curves`, `confusion`, `calibration` or (of a table) `importance`, as `.png` or `.svg`."""
    with services().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
    if which not in _PLOTS or form not in MEDIA_TYPES:
        raise Problem("not_found", f"there is no such plot; available: {', '.join(_PLOTS)}, as .png or .svg")
    if which in ("calibration", "importance"):
        drawn = validation_results.plot(job, which, cast(Format, form), query.checkpoint or "best")
    else:
        drawn = services().drawings.plot(job, cast(Plot, which), cast(Format, form), query.checkpoint or "latest")
    return downloads.send_picture(drawn, MEDIA_TYPES[form])
