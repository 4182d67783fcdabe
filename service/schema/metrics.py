"""How metrics are described: the entries of the table of metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple


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
