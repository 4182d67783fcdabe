"""Plots of a sweep, drawn on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from service.spec.metric_info import describe
from service.storage.sweep_tables import Sweep
from service.sweeps.results.curves import TrialCurve
from service.web.http import slots
from service.web.http.downloads import Picture, picture
from service.web.jobs.plots import Format

_BANDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "range": ("low", "high", "; band: lowest to highest seed"),
    "interval": ("interval_low", "interval_high", "; band: 95% interval of the mean"),
}


def draw_curves(sweep: Sweep, metric: str, curves: Sequence[TrialCurve], *, band: str, fmt: Format) -> Picture:
    """A plot of the best trials of a sweep. It is not cached: a sweep has no folder."""
    from service.pictures import plots  # loads Matplotlib, which takes most of a second

    seeds = len(sweep.resolved["seeds"])
    low, high, band_note = _BANDS.get(band, ("mean", "mean", "")) if seeds > 1 else ("mean", "mean", "")
    lines = [
        plots.BandedLine(
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
        return picture(plots.banded(lines, metric=metric, title=title, caption=caption, rungs=rungs, fmt=fmt))
