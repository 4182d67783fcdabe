"""Plots of curves and confusion matrices. Uses matplotlib's object interface, without pyplot; the only global state is
matplotlib's settings, which a lock protects."""

import io
import logging
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from service.pictures import fonts
from service.pictures.panels import DOTTED, HEALTH_PANELS, MAIN_PANELS, Line, Panel
from service.spec.metric_info import PALETTE

Format = Literal["png", "svg"]

_ERROR, _WARNING = "#D55E00", "#E69F00"  # colours of findings
_TEXT_COLOURS = {PALETTE[5]: "#1B76AE"}  # a darker shade for thin letters
_INK, _FAINT, _LINE = "#222222", "#666666", "#DDDDDD"
_MAX_TITLE, _MAX_CLASS_NAME = 80, 20  # characters
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
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "svg.hashsalt": "tapeline",  # reproducible ids
    "savefig.dpi": 120,
}
MAX_DRAWN = 1e30  # larger values are drawn as gaps, because matplotlib's axes overflow long before floats do
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # fonts of the system may have no bold letters
_settings_lock = threading.Lock()  # matplotlib's settings are global


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A finding to show along the epochs: its label, its first epoch, and its last one (``None``: to the end)."""

    label: str
    since: int
    until: int | None
    is_error: bool


_PANEL_SIZE = (5.0, 3.7)  # inches
_MARK_HEIGHT = 0.34


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
        kind: ``classifier`` or ``gan``; determines the series to draw. Missing series are left out, and so are panels
            of diagnostics without any series.
        series: each as long as ``epochs``. ``None`` and values that are not finite (or, for fractions, not in [0, 2])
            are gaps.
        best_epoch: drawn as a line through all panels, labelled with the value.
        marks: findings, drawn as bars along the epochs.

    Raises:
        ValueError: unknown kind, or a series of another length than ``epochs``.
    """
    if kind not in MAIN_PANELS:
        raise ValueError(f"no curves for the kind {kind!r}; there are {', '.join(MAIN_PANELS)}")
    for name, values in series.items():
        if len(values) != len(epochs):
            raise ValueError(f"{name}: {len(values)} values for {len(epochs)} epochs")
    panels = list(MAIN_PANELS[kind])
    panels += [panel for panel in HEALTH_PANELS[kind] if any(_values(line, panel, series) for line in panel.lines)]
    columns = 2 if len(panels) <= 4 else 3
    rows = -(-len(panels) // columns)
    heights = [_PANEL_SIZE[1]] * rows + ([_MARK_HEIGHT * len(marks) + 0.5] if marks else [])
    with _settings_lock, mpl.rc_context(_settings_for([title])):
        figure = Figure(
            figsize=(columns * _PANEL_SIZE[0], sum(heights) + 0.5),
            layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1),
        )
        FigureCanvasAgg(figure)
        _set_title(figure, title)
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(grid[divmod(index, columns)])
            _draw_panel(axes, panel, epochs, series, best_epoch)
            for mark in marks:
                axes.axvline(mark.since, color=_mark_colour(mark), linewidth=1, alpha=0.7, zorder=0.5)
        if marks:
            _draw_marks(figure.add_subplot(grid[rows, :]), marks, epochs)
        return _render(figure, fmt)


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
    names = (
        [str(label) for label in range(len(counts))]
        if class_names is None
        else [drawable(name, _MAX_CLASS_NAME) for name in fonts.legible(class_names)]
    )
    if len(names) != len(counts):
        raise ValueError(f"{len(names)} class names for {len(counts)} classes")
    with _settings_lock, mpl.rc_context(_settings_for([title, *names])):
        figure = Figure(figsize=(7.6, 7.2), layout="constrained")
        FigureCanvasAgg(figure)
        total, correct = int(counts.sum()), int(np.trace(counts))
        result = f"{correct / total:.2%} of {total:,} classified correctly" if total else "no predictions"
        _set_title(figure, f"{title}: {result}" if title else result)
        _draw_confusion(figure.subplots(), counts, names)
        return _render(figure, fmt)


def draw_figure(
    draw: Callable[[Figure], None],
    *,
    size: tuple[float, float],
    title: str,
    names: Sequence[str] = (),
    fmt: Format = "png",
) -> bytes:
    """Render a figure of ``size`` inches in the same style. ``draw`` adds the content, with these ``names``."""
    with _settings_lock, mpl.rc_context(_settings_for([title, *names])):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        _set_title(figure, title)
        draw(figure)
        return _render(figure, fmt)


