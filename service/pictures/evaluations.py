"""Plots about the predictions of a classifier: calibration and column importance."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.pictures import fonts, plots
from service.pictures.plots import Format
from service.spec.metric_info import PALETTE

_MOST_BARS = 30


def calibration(
    points: Sequence[tuple[float | None, float | None, int]], *, error: float, epoch: int, fmt: Format = "png"
) -> bytes:
    """A reliability diagram: accuracy over confidence, with the number of predictions per bin below.

    Args:
        points: confidence, accuracy and count of bins of equal width; ``None`` for an empty bin.
    """

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
        known = [(sure, ratio) for sure, ratio, count in points if sure is not None and ratio is not None and count]
        above.plot([0, 1], [0, 1], color="#666666", linewidth=1, linestyle="--", label="perfectly calibrated")
        above.plot(
            *zip(*known, strict=True), "o-", color=PALETTE[0], linewidth=2, markersize=6, label="validation data"
        )
        above.set(xlim=(0, 1), ylim=(0, 1.03), ylabel="accuracy")
        above.legend(frameon=False, loc="upper left")
        width = 1 / len(points)
        centres = [(place + 0.5) * width for place in range(len(points))]
        below.bar(centres, [count for _, _, count in points], width=0.9 * width, color=PALETTE[5])
        below.set(xlabel="confidence in the predicted class", ylabel="predictions")
        plots.label_percent(above.xaxis)
        plots.label_percent(above.yaxis)

    return plots.drawn(draw, size=(6.4, 6.4), title=f"Calibration, epoch {epoch}: mean error {error:.1%}", fmt=fmt)


def importance(bars: Sequence[tuple[str, float, float]], *, accuracy: float, epoch: int, fmt: Format = "png") -> bytes:
    """A bar chart of permutation importance, with the most important column on top.

    Args:
        bars: column, mean loss of accuracy, standard deviation.
        accuracy: the accuracy without shuffling.
    """
    legible = fonts.legible([name for name, _, _ in bars], "column")
    shown = sorted(zip(legible, bars, strict=True), key=lambda named: -named[1][1])[:_MOST_BARS]
    names = [plots.drawable(name, 28) for name, _ in shown]
    left_out = len(bars) - len(shown)

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        places = range(len(shown))
        means, deviations = [mean for _, (_, mean, _) in shown], [deviation for _, (_, _, deviation) in shown]
        axes.barh(places, means, xerr=deviations, color=PALETTE[0], height=0.7)
        axes.set_yticks(places, names, parse_math=False)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color="#666666", linewidth=1)
        axes.xaxis.set_major_formatter(lambda ratio, _: f"{100 * ratio:g}")
        more = f"; {left_out} less important columns are not shown" if left_out else ""
        axes.set_xlabel(f"accuracy lost when the column is shuffled, in percentage points{more}")

    title = f"Importance of columns, epoch {epoch}: accuracy {accuracy:.1%}"
    return plots.drawn(draw, size=(7.6, 1.6 + 0.32 * len(shown)), title=title, names=names, fmt=fmt)
