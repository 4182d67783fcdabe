"""How metrics are described: the entries of the table of metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, NamedTuple


class Goal(StrEnum):
    """Whether a metric should be high or low."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


class Unit(StrEnum):
    """Units of metrics that are not plain numbers."""

    SECONDS = "seconds"
    BYTES = "bytes"


class Place(StrEnum):
    """Where a chart is. Charts come in this order."""

    MAIN = "main"
    """Open on a job's page, and in the plot of its curves."""
    FOLDED = "folded"
    HEALTH = "health"
    """Folded on the page, and in the plot."""


class Chart(NamedTuple):
    """A chart of the metrics that name it."""

    title: str
    place: Place = Place.FOLDED


GRADIENT_NORMS: Final = Chart("gradient norm", Place.HEALTH)
DEAD_UNITS: Final = Chart("dead units and saturation", Place.HEALTH)


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
    chart: Chart | None = None
    """The chart with its line; ``None``: one of its own, folded, after all others."""
    line: int = 0
    """Its place among the lines of the chart, the lowest first; if equal, in the order of declaration."""
    tile: int | None = None
    """Its place among the tiles of a job's page, likewise; ``None``: it has none."""
    test_score: int | None = None
    """Its place among the scores on the test part by importance, likewise; ``None``: it is none of these."""
    digested: bool = True
    """Whether result digests have it, and reproductions compare it. What follows from weights and data need not be."""
    kinds: tuple[str, ...] = ()
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
