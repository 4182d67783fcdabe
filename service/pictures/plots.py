"""Curves and the confusion matrix, by matplotlib's objects: no pyplot, no state but the settings under a lock."""

import io
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Format = Literal["png", "svg"]

# Okabe and Ito's palette (2008), told apart by every kind of colour vision.
_BLUE, _VERMILLION, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_INK, _FAINT, _LINE = "#222222", "#666666", "#DDDDDD"
_MAX_TITLE, _MAX_CLASS_NAME = 80, 20  # characters
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
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
    "svg.hashsalt": "tapeline",  # the same ids each time
    "savefig.dpi": 120,
}
_MOST = 1e30  # what is larger is a gap: matplotlib's axes overflow long before a float does
_settings_lock = threading.Lock()  # matplotlib's settings belong to the process


@dataclass(frozen=True)
class _Line:
    names: tuple[str, ...]  # of the series, the first that there is
    label: str
    colour: str
    style: Any = "-"


@dataclass(frozen=True)
class _Panel:
    title: str
    lines: tuple[_Line, ...]
    percent: bool = False


_DASHED = (0, (5, 2))
_PANELS: dict[str, tuple[_Panel, ...]] = {
    "classifier": (
        _Panel(
            "Loss",
            (
                _Line(("train_loss", "loss"), "training", _BLUE, _DASHED),
                _Line(("validation_loss", "val_loss"), "validation", _VERMILLION),
            ),
        ),
        _Panel(
            "Accuracy",
            (
                _Line(("train_accuracy", "accuracy"), "training", _BLUE, _DASHED),
                _Line(("validation_accuracy", "val_accuracy"), "validation", _VERMILLION),
            ),
            percent=True,
        ),
    ),
    "gan": (
        _Panel(
            "Loss",
            (
                _Line(("d_loss",), "discriminator", _BLUE, _DASHED),
                _Line(("g_loss",), "generator", _VERMILLION),
            ),
        ),
        _Panel(
            "Discriminator's belief that an image is real",
            (
                _Line(("d_real",), "real images", _GREEN, _DASHED),
                _Line(("d_fake",), "generated", _PURPLE),
            ),
            percent=True,
        ),
    ),
}


def curves(
    kind: str,
    epochs: Sequence[int],
    series: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    fmt: Format = "png",
    best_epoch: int | None = None,
) -> bytes:
    """What a training measured after each epoch; two panels, 1200 by 500 pixels.

    Args:
        kind: ``classifier`` or ``gan``; decides which series are drawn. A series that is missing is left out.
        series: as long as ``epochs``; None and what is not finite (or no share, where shares are drawn) are gaps.
        best_epoch: marked, with its value, on the validation accuracy.

    Raises:
        ValueError: another kind, or a series of another length.
    """
    if kind not in _PANELS:
        raise ValueError(f"no curves for the kind {kind!r}; there are {', '.join(_PANELS)}")
    for name, values in series.items():
        if len(values) != len(epochs):
            raise ValueError(f"{name}: {len(values)} values for {len(epochs)} epochs")
    with _settings_lock, mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        _set_title(figure, title)
        for axes, panel in zip(figure.subplots(1, 2), _PANELS[kind], strict=True):
            _draw_panel(axes, panel, epochs, series, best_epoch if kind == "classifier" else None)
        return _render(figure, fmt)


def confusion(
    matrix: NDArray[np.integer] | Sequence[Sequence[int]],
    *,
    class_names: Sequence[str] | None = None,
    title: str,
    fmt: Format = "png",
) -> bytes:
    """A confusion matrix: true classes down, predicted classes across, counts in the cells.

    The colour is the share of the row, on a scale that lifts small shares: a class taken for another one time in a
    hundred is seen. Right of each row stands how many of the class were recognised.

    Raises:
        ValueError: the matrix is not square, or has other than ``class_names`` rows.
    """
    counts = np.asarray(matrix, np.int64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(f"a confusion matrix is square, got the shape {counts.shape}")
    names = (
        [str(label) for label in range(len(counts))]
        if class_names is None
        else [_drawable(name, _MAX_CLASS_NAME) for name in class_names]
    )
    if len(names) != len(counts):
        raise ValueError(f"{len(names)} class names for {len(counts)} classes")
    with _settings_lock, mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.6, 7.2), layout="constrained")
        FigureCanvasAgg(figure)
        total, right = int(counts.sum()), int(np.trace(counts))
        result = f"{right / total:.2%} of {total:,} right" if total else "no predictions"
        _set_title(figure, f"{title}: {result}" if title else result)
        _draw_confusion(figure.subplots(), counts, names)
        return _render(figure, fmt)


