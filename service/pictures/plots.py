"""Plots of metrics, confusion matrices and evaluations. Labels, colours and units are those of the metric table.

Uses matplotlib's object interface, without pyplot; the only global state is matplotlib's settings, which a lock
protects.
"""

import io
import logging
import math
import textwrap
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from service.pictures import fonts
from service.schema.metrics import MetricInfo, Place
from service.spec.metric_info import CHARTS, KEY_METRICS, PALETTE, describe, number

Format = Literal["png", "svg"]
Values = NDArray[np.float64]

PANELS: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    kind: {
        chart.title[0].upper() + chart.title[1:]: names
        for chart, lines in CHARTS.items()
        if chart.place is not Place.FOLDED and (names := [name for name in lines if kind in describe(name).kinds])
    }
    for kind in KEY_METRICS
}
"""The metrics of each panel, by kind of job."""
_RESIDUAL_BINS: Final = 40
_MAIN_PANELS: Final = 2
"""The first panels of a kind are always shown; the others, if they have values."""

_ERROR, _WARNING = "#D55E00", "#E69F00"  # colours of findings
_INK, _FAINT, _LINE = "#222222", "#666666", "#DDDDDD"
_MAX_TITLE, _MAX_CLASS_NAME, _MAX_COLUMN_NAME = 80, 20, 28  # characters
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # bundled with matplotlib, so that pictures are the same everywhere
    "font.size": 12,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.03,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "svg.hashsalt": "tapeline",  # reproducible ids
    "savefig.dpi": 120,
}
_MAX_DRAWN: Final = 1e30
"""Larger values are drawn as gaps, because matplotlib's axes overflow long before floats do."""
_FEW_EPOCHS: Final = 12
"""With more epochs, only points without neighbours are marked."""
_PANEL_SIZE: Final = (5.0, 3.7)  # inches
_MARK_HEIGHT: Final = 0.34
_LEGEND_WIDTH: Final = 42
"""Characters of a line in the legend of trials, whose settings may take several lines."""
_TRIAL_SPACING: Final = 0.12
"""Distance of the trials of a single epoch, whose error bars would hide each other."""
_MAX_BARS: Final = 30
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # further fonts may have no bold letters
_settings_lock = threading.Lock()


@dataclass(frozen=True)
class Mark:
    """A finding to show along the epochs: its label, its first epoch, and its last one (``None``: to the end)."""

    label: str
    since: int
    until: int | None
    is_error: bool

    @property
    def colour(self) -> str:
        """The colour of its severity."""
        return _ERROR if self.is_error else _WARNING


@dataclass(frozen=True, slots=True)
class BandedLine:
    """The line of a trial. ``mean``, ``low`` and ``high`` are as long as ``epochs``; ``None`` is a gap."""

    label: str
    epochs: Sequence[int]
    mean: Sequence[float | None]
    low: Sequence[float | None]
    high: Sequence[float | None]