def _settings_for(texts: Iterable[str]) -> dict[Any, Any]:
    """The settings, with fonts of the system for letters of the texts that DejaVu Sans lacks."""
    families = []
    for path in map(str, fonts.system_fonts(texts)):
        if all(entry.fname != path for entry in font_manager.fontManager.ttflist):
            font_manager.fontManager.addfont(path)
        families.append(font_manager.get_font(path).family_name)
    return _SETTINGS | {"font.family": [_SETTINGS["font.family"], *families]} if families else _SETTINGS


def label_percent(axis: Axis) -> None:
    """Label an axis of fractions in percent."""
    axis.set_major_formatter(lambda ratio, _: f"{100 * ratio:g}%")


def _draw_panel(
    axes: Axes,
    panel: Panel,
    epochs: Sequence[int],
    series: Mapping[str, Sequence[float | None]],
    best_epoch: int | None,
) -> None:
    axes.set_title(panel.title)
    axes.set_xlabel("epoch")
    x = np.asarray(epochs, float)
    plotted: list[tuple[Line, NDArray[np.float64]]] = []
    for line in panel.lines:
        y = np.array(_values(line, panel, series), float)
        if not y.size:
            continue
        is_finite = np.isfinite(y)
        shown = is_finite if line.sparse else np.ones_like(is_finite)
        axes.plot(x[shown], y[shown], color=line.colour, linestyle=line.style, linewidth=2)
        dots = is_finite if line.sparse or len(x) <= 12 else _isolated_mask(y)  # a line needs two points
        # Markers at the first and the last epoch are not clipped, and must not change the limits of the panel.
        (points,) = axes.plot(x[dots], y[dots], "o", color=line.colour, markersize=5, clip_on=False)
        points.set_in_layout(False)
        plotted.append((line, y))
    if not plotted:
        axes.text(0.5, 0.5, "no values yet", transform=axes.transAxes, ha="center", color=_FAINT)
        axes.set(xticks=[], yticks=[])
        return
    _label_epochs(axes, epochs, 8)
    values = np.concatenate([y[np.isfinite(y)] for _, y in plotted])
    # Nearly constant values should look constant: do not magnify rounding errors.
    middle, span = (values.max() + values.min()) / 2, 0.01 if panel.percent else 0.02 * np.abs(values).max()
    if np.ptp(values) < span:
        axes.set_ylim(middle - span / 2, middle + span / 2)
    if panel.percent:
        label_percent(axes.yaxis)
        low, high = axes.get_ylim()
        high = max(min(high, 1.03) if values.max() <= 1 else high, 1.03 * panel.min_upper)
        axes.set_ylim(-0.03 * high if panel.min_upper else max(low, -0.03), high)
    elif values.min() > 1 / MAX_DRAWN and values.max() > 50 * values.min():
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", useOffset=False)
    _label_ends(axes, [(line, float(y[np.isfinite(y)][-1])) for line, y in plotted])
    if best_epoch is not None and best_epoch in epochs:
        axes.axvline(best_epoch, color=_FAINT, linewidth=1, linestyle=DOTTED, zorder=0.5)
        if panel.best:
            _mark_best(axes, panel, best_epoch, float(plotted[-1][1][list(epochs).index(best_epoch)]))


def _values(line: Line, panel: Panel, series: Mapping[str, Sequence[float | None]]) -> list[float]:
    """The values of a line, with NaN for gaps; empty if there are only gaps."""
    name = next((name for name in series if name == line.name or _matches_pattern(name, line.name)), None)
    if name is None:
        return []
    bounds = (0.0, 2.0) if panel.percent else (-MAX_DRAWN, MAX_DRAWN)
    values = [_nan_unless_within(value, *bounds) for value in series[name]]
    return values if any(map(math.isfinite, values)) else []


def _matches_pattern(name: str, pattern: str) -> bool:
    return pattern.endswith("*") and name.startswith(pattern[:-1])


def _epoch_limits(epochs: Sequence[int]) -> tuple[float, float]:
    """The limits of the horizontal axis, the same in all panels: the first and the last epoch."""
    return (epochs[0], epochs[-1]) if len(epochs) > 1 else (epochs[0] - 0.5, epochs[0] + 0.5)


def _label_epochs(axes: Axes, epochs: Sequence[int], max_labels: int) -> None:
    """Label the epochs on the horizontal axis, including the first one."""
    low, high = _epoch_limits(epochs)
    ticks = MaxNLocator(integer=True, nbins=max_labels, steps=[1, 2, 5, 10], min_n_ticks=1).tick_values(low, high)
    min_distance = 0.6 * (ticks[1] - ticks[0]) if len(ticks) > 1 else 1.0
    shown = [epochs[0], *(tick for tick in ticks if epochs[0] + min_distance <= tick <= high)]
    axes.set(xlim=(low, high), xticks=shown)


