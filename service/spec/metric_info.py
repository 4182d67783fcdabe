"""The table of metrics: label, description, kind of job, direction, unit, colour, chart, tile and summary.

Page, command line, plots, exports and sweeps read this table, so that a metric looks the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from service import kinds
from service.schema.metrics import Chart, MetricInfo, Place, Unit
from service.wording import SCIENTIFIC_FROM, rounded

PALETTE: Final = ("#0067a5", "#c14f00", "#00805c", "#a8528a", "#8a6a00", "#2b8fc4", "#6d5bb8", "#6b6b6b")
"""``--series-1`` to ``--series-8`` of the page's light theme: the palette of Okabe and Ito (2008), which remains
distinguishable with any kind of colour blindness, darkened for a white background."""

_ALL_KINDS: Final = tuple(kind.name for kind in kinds.TRAINED)
METRICS: Final[dict[str, MetricInfo]] = {
    **{
        name: replace(info, kinds=tuple(kind.name for kind in kinds.TRAINED if name in kind.metrics))
        for kind in kinds.TRAINED
        for name, info in kind.metrics.items()
    },
    "learning_rate": MetricInfo(
        "learning rate", "Step size of the optimizer in the last batch.", series=7, kinds=_ALL_KINDS
    ),
}

CHARTS: Final = (
    Chart("loss", ("train_loss", "val_loss"), Place.MAIN),
    Chart("accuracy", ("train_accuracy", "val_accuracy"), Place.MAIN),
    Chart("RMSE", ("train_rmse", "val_rmse"), Place.MAIN),
    Chart("R²", ("train_r2", "val_r2"), Place.MAIN),
    Chart("GAN losses", ("d_loss", "g_loss"), Place.MAIN),
    Chart("discriminator outputs", ("d_real", "d_fake"), Place.MAIN),
    Chart("Fréchet distance", ("frechet_distance",), Place.MAIN),
    Chart(
        "quality of the samples",
        ("sample_diversity", "confidence", "class_entropy", "min_class_share", "mode_coverage"),
        Place.MAIN,
    ),
    Chart("balanced accuracy, F1, ROC AUC", ("val_balanced_accuracy", "val_macro_f1", "val_roc_auc")),
    Chart("log loss", ("val_log_loss",)),
    Chart("mean absolute error", ("train_mae", "val_mae")),
    Chart("standard errors", ("val_rmse_error", "val_mae_error")),
    Chart("learning rate", ("learning_rate",)),
    Chart("gradient norm", ("grad_norm", "d_grad_norm", "g_grad_norm"), Place.HEALTH),
    Chart(
        "dead units and saturation",
        ("saturation", "dead_units", "d_saturation", "d_dead_units", "g_saturation", "g_dead_units"),
        Place.HEALTH,
    ),
    Chart("CPU time of an epoch", ("cpu_seconds",)),
    Chart("memory", ("memory_bytes",)),
)
"""The charts in their order, each with its lines in theirs. Any other metric has a chart of its own, after these."""

TILES: Final = (
    "val_accuracy", "val_rmse", "val_r2", "val_mae", "val_loss", "train_accuracy", "train_rmse", "train_loss",
    "val_roc_auc", "frechet_distance", "mode_coverage",
    "sample_diversity", "g_loss", "d_loss", "d_real", "d_fake",
)  # fmt: skip
"""The metrics of the tiles of a job's page."""

KEY_METRICS: Final[Mapping[str, Sequence[str]]] = {kind.name: kind.key_metrics for kind in kinds.TRAINED}
"""The metrics of each kind of training for summaries, most important first; the first is the default objective."""


TEST_SCORES: Final = ("test_accuracy", "test_rmse", "test_mae", "test_r2", "test_loss")
"""The scores on the test part of the data, most important first."""

NOT_DIGESTED: Final = frozenset(
    {
        "val_balanced_accuracy", "val_macro_f1", "val_log_loss", "val_roc_auc", "val_rmse_error", "val_mae_error",
        "test_rmse_error", "test_mae_error", "test_count",
    }
)  # fmt: skip
"""Metrics that are left out of result digests and reproductions, because they follow from weights and data."""

RESOURCES: Final[dict[str, MetricInfo]] = {
    "seconds": MetricInfo("time", "Wall-clock time of the epoch.", series=3, unit=Unit.SECONDS, kinds=_ALL_KINDS),
    "cpu_seconds": MetricInfo(
        "CPU time", "CPU time of the training process during the epoch.", series=1, unit=Unit.SECONDS, kinds=_ALL_KINDS
    ),
    "memory_bytes": MetricInfo(
        "memory",
        "Resident memory of the training process at the end of the epoch.",
        series=2,
        unit=Unit.BYTES,
        kinds=_ALL_KINDS,
    ),
}
"""Time and memory of an epoch. They differ from run to run, so they are separate from ``METRICS``."""


def describe(name: str) -> MetricInfo:
    """How to present a metric. A metric of one layer (``grad_norm/layers.0``) is presented like that of the network."""
    base, _, layer = name.partition("/")
    info = (METRICS | RESOURCES).get(base, MetricInfo(base.replace("_", " "), "", can_be_negative=True))
    if not layer:
        return info
    return replace(info, label=f"{info.label} · {layer}")


def number(name: str, value: float | None) -> str:
    """A metric's value as text, with its unit; ``-`` if there is none."""
    if value is None:
        return "-"
    info = describe(name)
    if info.percent:
        return f"{value:.2%}"
    if info.unit is Unit.BYTES:
        return size(value)
    if info.unit is Unit.SECONDS:
        return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"
    return f"{value:.2e}" if value and not 1e-3 <= abs(value) < SCIENTIFIC_FROM else rounded(value)


def size(count: float) -> str:
    """A number of bytes as text, in powers of 1000: ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or abs(count) >= 100 else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """A duration as text: ``7 s``, ``2 min``, ``1.5 h``. The page's ``dom.js`` formats durations in the same way."""
    if 0 < seconds < 0.95:
        return "under a second"
    if seconds < 90:
        return f"{_rounded(seconds)} s"
    if seconds < 5400:
        return f"{_rounded(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{_rounded(seconds / 86_400)} days"


def _rounded(value: float) -> int:
    """Round half up, like JavaScript's ``Math.round``."""
    return math.floor(value + 0.5)


def documents() -> dict[str, dict[str, Any]]:
    """All metrics and resources as JSON documents, for the page, with the chart and the place in a summary of each."""
    charts = {name: (rank, chart) for rank, chart in enumerate(CHARTS) for name in chart.names}
    keys: dict[str, int] = {}
    for names in KEY_METRICS.values():
        for rank, name in enumerate(names):
            keys.setdefault(name, rank)
    return {
        name: asdict(info) | {"chart": chart.title, "place": chart.place, "rank": rank, "key": keys.get(name)}
        for name, info in (METRICS | RESOURCES).items()
        for rank, chart in [charts.get(name) or (len(CHARTS), Chart(info.label, ()))]
    }