def curves(
    kind: str,
    epochs: Sequence[int],
    series: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    fmt: Format = "png",
    best_epoch: int | None = None,
    marks: Sequence[Mark] = (),
) -> bytes:
    """The curves of a training: loss and accuracy or scores, diagnostics after them, and findings at the bottom.

    Args:
        kind: of training; determines the series to draw. Missing series are left out, and so are panels
            of diagnostics without any series.
        series: each as long as ``epochs``. ``None`` and values that are not finite (or, for fractions, not in [0, 2])
            are gaps.
        best_epoch: drawn as a line through all panels, with the value in the title.
        marks: findings, drawn as bars along the epochs.

    Raises:
        ValueError: unknown kind, or a series of another length than ``epochs``.
    """
    if kind not in PANELS:
        raise ValueError(f"no curves for the kind {kind!r}; there are {', '.join(PANELS)}")
    for name, values in series.items():
        if len(values) != len(epochs):
            raise ValueError(f"{name}: {len(values)} values for {len(epochs)} epochs")
    panels = [(panel, _lines(names, series)) for panel, names in PANELS[kind].items()]
    panels = panels[:_MAIN_PANELS] + [panel for panel in panels[_MAIN_PANELS:] if panel[1]]
    columns = 2 if len(panels) <= 4 else 3
    rows = -(-len(panels) // columns)
    heights = [_PANEL_SIZE[1]] * rows + ([_MARK_HEIGHT * len(marks) + 0.5] if marks else [])

    def draw(figure: Figure) -> None:
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        for index, (panel, lines) in enumerate(panels):
            axes = figure.add_subplot(grid[divmod(index, columns)])
            axes.set_title(panel)
            _draw_panel(axes, epochs, lines, best_epoch)
            for mark in marks:
                axes.axvline(mark.since, color=mark.colour, linewidth=1, alpha=0.7, zorder=0.5)
        if marks:
            _draw_marks(figure.add_subplot(grid[rows, :]), marks, epochs)

    return _draw_figure(draw, size=(columns * _PANEL_SIZE[0], sum(heights) + 0.5), title=title, fmt=fmt)


def banded(
    lines: Sequence[BandedLine],
    *,
    metric: str,
    title: str,
    caption: str,
    rungs: Sequence[int] = (),
    fmt: Format = "png",
) -> bytes:
    """The curves of trials: the mean of a metric over their seeds by epoch, with a band around it.

    Args:
        lines: at most as many as ``PALETTE`` has colours.
        caption: describes lines and bands.
        rungs: epochs after which trials were stopped, drawn as dotted lines.
    """
    info = describe(metric)
    epochs = sorted({epoch for line in lines for epoch in line.epochs})
    spacing = _TRIAL_SPACING * max(1, (epochs[-1] - epochs[0]) / 8)

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        drawn = []
        for index, (line, colour) in enumerate(zip(lines, PALETTE, strict=False)):
            mean, low, high = (_numbers(values, info) for values in (line.mean, line.low, line.high))
            drawn += [mean, low, high]
            x = np.asarray(line.epochs, float)
            if len(x) == 1:  # a band of one epoch has no width; rounding may move the mean of equal values beyond them
                x += spacing * (index - (len(lines) - 1) / 2)
                if np.isfinite(low + high).any():
                    axes.errorbar(x, mean, yerr=np.maximum([mean - low, high - mean], 0), color=colour, capsize=4)
            elif np.isfinite(low + high).any():
                shown = np.isfinite(mean) | (not info.sparse)
                axes.fill_between(x[shown], low[shown], high[shown], color=colour, alpha=0.18, linewidth=0)
            _draw_line(axes, x, mean, info, color=colour, label=textwrap.fill(line.label, _LEGEND_WIDTH))
        for rung in rungs:
            axes.axvline(rung, color=_FAINT, linewidth=1, linestyle=":", zorder=0.5)
        _scale_axes(axes, epochs, np.concatenate(drawn), info)
        axes.set(xlabel=f"epoch\n{caption}", ylabel=_drawable(info.label, 40))
        if len(lines) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="x-small")

    return _draw_figure(draw, size=(8.6, 4.6), title=title, fmt=fmt)


