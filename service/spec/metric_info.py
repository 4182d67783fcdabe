"""The table of metrics: label, description, kind of job, direction, unit, colour, chart, tile and summary.

Page, command line, plots, exports and sweeps read this table, so that a metric looks the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

from service.wording import SCIENTIFIC_FROM, rounded


class Goal(StrEnum):
    """Whether a metric should be high or low."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


class Unit(StrEnum):
    """Units of metrics that are not plain numbers."""

    SECONDS = "seconds"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """How to show one metric."""

    label: str
    description: str
    percent: bool = False
    """Whether it is a fraction, in [0, 1] unless it ``can_exceed_one``, shown as a percentage."""
    goal: Goal | None = None
    """``None``: neither high nor low is better by itself."""
    series: int = 8
    """Number of its colour in ``PALETTE``, from 1."""
    sparse: bool = False
    """Whether it is measured only in some epochs; a chart then connects the values across the gaps."""
    unit: Unit | None = None
    """``None``: a plain number."""
    can_be_negative: bool = False
    can_exceed_one: bool = False
    """Of a fraction that is relative to something."""
    at_most_one: bool = False
    """Of a metric that is not shown as a percentage."""
    kinds: tuple[str, ...] = ("classifier", "regressor", "gan")
    """The kinds of jobs that report it."""

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest value that it can have: no interval or difference goes beyond them."""
        highest = 1.0 if self.at_most_one or (self.percent and not self.can_exceed_one) else math.inf
        return -math.inf if self.can_be_negative else 0.0, highest

    @property
    def better(self) -> Literal["min", "max"] | None:
        """Which of several values is the best; ``None``: neither the highest nor the lowest by itself."""
        if self.goal is None:
            return None
        return "max" if self.goal is Goal.MAXIMIZE else "min"


class Place(StrEnum):
    """Where a chart is."""

    MAIN = "main"
    """Open on a job's page, and in the plot of its curves."""
    HEALTH = "health"
    """Folded on the page, and in the plot."""
    FOLDED = "folded"


class Chart(NamedTuple):
    """A chart of several metrics."""

    title: str
    names: Sequence[str]
    place: Place = Place.FOLDED


PALETTE: Final = ("#0067a5", "#c14f00", "#00805c", "#a8528a", "#8a6a00", "#2b8fc4", "#6d5bb8", "#6b6b6b")
"""``--series-1`` to ``--series-8`` of the page's light theme: the palette of Okabe and Ito (2008), which remains
distinguishable with any kind of colour blindness, darkened for a white background."""

