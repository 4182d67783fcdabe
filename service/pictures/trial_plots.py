"""A plot of trials: the mean of a metric over their seeds by epoch, with a band around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from service.pictures import plots
from service.pictures.plots import Format
from service.spec.metric_info import PALETTE, describe

_SIZE = (8.6, 4.6)  # inches
_MANY_EPOCHS = 40  # with more epochs, points are not marked
_TRIAL_SPACING = 0.12  # epochs between trials of a single epoch; more if the axis is long


@dataclass(frozen=True, slots=True, kw_only=True)
class BandedLine:
    """The line of a trial. ``mean``, ``low`` and ``high`` are as long as ``epochs``; ``None`` is a gap."""

    label: str
    epochs: Sequence[int]
    mean: Sequence[float | None]
    low: Sequence[float | None]
    high: Sequence[float | None]


def banded(
    lines: Sequence[BandedLine],
    *,
    metric: str,
    title: str,
    caption: str,
    rungs: Sequence[int] = (),
    fmt: Format = "png",
) -> bytes:
    """Draw a line with a band for each trial.

    Args:
        lines: at most as many as ``PALETTE`` has colours.
        caption: describes lines and bands.
        rungs: epochs after which trials were stopped, drawn as dotted lines.
    """

    info = describe(metric)

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        epochs = [epoch for line in lines for epoch in line.epochs]
        epoch_span = max(epochs) - min(epochs)
        spacing = _TRIAL_SPACING * max(1, epoch_span / 8)
        for index, (line, colour) in enumerate(zip(lines, PALETTE, strict=False)):
            is_single = len(line.epochs) == 1  # without a shift, the error bars would hide each other
            shift = spacing * (index - (len(lines) - 1) / 2) if is_single else 0.0
            _draw(axes, line, colour, shift=shift, is_sparse=info.sparse)
        for rung in rungs:
            axes.axvline(rung, color="#666666", linewidth=1, linestyle=":", zorder=0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not epoch_span:
            axes.set(xlim=(epochs[0] - 1, epochs[0] + 1), xticks=[epochs[0]])
        axes.set(xlabel=f"epoch\n{caption}", ylabel=plots.drawable(info.label, 40))
        if info.percent:
            plots.label_percent(axes.yaxis)
        else:
            axes.ticklabel_format(axis="y", useOffset=False)
        if len(lines) > 1:
            axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))

    return plots.draw_figure(draw, size=_SIZE, title=title, fmt=fmt)


def _draw(axes: Axes, line: BandedLine, colour: str, *, shift: float, is_sparse: bool) -> None:
    x = np.asarray(line.epochs, float) + shift
    mean, low, high = (_numbers(values) for values in (line.mean, line.low, line.high))
    shown = np.isfinite(mean) if is_sparse else np.ones(len(x), bool)
    marker = "o" if len(x) <= _MANY_EPOCHS else ""
    axes.plot(x[shown], mean[shown], color=colour, linewidth=2, marker=marker, markersize=4, label=line.label)
    if not np.isfinite(low + high).any():
        return
    if len(x) == 1:  # a band of one epoch has no width; rounding may move the mean of equal values beyond them
        axes.errorbar(x, mean, yerr=np.maximum([mean - low, high - mean], 0), color=colour, capsize=4)
        return
    axes.fill_between(x[shown], low[shown], high[shown], color=colour, alpha=0.18, linewidth=0)


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array(
        [value if value is not None and abs(value) < plots.MAX_DRAWN else math.nan for value in values], float
    )