def confusion(
    matrix: NDArray[np.integer] | Sequence[Sequence[int]],
    *,
    class_names: Sequence[str] | None = None,
    title: str,
    fmt: Format = "png",
) -> bytes:
    """A confusion matrix: true classes as rows, predicted classes as columns, counts in the cells.

    The colour of a cell is its fraction of the row, on a non-linear scale on which even 1% is visible. The recall of
    each class is on the right of its row.

    Raises:
        ValueError: the matrix is not square, or its size differs from the number of ``class_names``.
    """
    counts = np.asarray(matrix, np.int64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(f"a confusion matrix is square, got the shape {counts.shape}")
    names = [
        _drawable(name, _MAX_CLASS_NAME) for name in fonts.legible(class_names or list(map(str, range(len(counts)))))
    ]
    if len(names) != len(counts):
        raise ValueError(f"{len(names)} class names for {len(counts)} classes")
    total, correct = int(counts.sum()), int(np.trace(counts))
    result = f"{correct / total:.2%} of {total:,} classified correctly" if total else "no predictions"
    heading = f"{title}: {result}" if title else result
    return _draw_figure(
        lambda figure: _draw_confusion(figure.subplots(), counts, names),
        size=(7.6, 7.2),
        title=heading,
        names=names,
        fmt=fmt,
    )


def calibration(
    points: Sequence[tuple[float | None, float | None, int]], *, error: float, epoch: int, fmt: Format = "png"
) -> bytes:
    """A reliability diagram: accuracy over confidence, with the number of predictions per bin below.

    Args:
        points: confidence, accuracy and count of bins of equal width; ``None`` for an empty bin.
    """

    def draw(figure: Figure) -> None:
        diagram, histogram = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
        confidences, accuracies, counts = zip(*points, strict=True)
        filled = np.array(counts) > 0
        x, y = np.array(confidences, float)[filled], np.array(accuracies, float)[filled]
        diagram.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle="--", label="perfectly calibrated")
        diagram.plot(x, y, "o-", color=PALETTE[0], linewidth=2, markersize=6, label="validation data")
        diagram.set(xlim=(0, 1), ylim=(0, 1.03), ylabel="accuracy")
        diagram.legend(loc="upper left")
        centres = (np.arange(len(points)) + 0.5) / len(points)
        histogram.bar(centres, counts, width=0.9 / len(points), color=PALETTE[5])
        histogram.set(xlabel="confidence in the predicted class", ylabel="predictions")
        _label_percent(diagram.xaxis)
        _label_percent(diagram.yaxis)

    title = f"Calibration, epoch {epoch}: mean error {error:.1%}"
    return _draw_figure(draw, size=(6.4, 6.4), title=title, fmt=fmt)


def residuals(
    targets: Values, predictions: Values, *, target: str, epoch: int, rmse: float, fmt: Format = "png"
) -> bytes:
    """Predictions over targets (n,), with the diagonal on which the two are equal, and a histogram of the differences
    below.

    Args:
        target: the name of the column.
    """
    name = _drawable(fonts.legible([target])[0], _MAX_COLUMN_NAME)

    def draw(figure: Figure) -> None:
        diagram, histogram = figure.subplots(2, 1, height_ratios=[3, 1])
        ends = [float(np.min([targets, predictions])), float(np.max([targets, predictions]))]
        diagram.plot(ends, ends, color=_FAINT, linewidth=1, linestyle="--", label="prediction = target")
        opacity = max(0.15, min(0.8, 150 / len(targets)))
        diagram.scatter(targets, predictions, s=16, color=PALETTE[0], alpha=opacity, label="validation rows")
        diagram.set_xlabel(name, parse_math=False)
        diagram.set_ylabel("prediction")
        diagram.legend(loc="upper left")
        histogram.hist(targets - predictions, bins=_RESIDUAL_BINS, color=PALETTE[5])
        histogram.axvline(0, color=_FAINT, linewidth=1)
        histogram.set(xlabel="residual: target minus prediction", ylabel="rows")

    title = f"Residuals, epoch {epoch}: RMSE {number('val_rmse', rmse)}"
    return _draw_figure(draw, size=(6.4, 6.8), title=title, names=[name], fmt=fmt)


def importance(
    bars: Sequence[tuple[str, float, float]],
    *,
    accuracy: float | None = None,
    rmse: float | None = None,
    epoch: int,
    fmt: Format = "png",
) -> bytes:
    """A bar chart of permutation importance, with the most important column on top.

    Args:
        bars: column, mean loss of accuracy or gain in RMSE, standard deviation.
        accuracy, rmse: without shuffling; of a classifier, or of a regressor.
    """
    legible = fonts.legible([name for name, _, _ in bars], "column")
    shown = sorted(zip(legible, bars, strict=True), key=lambda entry: -entry[1][1])[:_MAX_BARS]
    names = [_drawable(name, _MAX_COLUMN_NAME) for name, _ in shown]
    omitted_count = len(bars) - len(shown)

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        means, deviations = zip(*((mean, deviation) for _, (_, mean, deviation) in shown), strict=True)
        axes.barh(range(len(shown)), means, xerr=deviations, color=PALETTE[0], height=0.7)
        axes.set_yticks(range(len(shown)), names, parse_math=False)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color=_FAINT, linewidth=1)
        note = f"; {omitted_count} less important columns are not shown" if omitted_count else ""
        if accuracy is None:
            axes.set_xlabel(f"RMSE gained when the column is shuffled{note}")
        else:
            axes.xaxis.set_major_formatter(lambda ratio, _: f"{100 * ratio:g}")
            axes.set_xlabel(f"accuracy lost when the column is shuffled, in percentage points{note}")

    score = f"RMSE {number('val_rmse', rmse)}" if accuracy is None else f"accuracy {accuracy:.1%}"
    title = f"Importance of columns, epoch {epoch}: {score}"
    return _draw_figure(draw, size=(7.6, 1.6 + 0.32 * len(shown)), title=title, names=names, fmt=fmt)