_OF_SUPERVISED: Final = {
    "train_loss": MetricInfo(
        "train loss",
        "Mean loss over the training batches as it is minimized, with label smoothing, class weights, augmentation and "
        "dropout; weight decay is not a part of it.",
        goal=Goal.MINIMIZE,
        series=1,
    ),
    "val_loss": MetricInfo(
        "val loss",
        "Mean loss on the validation data, without label smoothing and class weights: the log loss where the spec's "
        "loss is softmax_cross_entropy. A regressor's is of the target in standard deviations.",
        goal=Goal.MINIMIZE,
        series=2,
    ),
    "test_loss": MetricInfo(
        "test loss",
        "Mean loss on the test part, measured like the val loss, scored once after the training.",
        goal=Goal.MINIMIZE,
        series=3,
    ),
    "grad_norm": MetricInfo("gradient norm", "Mean norm of the gradient of all weights.", series=1),
    "dead_units": MetricInfo(
        "dead units",
        "Fraction of hidden units that are zero for every probe example.",
        percent=True,
        goal=Goal.MINIMIZE,
        series=3,
    ),
    "saturation": MetricInfo(
        "saturation", "Fraction of sigmoid and tanh outputs where the slope is nearly zero.", percent=True, series=5
    ),
}
_OF_CLASSIFIERS: Final = {
    "train_accuracy": MetricInfo(
        "train accuracy",
        "Fraction of training examples classified correctly.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=1,
    ),
    "val_accuracy": MetricInfo(
        "val accuracy",
        "Fraction of validation examples classified correctly.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=2,
    ),
    "val_balanced_accuracy": MetricInfo(
        "val balanced accuracy",
        "Mean recall of the classes: each class counts the same, however rare it is.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=3,
    ),
    "val_macro_f1": MetricInfo(
        "val macro F1",
        "Mean F1 of the classes: each class counts the same, however rare it is.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=4,
    ),
    "val_log_loss": MetricInfo(
        "val log loss",
        "Mean negative logarithm of the probability of the true class, without label smoothing or class weights.",
        goal=Goal.MINIMIZE,
        series=3,
    ),
    "val_roc_auc": MetricInfo(
        "val ROC AUC",
        "Probability that an example of the second class has a higher score than one of the first; 50%: chance.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=5,
    ),
    "test_accuracy": MetricInfo(
        "test accuracy",
        "Fraction of the test part classified correctly, scored once after the training.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=3,
    ),
}
_PARTS: Final = {"train": 1, "val": 2, "test": 3}
"""The parts of a dataset, with the number of the colour of their metrics."""
_SCORED: Final = {
    "train": "on the training rows, while the weights change",
    "val": "on the validation rows",
    "test": "on the test part, scored once after the training",
}
_ERRORS: Final = {
    "rmse": ("RMSE", "Root of the mean squared error of the predictions, in the unit of the target"),
    "mae": ("MAE", "Mean absolute error of the predictions, in the unit of the target"),
}
_OF_REGRESSORS: Final = {
    **{
        f"{part}_{name}": MetricInfo(
            f"{part} {label}", f"{text}, {_SCORED[part]}.", goal=Goal.MINIMIZE, series=_PARTS[part]
        )
        for name, (label, text) in _ERRORS.items()
        for part in _PARTS
    },
    **{
        f"{part}_r2": MetricInfo(
            f"{part} R²",
            f"Fraction of the target's variance that is predicted, {_SCORED[part]}; 0: no better than the mean.",
            goal=Goal.MAXIMIZE,
            series=_PARTS[part],
            can_be_negative=True,
            at_most_one=True,
        )
        for part in _PARTS
    },
    **{
        f"{part}_{name}_error": MetricInfo(
            f"{part} {label} standard error",
            f"Standard error of the {label}, from the spread of the errors {_SCORED[part]}.",
            series=series,
        )
        for series, (name, (label, _)) in enumerate(_ERRORS.items(), 1)
        for part in ("val", "test")
    },
}
_OF_GANS: Final = {
    "d_loss": MetricInfo(
        "discriminator loss",
        "Loss of the discriminator on real and generated images.",
        series=1,
        can_be_negative=True,
    ),
    "g_loss": MetricInfo(
        "generator loss", "Loss of the generator against the discriminator.", series=2, can_be_negative=True
    ),
    "d_real": MetricInfo(
        "D(real)",
        "Mean output of the discriminator for real images: the probability of being real.",
        percent=True,
        series=3,
    ),
    "d_fake": MetricInfo(
        "D(fake)",
        "Mean output of the discriminator for generated images: the probability of being real.",
        percent=True,
        series=4,
    ),
    "d_penalty": MetricInfo(
        "discriminator penalty", "Weighted penalties on the slope of the discriminator.", goal=Goal.MINIMIZE, series=6
    ),
    "frechet_distance": MetricInfo(
        "Fréchet distance",
        "Distance between generated and real images in the features of the reference classifier; 0: no difference.",
        goal=Goal.MINIMIZE,
        series=1,
        sparse=True,
    ),
    "mode_coverage": MetricInfo(
        "mode coverage",
        "Fraction of the classes that the samples cover.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=3,
        sparse=True,
    ),
    "min_class_share": MetricInfo(
        "rarest class",
        "Fraction of the samples that belong to the rarest class.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=2,
        sparse=True,
    ),
    "class_entropy": MetricInfo(
        "class entropy",
        "Entropy of the predicted class distribution, relative to the uniform one; 100%: all equal.",
        percent=True,
        goal=Goal.MAXIMIZE,
        series=6,
        sparse=True,
    ),
    "confidence": MetricInfo(
        "confidence",
        "Mean probability that the reference classifier gives the predicted class.",
        percent=True,
        series=4,
        sparse=True,
    ),
    "sample_diversity": MetricInfo(
        "sample diversity",
        "How much samples differ from each other, relative to real images.",
        percent=True,
        series=5,
        can_exceed_one=True,
    ),
    "d_grad_norm": MetricInfo("discriminator gradient norm", "Mean norm of the discriminator's gradient.", series=1),
    "g_grad_norm": MetricInfo("generator gradient norm", "Mean norm of the generator's gradient.", series=2),
    "d_dead_units": MetricInfo(
        "discriminator dead units", "Dead units of the discriminator.", percent=True, goal=Goal.MINIMIZE, series=1
    ),
    "g_dead_units": MetricInfo(
        "generator dead units", "Dead units of the generator.", percent=True, goal=Goal.MINIMIZE, series=4
    ),
    "d_saturation": MetricInfo(
        "discriminator saturation", "Saturated outputs in the discriminator.", percent=True, series=6
    ),
    "g_saturation": MetricInfo("generator saturation", "Saturated outputs in the generator.", percent=True, series=2),
}
METRICS: Final[dict[str, MetricInfo]] = {
    **{name: replace(info, kinds=("classifier", "regressor")) for name, info in _OF_SUPERVISED.items()},
    **{name: replace(info, kinds=("classifier",)) for name, info in _OF_CLASSIFIERS.items()},
    **{name: replace(info, kinds=("regressor",)) for name, info in _OF_REGRESSORS.items()},
    **{name: replace(info, kinds=("gan",)) for name, info in _OF_GANS.items()},
    "learning_rate": MetricInfo("learning rate", "Step size of the optimizer in the last batch.", series=7),
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

KEY_METRICS: Final[Mapping[str, Sequence[str]]] = {
    "classifier": ("val_accuracy", "val_loss", "train_loss"),
    "regressor": ("val_rmse", "val_r2", "val_loss"),
    "gan": ("frechet_distance", "g_loss", "d_loss"),
}
"""The metrics of each kind of job for summaries, most important first; the first is the default objective."""

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
    "seconds": MetricInfo("time", "Wall-clock time of the epoch.", series=3, unit=Unit.SECONDS),
    "cpu_seconds": MetricInfo(
        "CPU time", "CPU time of the training process during the epoch.", series=1, unit=Unit.SECONDS
    ),
    "memory_bytes": MetricInfo(
        "memory", "Resident memory of the training process at the end of the epoch.", series=2, unit=Unit.BYTES
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
