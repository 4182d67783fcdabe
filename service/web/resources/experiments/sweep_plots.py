"""Plots of a sweep, drawn on request."""

from __future__ import annotations

from typing import Final, cast

from flask import Blueprint, Response

from service.sweeps import queries
from service.sweeps.curves import curves
from service.web.core.core import core, owner
from service.web.files import drawings
from service.web.files.drawings import MEDIA_TYPES, Format
from service.web.http import downloads
from service.web.http.endpoint import endpoint
from service.web.http.problems import Problem
from service.web.schemas.experiments.sweeps import CurvePlotQuery

blueprint: Final = Blueprint("sweep_plots", __name__)

TAG: Final = "Experiments"


@blueprint.get("/sweeps/<sweep_id>/plots/<which>.<form>")
@endpoint(
    TAG,
    "image/png",
    other_media=downloads.AS_OCTETS,
    query=CurvePlotQuery,
    headers=("If-None-Match",),
    also={304: "The client has it."},
    problems=("sweep_not_found", "not_found", "not_yet", "busy"),
)
def plot(sweep_id: str, which: str, form: str, query: CurvePlotQuery) -> Response:
    """Draw the curves of a sweep's best trials, `curves` as `.png` or `.svg`: means over the seeds, with a band."""
    with core().database.read() as session:
        sweep = queries.get(session, sweep_id, owner=owner())
        if which != "curves" or form not in MEDIA_TYPES:
            raise Problem("not_found", "there is no such plot; available: curves, as .png or .svg")
        metric = query.metric or sweep.resolved["objective"]["metric"]
        trial_curves = curves(session, sweep, metric, limit=query.limit)
    if not trial_curves:
        raise Problem("not_yet", f"no trial has a value of {metric} yet")
    picture = drawings.sweep_curves(sweep, metric, trial_curves, band=query.band, fmt=cast(Format, form))
    return downloads.send_picture(picture, MEDIA_TYPES[form])
