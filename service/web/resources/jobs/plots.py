"""Plots of a job, drawn on request."""

from __future__ import annotations

from typing import Final, cast

from flask import Blueprint, Response

from service.jobs.queries import lookup
from service.web.core.core import core, owner, provided
from service.web.files.drawings import MEDIA_TYPES, Drawings, Format, Plot
from service.web.http import downloads
from service.web.http.endpoint import endpoint
from service.web.http.problems import Problem
from service.web.inference import loading, validation_results
from service.web.schemas.queries import PlotQuery

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
    with core().database.read() as session:
        job = lookup.get(session, job_id, owner=owner())
    if which not in _PLOTS or form not in MEDIA_TYPES:
        raise Problem("not_found", f"there is no such plot; available: {', '.join(_PLOTS)}, as .png or .svg")
    if which in ("calibration", "importance"):
        drawn = validation_results.plot(job, which, cast(Format, form), query.checkpoint or "best")
    else:
        drawn = provided(Drawings).plot(job, cast(Plot, which), cast(Format, form), query.checkpoint or "latest")
    return downloads.send_picture(drawn, MEDIA_TYPES[form])
