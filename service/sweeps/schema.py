"""What a person sends to start a sweep."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.spec.metric_info import Goal
from service.spec.schema import MAX_EPOCHS, Part, PlainText

MAX_TRIALS: Final = 2000
MAX_JOBS: Final = 10_000
"""The most trials, times seeds."""
MAX_SEEDS: Final = 100
MAX_PARALLEL: Final = 1000
MAX_DIMENSIONS: Final = 20
_KINDS: Final = ("choice", "int", "float", "log")


class SearchName(StrEnum):
    """How settings are chosen."""

    GRID = "grid"
    RANDOM = "random"
    TPE = "tpe"


class Mode(StrEnum):
    """When trials are promoted."""

    SYNCHRONOUS = "synchronous"
    ASYNCHRONOUS = "asynchronous"


class OverSeeds(StrEnum):
    """How the values of several seeds become one."""

    MEAN = "mean"
    MEDIAN = "median"
    MIN = "min"
    MAX = "max"


class Range(Part):
    """The values of one setting: exactly one of `choice`, `int`, `float` and `log`."""

    model_config = ConfigDict(populate_by_name=True)

    choice: Annotated[list[Any], Field(min_length=1, max_length=1000)] | None = None
    """These values, of any type that the field takes."""
    integers: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(None, alias="int")
    """Integers from the first to the second number, both included."""
    floats: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(None, alias="float")
    """Numbers between two numbers."""
    log: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)] | None = None
    """Numbers between two positive numbers, drawn evenly on a logarithmic scale."""
    step: Annotated[float, Field(gt=0)] | None = None
    """The distance between two values of `int` (default: 1) or `float` (default: any value)."""

    @model_validator(mode="after")
    def _is_one_range(self) -> Self:
        given = [name for name, value in zip(_KINDS, self._values(), strict=True) if value is not None]
        if len(given) != 1:
            found = f"; it has {' and '.join(given)}" if given else ""
            raise PydanticCustomError("range_kind", f"must have exactly one of {', '.join(_KINDS)}{found}")
        bounds = self.integers or self.floats or self.log
        if bounds is not None and bounds[0] > bounds[1]:
            raise PydanticCustomError("range_order", f"the first number of {given[0]} must not exceed the second")
        if self.step is not None and given[0] in ("choice", "log"):
            raise PydanticCustomError("range_step", f"{given[0]} has no step")
        if self.step is not None and self.integers is not None and self.step != int(self.step):
            raise PydanticCustomError("range_step", "the step of int must be an integer")
        return self

    def _values(self) -> tuple[Any, ...]:
        return self.choice, self.integers, self.floats, self.log


class Objective(Part):
    """What the sweep optimizes."""

    metric: Annotated[str, Field(min_length=1, max_length=100)]
    """A metric of the jobs; its value in the last epoch that has one counts."""
    goal: Goal | None = None
    """Default: the metric's own direction."""
    over_seeds: OverSeeds = OverSeeds.MEAN
    """How the values of a trial's seeds become one."""


class Search(Part):
    """How the settings of trials are chosen."""

    name: SearchName
    """`grid`: all combinations. `random`: independent draws. `tpe`: draws that learn from finished trials."""
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = None
    """Number of trials; a grid has as many as it has combinations."""
    seed: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    """Start value of the draws: the same sweep has the same trials."""


class Halving(Part):
    """Successive halving: all trials train a few epochs, and only the best go on."""

    min_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
    """Epochs before the first decision."""
    factor: Annotated[int, Field(ge=2, le=100)] = 3
    """One in so many trials is promoted, and then trains so many times as long."""
    mode: Mode = Mode.SYNCHRONOUS
    """`synchronous`: decide when all trials have arrived. `asynchronous` (ASHA): promote as soon as a trial is among
    the best of those that have arrived."""


class Budget(Part):
    """What the sweep may spend."""

    epochs: Annotated[int, Field(ge=1, le=100_000_000)]
    """Epochs of all jobs together. Nothing is started that would exceed them."""


class SweepSpec(Part):
    """Many jobs as one experiment: settings to try, seeds, and what to optimize."""

    name: PlainText | None = None
    """A name to find the sweep by."""
    base: dict[str, Any]
    """The spec that all trials share, as for `POST /jobs`."""
    seeds: (
        Annotated[list[Annotated[int, Field(ge=0, le=2**53 - 1)]], Field(min_length=1, max_length=MAX_SEEDS)] | None
    ) = None
    """Each setting is trained once with each of these seeds. Default: the seed of `base`."""
    space: Annotated[dict[str, Range], Field(default_factory=dict, max_length=MAX_DIMENSIONS)]
    """The settings to try: JSON pointers into the spec, and their values. Empty, with several seeds: a seed group."""
    objective: Objective | None = None
    """What to optimize. Default: `val_accuracy` of classifiers, `frechet_distance` of GANs."""
    search: Search | None = None
    """How settings are chosen. Default: `grid`."""
    halving: Halving | None = None
    """Stop the worst trials early. Default: every trial is trained to its end."""
    parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL)] = 8
    """Trials at a time. The number decides what is known when a trial is proposed, so it is part of the result; the
    number of workers is not."""
    max_failed: Annotated[int, Field(ge=0, le=MAX_TRIALS)] | None = None
    """The sweep fails once more trials than this have failed. Default: no limit."""
    budget: Budget | None = None
    """What the sweep may spend. Default: no limit."""
