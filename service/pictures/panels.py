"""The panels of the plots of each kind of job: which metrics they show together, and in which style."""

from dataclasses import dataclass
from typing import Any, Final

from service.spec.metric_info import PALETTE, describe


@dataclass(frozen=True)
class Line:
    """A line of a panel and the series that it shows."""

    name: str  # of the series; a star at the end matches any suffix
    label: str
    style: Any = "-"

    @property
    def colour(self) -> str:
        """The colour of the line, as on the page; lines of layers start with the sixth colour."""
        return PALETTE[5] if "/" in self.name else PALETTE[describe(self.name).series - 1]

    @property
    def sparse(self) -> bool:
        """Whether the line connects values across epochs in which the metric was not measured."""
        return describe(self.name).sparse


@dataclass(frozen=True)
class Panel:
    """One of the plots in the figure of a job."""

    title: str
    lines: tuple[Line, ...]
    percent: bool = False
    best: str = ""  # format of the best epoch's value of the last line; empty: only a line marks the epoch
    min_upper: float = (
        0.0  # minimum upper end of the vertical axis, which then starts at 0; 0: fit the axis to the values
    )


DASHED, DOTTED = (0, (5, 2)), (0, (1, 1.5))
MAIN_PANELS: Final[dict[str, tuple[Panel, ...]]] = {
    "classifier": (
        Panel(
            "Loss",
            (
                Line("train_loss", "train", DASHED),
                Line("val_loss", "val"),
            ),
        ),
        Panel(
            "Accuracy",
            (
                Line("train_accuracy", "train", DASHED),
                Line("val_accuracy", "val"),
            ),
            percent=True,
            best="{:.2%}",
        ),
    ),
    "gan": (
        Panel(
            "Loss",
            (
                Line("d_loss", "discriminator", DASHED),
                Line("g_loss", "generator"),
            ),
        ),
        Panel(
            "Discriminator outputs",
            (
                Line("d_real", "D(real)", DASHED),
                Line("d_fake", "D(fake)"),
            ),
            percent=True,
        ),
    ),
}
HEALTH_PANELS: Final[dict[str, tuple[Panel, ...]]] = {  # shown if they have values
    "classifier": (
        Panel(
            "Gradient norm",
            (
                Line("grad_norm/*", "first layer", DASHED),
                Line("grad_norm", "all layers"),
            ),
        ),
        Panel(
            "Dead and saturated units",
            (
                Line("saturation", "saturated", DASHED),
                Line("dead_units", "dead"),
            ),
            percent=True,
            min_upper=0.1,
        ),
    ),
    "gan": (
        Panel(
            "Fréchet distance",
            (Line("frechet_distance", "distance"),),
            best="{:.0f}",
        ),
        Panel(
            "Sample coverage and diversity",
            (
                Line("sample_diversity", "diversity", DOTTED),
                Line("class_entropy", "class entropy", DASHED),
                Line("mode_coverage", "mode coverage"),
            ),
            percent=True,
            min_upper=1.0,
        ),
        Panel(
            "Gradient norm",
            (
                Line("d_grad_norm", "discriminator", DASHED),
                Line("g_grad_norm", "generator"),
            ),
        ),
        Panel(
            "Dead and saturated units",
            (
                Line("d_dead_units", "D dead", DASHED),
                Line("g_dead_units", "G dead"),
                Line("d_saturation", "D saturated", DASHED),
                Line("g_saturation", "G saturated"),
            ),
            percent=True,
            min_upper=0.1,
        ),
    ),
}
