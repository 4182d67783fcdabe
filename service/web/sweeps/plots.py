"""Plots of a sweep, drawn on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from flask import Blueprint, Response

from service.spec.metric_info import describe
from service.storage.sweep_tables import Sweep
from service.sweeps import queries
from service.sweeps.curves import Curve, curves
from service.web.core.core import core, owner
from service.web.http import downloads, slots
from service.web.http.downloads import Picture, picture
from service.web.http.endpoint import endpoint
from service.web.http.problems import Problem
from service.web.jobs.plots import MEDIA_TYPES, Format
from service.web.sweeps.schemas import CurvePlotQuery

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
    drawn = _draw(sweep, metric, trial_curves, band=query.band, fmt=cast(Format, form))
    return downloads.send_picture(drawn, MEDIA_TYPES[form])


_BANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "range": ("low", "high", "; band: lowest to highest seed"),
    "interval": ("interval_low", "interval_high", "; band: 95% interval of the mean"),
}


def _draw(sweep: Sweep, metric: str, curves: Sequence[Curve], *, band: str, fmt: Format) -> Picture:
    """A plot of the best trials of a sweep. It is not cached: a sweep has no folder."""
    from service.pictures import trial_plots  # loads Matplotlib, which takes most of a second

    seeds = len(sweep.resolved["seeds"])
    low, high, band_note = _BANDS.get(band, ("mean", "mean", "")) if seeds > 1 else ("mean", "mean", "")
    lines = [
        trial_plots.BandedLine(
            label=f"trial {curve.trial}",
            epochs=curve.epochs,
            mean=curve.mean,
            low=getattr(curve, low),
            high=getattr(curve, high),
        )
        for curve in curves
    ]
    title = f"{sweep.name or f'sweep {sweep.id[-6:].lower()}'}: {describe(metric).label}"
    caption = f"mean of {seeds} seeds{band_note}" if seeds > 1 else "one seed"
    rungs = sweep.resolved["rungs"][:-1]
    with slots.hold(slots.DRAWING):
        return picture(trial_plots.banded(lines, metric=metric, title=title, caption=caption, rungs=rungs, fmt=fmt))
