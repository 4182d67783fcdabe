"""The schema of sweeps: the body of ``POST /sweeps``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from service.schema.metrics import Goal
from service.spec.schema import MAX_EPOCHS, PlainText, Reuse, StrictModel
from tapeline.inputs.values import MAX_SEEDS as MAX_SEEDS

MAX_TRIALS: Final = 2000
MAX_JOBS: Final = 10_000
"""Maximum number of trials times seeds."""
MAX_PARALLEL: Final = 1000
MAX_DIMENSIONS: Final = 20
MAX_TPE_VALUES: Final = 2_000_000
"""Maximum number of values that one proposal of TPE weighs: the choices of all settings times the trials."""
_KINDS: Final = ("choice", "int", "float", "log")


class SearchName(StrEnum):
    """Search algorithms."""

    GRID = "grid"
    RANDOM = "random"
    TPE = "tpe"


class Mode(StrEnum):
    """When halving decides about promotions."""

    SYNCHRONOUS = "synchronous"
    ASYNCHRONOUS = "asynchronous"


class OverSeeds(StrEnum):
    """How the values of several seeds are combined."""

    MEAN = "mean"
    MEDIAN = "median"
    MIN = "min"
    MAX = "max"


class Range(StrictModel):
    """The values of one setting: exactly one of `choice`, `int`, `float` and `log`."""

    # Stored sweeps are read with this schema. Bounds that may become stricter belong to the checks of a new sweep.

    model_config = ConfigDict(populate_by_name=True)

    choice: Annotated[list[Any], Field(min_length=1, max_length=1000)] | None = None
    """A list of values of the field's type."""
    integers: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(None, alias="int")
    """Integers from the first to the second number, inclusive."""
    floats: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(None, alias="float")
    """Numbers in an interval."""
    log: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)] | None = None
    """Numbers in an interval with positive bounds, drawn uniformly on a logarithmic scale."""
    step: Annotated[float, Field(gt=0)] | None = None
    """The distance between two values of `int` (default: 1) or `float` (default: any value)."""

    @model_validator(mode="before")
    @classmethod
    def _is_an_object(cls, value: Any) -> Any:
        if isinstance(value, list | str | int | float):
            raise PydanticCustomError("range_type", 'Input should be an object such as {"choice": [8, 16]}')
        return value

    @model_validator(mode="after")
    def _is_one_range(self) -> Self:
        kinds = [name for name, value in zip(_KINDS, self._values(), strict=True) if value is not None]
        if len(kinds) != 1:
            suffix = f"; it has {' and '.join(kinds)}" if kinds else ""
            raise PydanticCustomError("range_kind", f"must have exactly one of {', '.join(_KINDS)}{suffix}")
        bounds = self.integers or self.floats or self.log
        if bounds is not None and bounds[0] > bounds[1]:
            raise PydanticCustomError("range_order", f"the first number of {kinds[0]} must not exceed the second")
        if self.step is not None and kinds[0] in ("choice", "log"):
            raise PydanticCustomError("range_step", f"{kinds[0]} has no step")
        if self.step is not None and self.integers is not None and self.step != int(self.step):
            raise PydanticCustomError("range_step", "the step of int must be an integer")
        return self

    def _values(self) -> tuple[Any, ...]:
        return self.choice, self.integers, self.floats, self.log


class Objective(StrictModel):
    """What the sweep optimizes."""

    metric: Annotated[str, Field(min_length=1, max_length=100)]
    """A metric of the jobs. Its value in the last epoch that has one is used."""
    goal: Goal | None = None
    """Whether to maximize or minimize the metric. Default: the direction in which the metric improves."""
    over_seeds: OverSeeds = OverSeeds.MEAN
    """How the values of a trial's seeds are combined."""


class Search(StrictModel):
    """How the settings of trials are chosen."""

    name: SearchName
    """`grid`: all combinations. `random`: independent draws. `tpe`: draws informed by finished trials."""
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] | None = None
    """Number of trials. Leave it out for a grid, which tries all combinations."""
    seed: Annotated[int, Field(ge=0, le=2**53 - 1)] = 0
    """Seed of the draws: the same sweep has the same trials."""


class Halving(StrictModel):
    """Successive halving: all trials train for a few epochs, and only the best continue."""

    min_epochs: Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
    """Number of epochs before the first decision."""
    factor: Annotated[int, Field(ge=2, le=100)] = 3
    """One in this many trials is promoted, and trains this many times as long."""
    mode: Mode = Mode.SYNCHRONOUS
    """`synchronous`: decide when all trials have reached the rung. `asynchronous` (ASHA): promote a trial as soon as it
    is among the best of those that have reached the rung."""


class Budget(StrictModel):
    """Limits of what the sweep may use: of epochs, CPU time, or both."""

    epochs: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Number of epochs of all jobs together. No job is started that would exceed it: the first trial or promotion that
    would is the end of the budget."""
    seconds: Annotated[float, Field(gt=0, le=1e12)] | None = None
    """CPU seconds of all jobs together. Once they are used, running trials end, and no other starts or is promoted: the
    decisions then depend on the speed of the workers."""

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if self.epochs is None and self.seconds is None:
            raise PydanticCustomError("budget_limit", "must have `epochs`, `seconds` or both")
        return self


class SweepSpec(StrictModel):
    """Many jobs as one experiment: settings to try, seeds, and what to optimize."""

    name: PlainText | None = None
    """A name to find the sweep by."""
    base: dict[str, Any]
    """The spec that all trials share, as for `POST /jobs`."""
    seeds: (
        Annotated[list[Annotated[int, Field(ge=0, le=2**53 - 1)]], Field(min_length=1, max_length=MAX_SEEDS)] | None
    ) = None
    """Every combination of settings is trained once with each of these seeds. Default: the seed of `base`."""
    space: Annotated[dict[str, Range], Field(default_factory=dict, max_length=MAX_DIMENSIONS)]
    """The settings to try, such as `optimizer.learning_rate` or `layers.0.units`, with their values; a JSON pointer is
    accepted, too. An empty space with several seeds is a seed
    group."""
    objective: Objective | None = None
    """What to optimize. Default: `val_accuracy` for classifiers, `val_rmse` for regressors, `frechet_distance` for
    GANs."""
    search: Search | None = None
    """How settings are chosen. Default: `grid`."""
    halving: Halving | None = None
    """Stop the worst trials early. Default: all trials are trained to the end."""
    parallel: Annotated[int, Field(ge=1, le=MAX_PARALLEL)] = 8
    """Number of trials that run at the same time. It determines which results are known when a trial is proposed, so it
    affects the decisions; the number of workers does not."""
    max_failed: Annotated[int, Field(ge=0, le=MAX_TRIALS)] | None = None
    """The sweep fails when more trials than this have failed. Default: no limit."""
    budget: Budget | None = None
    """Limits of what the sweep may use. Default: no limit."""
    reuse: Reuse = Reuse.PREFIX
    """What trials may take over from earlier jobs, as in a job's spec. It changes no decision and no bit."""