def _lines(names: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> dict[str, Values]:
    """The values of the metrics of a panel that have any."""
    first_layer = next((name for name in series if name.startswith("grad_norm/")), "")
    names = [first_layer, *names] if "grad_norm" in names else names
    lines = {name: _numbers(series[name], describe(name)) for name in names if name in series}
    return {name: values for name, values in lines.items() if np.isfinite(values).any()}


def _draw_panel(axes: Axes, epochs: Sequence[int], lines: Mapping[str, Values], best_epoch: int | None) -> None:
    axes.set_xlabel("epoch")
    if not lines:
        axes.text(0.5, 0.5, "no values yet", transform=axes.transAxes, ha="center", color=_FAINT)
        axes.set(xticks=[], yticks=[])
        return
    *_, last = lines
    for name, values in lines.items():
        info, colour = describe(name), PALETTE[5] if "/" in name else PALETTE[describe(name).series - 1]
        style = "-" if name == last else (0, (5, 2))
        _draw_line(axes, np.asarray(epochs, float), values, info, color=colour, linestyle=style, label=info.label)
    _scale_axes(axes, epochs, np.concatenate([*lines.values()]), describe(last))
    if len(lines) > 1:
        axes.legend(fontsize=10)
    if best_epoch is not None and best_epoch in epochs:
        axes.axvline(best_epoch, color=_FAINT, linewidth=1, linestyle=":", zorder=0.5)
        value = float(lines[last][list(epochs).index(best_epoch)])
        if describe(last).goal is not None and math.isfinite(value):
            axes.set_title(f"{number(last, value)}, epoch {best_epoch}", loc="right", fontsize=11, color=_FAINT)


def _draw_line(axes: Axes, x: Values, y: Values, info: MetricInfo, **style: Any) -> None:
    """Draw a metric by epoch, with markers where a line alone would show nothing."""
    finite = np.isfinite(y)
    padded = np.pad(finite, 1)
    is_marked = finite if info.sparse or len(x) <= _FEW_EPOCHS else finite & ~padded[:-2] & ~padded[2:]
    shown = finite | (not info.sparse)  # the line of a sparse metric connects the values across its gaps
    axes.plot(x[shown], y[shown], linewidth=2, marker="o", markersize=5, markevery=is_marked[shown], **style)


def _scale_axes(axes: Axes, epochs: Sequence[int], values: Values, info: MetricInfo) -> None:
    """Whole epochs on the horizontal axis; on the vertical one, a scale that suits the values."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if epochs[0] == epochs[-1]:
        axes.set(xlim=(epochs[0] - 1, epochs[0] + 1), xticks=[epochs[0]])
    values = values[np.isfinite(values)]
    if not values.size:
        return
    # Nearly constant values should look constant: do not magnify rounding errors.
    middle, span = (values.max() + values.min()) / 2, 0.01 if info.percent else 0.02 * np.abs(values).max()
    if np.ptp(values) < span:
        axes.set_ylim(middle - span / 2, middle + span / 2)
    if info.percent:
        _label_percent(axes.yaxis)
        low, high = axes.get_ylim()
        high = min(high, 1.03) if values.max() <= 1 else high
        axes.set_ylim(max(low, -0.03 * high), high)
    elif values.min() > 1 / _MAX_DRAWN and values.max() > 50 * values.min():
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", useOffset=False)


def _draw_marks(axes: Axes, marks: Sequence[Mark], epochs: Sequence[int]) -> None:
    """A bar along the epochs for each finding, with its name."""
    axes.set(xlim=(epochs[0], max(epochs[-1], epochs[0] + 1)), ylim=(len(marks) - 0.5, -0.5), yticks=[])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Findings by epoch")
    axes.spines["left"].set_visible(False)
    for row, mark in enumerate(marks):
        end = epochs[-1] if mark.until is None else mark.until
        axes.barh(row, end - mark.since, left=mark.since, height=0.62, color=mark.colour)
        span = f"from epoch {mark.since} on" if mark.until is None else f"epoch {mark.since} to {mark.until}"
        text = f"{mark.label}, {span}"
        axes.text(0.006, row, text, transform=axes.get_yaxis_transform(), va="center")


def _draw_confusion(axes: Axes, counts: NDArray[np.int64], names: list[str]) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.4, 0, 1))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    size = len(counts)
    has_long_names = max(map(len, names)) > 3
    shown = range(0, size, -(-size // 20))  # only as many names as fit
    names = [names[index] for index in shown]
    axes.set_xticks(shown, names, rotation=45 if has_long_names else 0, ha="right" if has_long_names else "center")
    axes.set_yticks(shown, names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if size > 20:  # no room for figures
        return
    font_size = 11 if size <= 10 else 8
    for row, column in np.argwhere(counts):
        weight = "bold" if row == column else "normal"
        text = f"{counts[row, column]:,}"
        colour = "white" if shares[row, column] > 0.12 else _INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=font_size, fontweight=weight)
    for row in np.flatnonzero(totals).tolist():
        axes.text(size - 0.35, row, f"{shares[row, row]:.1%}", va="center", color=_FAINT, fontsize=font_size)


def _draw_figure(
    draw: Callable[[Figure], None],
    *,
    size: tuple[float, float],
    title: str,
    names: Sequence[str] = (),
    fmt: Format = "png",
) -> bytes:
    """Render a figure of ``size`` inches. ``draw`` adds the content, with these ``names``."""
    with _settings_lock, mpl.rc_context(_settings_for([title, *names])):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        # The title is user input and may contain dollar signs, which matplotlib would parse as mathematics.
        heading = _drawable(title, _MAX_TITLE)
        figure.suptitle(heading, x=0.01, ha="left", fontsize=15, fontweight="bold", parse_math=False)
        draw(figure)
        return _render(figure, fmt)


def _render(figure: Figure, fmt: Format) -> bytes:
    buffer = io.BytesIO()
    # Without date and version metadata, equal values produce equal files.
    figure.savefig(buffer, format=fmt, metadata={"Date": None} if fmt == "svg" else {"Software": None})
    return buffer.getvalue()


def _settings_for(texts: Iterable[str]) -> dict[Any, Any]:
    """The settings, with further fonts for letters of the texts that DejaVu Sans lacks."""
    families = [_SETTINGS["font.family"]]
    for path in map(str, fonts.further_fonts(texts)):
        if all(entry.fname != path for entry in font_manager.fontManager.ttflist):
            font_manager.fontManager.addfont(path)
        families.append(font_manager.get_font(path).family_name)
    return _SETTINGS | {"font.family": families}


def _label_percent(axis: Axis) -> None:
    """Label an axis of fractions in percent."""
    axis.set_major_formatter(lambda ratio, _: f"{100 * ratio:g}%")


def _drawable(text: str, length: int) -> str:
    """A text on one line, truncated to ``length``. Characters that no font has become boxes, to avoid warnings."""
    characters = [letter if fonts.font_of(letter) else "□" for letter in " ".join(text.split())]
    return "".join(characters if len(characters) <= length else [*characters[: length - 1], "…"])


def _numbers(values: Sequence[float | None], info: MetricInfo) -> Values:
    """The values that can be drawn, with NaN for gaps."""
    array = np.array([math.nan if value is None else value for value in values], float)
    low, high = (0.0, 2.0) if info.percent else (-_MAX_DRAWN, _MAX_DRAWN)
    return np.where((array >= low) & (array <= high), array, math.nan)  # comparisons with NaN are false
