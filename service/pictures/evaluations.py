"""Plots about the predictions of a classifier: calibration and column importance."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.pictures import fonts, plots
from service.pictures.plots import Format
from service.spec.metric_info import PALETTE

_MAX_BARS = 30


def calibration(
    points: Sequence[tuple[float | None, float | None, int]], *, error: float, epoch: int, fmt: Format = "png"
) -> bytes:
    """A reliability diagram: accuracy over confidence, with the number of predictions per bin below.

    Args:
        points: confidence, accuracy and count of bins of equal width; ``None`` for an empty bin.
    """

    def draw(figure: Figure) -> None:
        diagram, histogram = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
        filled_bins = [
            (confidence, accuracy)
            for confidence, accuracy, count in points
            if confidence is not None and accuracy is not None and count
        ]
        diagram.plot([0, 1], [0, 1], color="#666666", linewidth=1, linestyle="--", label="perfectly calibrated")
        diagram.plot(
            *zip(*filled_bins, strict=True), "o-", color=PALETTE[0], linewidth=2, markersize=6, label="validation data"
        )
        diagram.set(xlim=(0, 1), ylim=(0, 1.03), ylabel="accuracy")
        diagram.legend(frameon=False, loc="upper left")
        width = 1 / len(points)
        centres = [(index + 0.5) * width for index in range(len(points))]
        histogram.bar(centres, [count for _, _, count in points], width=0.9 * width, color=PALETTE[5])
        histogram.set(xlabel="confidence in the predicted class", ylabel="predictions")
        plots.label_percent(diagram.xaxis)
        plots.label_percent(diagram.yaxis)

    return plots.draw_figure(
        draw, size=(6.4, 6.4), title=f"Calibration, epoch {epoch}: mean error {error:.1%}", fmt=fmt
    )


def importance(bars: Sequence[tuple[str, float, float]], *, accuracy: float, epoch: int, fmt: Format = "png") -> bytes:
    """A bar chart of permutation importance, with the most important column on top.

    Args:
        bars: column, mean loss of accuracy, standard deviation.
        accuracy: the accuracy without shuffling.
    """
    legible = fonts.legible([name for name, _, _ in bars], "column")
    shown = sorted(zip(legible, bars, strict=True), key=lambda entry: -entry[1][1])[:_MAX_BARS]
    names = [plots.drawable(name, 28) for name, _ in shown]
    omitted_count = len(bars) - len(shown)

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        positions = range(len(shown))
        means, deviations = [mean for _, (_, mean, _) in shown], [deviation for _, (_, _, deviation) in shown]
        axes.barh(positions, means, xerr=deviations, color=PALETTE[0], height=0.7)
        axes.set_yticks(positions, names, parse_math=False)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color="#666666", linewidth=1)
        axes.xaxis.set_major_formatter(lambda ratio, _: f"{100 * ratio:g}")
        note = f"; {omitted_count} less important columns are not shown" if omitted_count else ""
        axes.set_xlabel(f"accuracy lost when the column is shuffled, in percentage points{note}")

    title = f"Importance of columns, epoch {epoch}: accuracy {accuracy:.1%}"
    return plots.draw_figure(draw, size=(7.6, 1.6 + 0.32 * len(shown)), title=title, names=names, fmt=fmt)