def _draw_panel(
    axes: Axes,
    panel: _Panel,
    epochs: Sequence[int],
    series: Mapping[str, Sequence[float | None]],
    best_epoch: int | None,
) -> None:
    axes.set_title(panel.title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10], min_n_ticks=1))
    x = np.asarray(epochs, float)
    drawn: list[tuple[_Line, NDArray[np.float64]]] = []
    for line in panel.lines:
        name = next((name for name in line.names if name in series), None)
        bounds = (0.0, 1.0) if panel.percent else (-_MOST, _MOST)
        y = np.array([_within(value, *bounds) for value in series[name]] if name is not None else [], float)
        if not np.isfinite(y).any():
            continue
        axes.plot(x, y, color=line.colour, linestyle=line.style, linewidth=2)
        dots = np.isfinite(y) if len(x) <= 12 else _alone(y)  # a line needs two points
        axes.plot(x[dots], y[dots], "o", color=line.colour, markersize=5)
        drawn.append((line, y))
    if not drawn:
        axes.text(0.5, 0.5, "no values yet", transform=axes.transAxes, ha="center", color=_FAINT)
        axes.set(xticks=[], yticks=[])
        return
    if len(x) == 1:
        axes.set_xlim(x[0] - 0.5, x[0] + 0.5)
    values = np.concatenate([y[np.isfinite(y)] for _, y in drawn])
    if panel.percent:
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.03), min(high, 1.03))
    elif values.min() > 1 / _MOST and values.max() > 50 * values.min():
        axes.set_yscale("log")
    _label_ends(axes, [(line, float(y[np.isfinite(y)][-1])) for line, y in drawn])
    if panel.percent and best_epoch is not None and best_epoch in epochs:
        _mark_best(axes, best_epoch, float(drawn[-1][1][list(epochs).index(best_epoch)]))


def _label_ends(axes: Axes, ends: list[tuple[_Line, float]]) -> None:
    """Write each line's name right of its end, moved apart where two ends are close."""
    placed = sorted(((_height(axes, value), line) for line, value in ends), key=lambda end: end[0])
    heights = [height for height, _ in placed]
    apart = 0.085  # of the panel's height: a line of text
    for index in range(1, len(heights)):
        lack = apart - (heights[index] - heights[index - 1])
        if lack > 0:
            heights[index - 1] -= lack / 2
            heights[index] += lack / 2
    for height, (_, line) in zip(heights, placed, strict=True):
        axes.text(1.02, height, line.label, color=line.colour, transform=axes.transAxes, va="center")


def _height(axes: Axes, value: float) -> float:
    """Where ``value`` is on the vertical axis, 0 at the bottom and 1 at the top."""
    axes.autoscale_view()  # matplotlib puts it off until it draws
    return float((axes.transScale + axes.transLimits).transform((1.0, value))[1])


def _mark_best(axes: Axes, epoch: int, value: float) -> None:
    if not math.isfinite(value):
        return
    axes.plot([epoch], [value], "o", markersize=11, markerfacecolor="none", markeredgecolor=_INK, markeredgewidth=1.5)
    axes.annotate(
        f"best {value:.2%}, epoch {epoch}",
        xy=(epoch, value),
        xytext=(0.97, 0.06 if _height(axes, value) > 0.3 else 0.5),
        textcoords="axes fraction",
        ha="right",
        arrowprops={"arrowstyle": "-", "color": _FAINT, "linewidth": 0.8, "shrinkB": 7},
    )


def _draw_confusion(axes: Axes, counts: NDArray[np.int64], names: list[str]) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.4, 0, 1))
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    size = len(counts)
    long_names = max(map(len, names)) > 3
    shown = range(0, size, -(-size // 20))  # no more names than there is room for
    names = [names[index] for index in shown]
    axes.set_xticks(shown, names, rotation=45 if long_names else 0, ha="right" if long_names else "center")
    axes.set_yticks(shown, names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if size > 20:  # no room for figures
        return
    font_size = 11 if size <= 10 else 8
    for row, column in np.argwhere(counts):
        dark = shares[row, column] > 0.12
        weight = "bold" if row == column else "normal"
        text = f"{counts[row, column]:,}"
        colour = "white" if dark else _INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=font_size, fontweight=weight)
    for row in range(size):
        if totals[row, 0]:
            axes.text(size - 0.35, row, f"{shares[row, row]:.1%}", va="center", color=_FAINT, fontsize=font_size)


def _set_title(figure: Figure, title: str) -> None:
    # A title comes from a person: it may hold dollar signs, which would be read as mathematics.
    figure.suptitle(_drawable(title, _MAX_TITLE), x=0.01, ha="left", fontsize=15, parse_math=False)


def _drawable(text: str, length: int) -> str:
    """On one line, cut to ``length``, with a box for what the font lacks (matplotlib would warn)."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    known = [character if font.get_char_index(ord(character)) else "□" for character in " ".join(text.split())]
    return "".join(known if len(known) <= length else [*known[: length - 1], "…"])


def _within(value: float | None, low: float, high: float) -> float:
    return value if value is not None and low <= value <= high else math.nan  # false for what is not a number


def _alone(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values have a gap on both sides."""
    there = np.pad(np.isfinite(values), 1)
    return np.asarray(there[1:-1] & ~there[:-2] & ~there[2:])


def _render(figure: Figure, fmt: Format) -> bytes:
    buffer = io.BytesIO()
    # Without its date and its maker's version, the same values give the same file.
    figure.savefig(buffer, format=fmt, metadata={"Date": None} if fmt == "svg" else {"Software": None})
    return buffer.getvalue()