def _label_ends(axes: Axes, ends: list[tuple[Line, float]]) -> None:
    """Write the name of each line next to its end, and move names apart if they would overlap."""
    ordered = sorted(((_height(axes, value), line) for line, value in ends), key=lambda end: end[0])
    heights = [height for height, _ in ordered]
    min_distance = 0.085  # height of a line of text, relative to the panel
    for _ in ordered:  # moving two names apart can bring one of them too close to a third
        for index in range(1, len(heights)):
            overlap = min_distance - (heights[index] - heights[index - 1])
            if overlap > 1e-9:
                heights[index - 1] -= overlap / 2
                heights[index] += overlap / 2
    for height, (_, line) in zip(heights, ordered, strict=True):
        colour = _TEXT_COLOURS.get(line.colour, line.colour)
        axes.text(1.02, height, line.label, color=colour, transform=axes.transAxes, va="center")


def _height(axes: Axes, value: float) -> float:
    """The position of ``value`` on the vertical axis, from 0 (bottom) to 1 (top)."""
    axes.autoscale_view()  # matplotlib would defer it until drawing
    return float((axes.transScale + axes.transLimits).transform((1.0, value))[1])


def _mark_best(axes: Axes, panel: Panel, epoch: int, value: float) -> None:
    if not math.isfinite(value):
        return
    (ring,) = axes.plot(
        [epoch],
        [value],
        "o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor=_INK,
        markeredgewidth=1.5,
        clip_on=False,
    )
    ring.set_in_layout(False)
    axes.set_title(f"best {panel.best.format(value)}, epoch {epoch}", loc="right", fontsize=11, color=_FAINT)


def _mark_colour(mark: Mark) -> str:
    return _ERROR if mark.is_error else _WARNING


def _draw_marks(axes: Axes, marks: Sequence[Mark], epochs: Sequence[int]) -> None:
    """A bar along the epochs for each finding, with its name inside or next to it."""
    low, high = _epoch_limits(epochs)
    axes.set(ylim=(len(marks) - 0.5, -0.5), yticks=[])
    axes.set_title("Findings by epoch")
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    _label_epochs(axes, epochs, 16)
    for row, mark in enumerate(marks):
        end = high if mark.until is None else float(mark.until)
        axes.barh(row, end - mark.since, left=mark.since, height=0.62, color=_mark_colour(mark))
        until = "" if mark.until is None else f" to {mark.until}"
        text = f"{mark.label}, epoch {mark.since}{until}" if until else f"{mark.label}, from epoch {mark.since} on"
        is_on_left = mark.since - low > 0.5 * (high - low)
        outside_x = mark.since - 0.006 * (high - low) if is_on_left else end + 0.006 * (high - low)
        is_inside = not is_on_left and end - mark.since > 0.3 * (high - low)
        axes.text(
            mark.since + 0.006 * (high - low) if is_inside else outside_x,
            row,
            text,
            va="center",
            ha="right" if is_on_left else "left",
            color="white" if is_inside and mark.is_error else _INK,
            fontweight="bold" if is_inside else "normal",
        )


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
        is_dark = shares[row, column] > 0.12
        weight = "bold" if row == column else "normal"
        text = f"{counts[row, column]:,}"
        colour = "white" if is_dark else _INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=font_size, fontweight=weight)
    for row in range(size):
        if totals[row, 0]:
            axes.text(size - 0.35, row, f"{shares[row, row]:.1%}", va="center", color=_FAINT, fontsize=font_size)


def _set_title(figure: Figure, title: str) -> None:
    # The title is user input and may contain dollar signs, which matplotlib would parse as mathematics.
    figure.suptitle(drawable(title, _MAX_TITLE), x=0.01, ha="left", fontsize=15, fontweight="bold", parse_math=False)


def drawable(text: str, length: int) -> str:
    """A text on one line, truncated to ``length``. Characters that no font has become boxes, to avoid warnings."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    characters = [
        character if font.get_char_index(ord(character)) or fonts.is_drawable(character) else "□"
        for character in " ".join(text.split())
    ]
    return "".join(characters if len(characters) <= length else [*characters[: length - 1], "…"])


def _nan_unless_within(value: float | None, low: float, high: float) -> float:
    return value if value is not None and low <= value <= high else math.nan  # comparisons with NaN are false


def _isolated_mask(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """A mask of the values that have gaps on both sides."""
    is_finite = np.pad(np.isfinite(values), 1)
    return np.asarray(is_finite[1:-1] & ~is_finite[:-2] & ~is_finite[2:])


def _render(figure: Figure, fmt: Format) -> bytes:
    buffer = io.BytesIO()
    # Without date and version metadata, equal values produce equal files.
    figure.savefig(buffer, format=fmt, metadata={"Date": None} if fmt == "svg" else {"Software": None})
    return buffer.getvalue()
