"""What is compared, as queries, and the differences, as responses."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, FiniteFloat

from service import statistics
from service.jobs.differences.explanation import Differences
from service.jobs.differences.explanation import Pair as DifferingPair
from service.jobs.differences.results import DifferingEpoch
from service.spec.splits import VERSION_DIGITS
from service.sweeps.results.comparison import ComparedJob, Comparison, Group
from service.web.http.queries import MAX_COMPARED, JobId, Query, Text, split
from service.web.http.schemas import ResponseModel, finite
from service.wording import value_text
from tapeline.inputs.values import dotted


class ComparisonQuery(Query):
    """Which jobs to compare, and by which metric."""

    a: Annotated[list[JobId], BeforeValidator(split)] = Field(
        min_length=1,
        max_length=MAX_COMPARED,
        description="Ids of jobs, repeated or comma-separated; a trial (`swp_…:3`); or a sweep, for its best trial.",
    )
    b: Annotated[list[JobId], BeforeValidator(split)] = Field(
        min_length=1, max_length=MAX_COMPARED, description="What to compare them with, likewise."
    )
    metric: Text | None = Field(
        None,
        description="Default: `val_accuracy` of classifiers, `val_rmse` of regressors, `frechet_distance` of GANs.",
    )
    of: Literal["last", "best"] = Field("last", description="The value of the last epoch, or the best of all epochs.")


class ComparedGroup(ResponseModel):
    """One side of a comparison."""

    label: str
    jobs: list[ComparedJob]
    n: int = Field(description="Jobs with a value.")
    mean: float | None
    min: float | None
    max: float | None

    @classmethod
    def of(cls, group: Group) -> Self:
        """A group with its mean."""
        values = list(group.values.values())
        return cls(
            label=group.label,
            jobs=list(group.jobs),
            n=len(values),
            mean=statistics.mean(values) if values else None,
            min=min(values, default=None),
            max=max(values, default=None),
        )


class Pair(ResponseModel):
    """Two values with the same seed."""

    seed: int
    a: float
    b: float
    difference: float


class ComparisonAnswer(ResponseModel):
    """The difference between two groups of jobs."""

    metric: str
    comparable: bool = Field(
        True,
        description="False: the jobs are the same, or were scored on different data, and `difference` is null.",
    )
    a: ComparedGroup
    b: ComparedGroup
    paired: bool = Field(
        validation_alias="is_paired",
        description="Whether the values are paired by seed; otherwise Welch's test is used.",
    )
    pairs: list[Pair]
    n: int = Field(validation_alias="count", description="Pairs, or values on both sides.")
    difference: float | None = Field(description="Mean of `b` minus mean of `a`.")
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        description="The confidence interval of the difference."
    )
    confidence: float = Field(description="The probability that such an interval covers the true difference.")
    p: float | None = Field(description="Two-sided p-value of the t test.")
    t: float | None = Field(description="Null also where the differences do not vary.")
    degrees_of_freedom: float | None
    why_no_interval: str | None
    sentence: str = Field(description="The result in words.")
    notes: list[str]

    @classmethod
    def of(cls, comparison: Comparison) -> Self:
        """The response for a comparison."""
        test, a, b = comparison.test, comparison.a.values, comparison.b.values
        return cls.from_row(
            comparison,
            comparable=comparison.no_verdict is None,
            a=ComparedGroup.of(comparison.a),
            b=ComparedGroup.of(comparison.b),
            pairs=[Pair(seed=seed, a=a[seed], b=b[seed], difference=b[seed] - a[seed]) for seed in comparison.seeds],
            interval=[test.low, test.high] if test else None,
            confidence=statistics.CONFIDENCE,
            p=test.p if test else None,
            t=test.t if test and math.isfinite(test.t) else None,
            degrees_of_freedom=test.degrees_of_freedom if test else None,
        )


class DifferenceQuery(Query):
    """Which jobs to compare."""

    a: JobId = Field(description="A job's id, a trial (`swp_…:3`), or a sweep, for its best trial.")
    b: JobId = Field(description="What to compare it with, likewise.")


class DifferingValue(ResponseModel):
    """Something in which the jobs differ."""

    name: str = Field(description="A JSON pointer into the spec, or a name in `provenance`.")
    label: str = Field(description="The name for people, such as `optimizer.learning_rate`.")
    a: Any
    b: Any
    text_a: str = Field(description="`a` for people: layers as `dense 128 relu, dropout 0.2, dense 10`.")
    text_b: str

    @classmethod
    def of(cls, pair: DifferingPair) -> Self:
        """The response for a pair of values."""
        label = dotted(pair.name)
        return cls.from_row(pair, label=label, text_a=value_text(pair.a), text_b=value_text(pair.b))

    @classmethod
    def of_data(cls, pair: DifferingPair) -> Self:
        """The response for two versions of data, of whose SHA-256 people see as much as in the name of a version."""
        a, b = (str(digest).removeprefix("sha256:")[:VERSION_DIGITS] for digest in (pair.a, pair.b))
        return cls.from_row(pair, label="data", text_a=a, text_b=b)


class DifferingElement(ResponseModel):
    """The first element in which the tensors of two checkpoints differ."""

    tensor: str
    element: list[int] = Field(description="Its index; empty if the shapes differ or one has no such tensor.")
    a: Annotated[float | None, BeforeValidator(finite)]
    b: Annotated[float | None, BeforeValidator(finite)]
    tensors: list[str] = Field(description="All tensors that differ.")


class DifferingCheckpoint(ResponseModel):
    """The first kept checkpoints that differ."""

    epoch: int
    last_equal: int | None = Field(description="The last epoch before it whose kept checkpoints are equal.")
    first: DifferingElement = Field(validation_alias="difference")


class DifferencesAnswer(ResponseModel):
    """All that is stored in which two jobs differ."""

    a: str
    b: str
    spec: list[DifferingValue]
    provenance: list[DifferingValue]
    dataset: DifferingValue | None = Field(description="SHA-256 of the data, if they differ.")
    epoch: DifferingEpoch | None
    checkpoint: DifferingCheckpoint | None
    compared_epochs: int = Field(description="Epochs that both jobs have.")
    same: bool = Field(description="Whether both have the same spec, data, environment and result.")
    data_differ: bool = Field(description="Whether they were scored on different data: their scores are not compared.")
    sentence: str = Field(description="The result in words.")

    @classmethod
    def of(cls, differences: Differences) -> Self:
        """The response for a pair of jobs."""
        return cls.from_row(
            differences,
            a=differences.a.id,
            b=differences.b.id,
            spec=[DifferingValue.of(pair) for pair in differences.spec],
            provenance=[DifferingValue.of(pair) for pair in differences.provenance],
            dataset=DifferingValue.of_data(differences.dataset) if differences.dataset is not None else None,
            same=differences.is_same,
            data_differ=differences.data is not None,
        )


class BisectionQuery(Query):
    """Which values are bad: exactly one of `below` and `above`."""

    metric: Text = Field(description="For example `val_accuracy`.")
    below: FiniteFloat | None = Field(None, description="Values below this are bad.")
    above: FiniteFloat | None = Field(None, description="Values above this are bad.")


class MeasuredEpoch(ResponseModel):
    """The value of a metric in an epoch."""

    epoch: int
    value: float | None = Field(description="Null: it was not finite.")


_Measured = Annotated[MeasuredEpoch, BeforeValidator(lambda pair: {"epoch": pair[0], "value": pair[1]})]


class BisectionAnswer(ResponseModel):
    """The epoch from which a metric is bad to the end."""

    metric: str
    epoch: int = Field(description="The epoch from which all values are bad.")
    value: float | None = Field(description="Its value; null: it was not finite.")
    before: _Measured | None = Field(
        description="The epoch before it that measured the metric, which is good; null: it is the first."
    )
    probes: list[_Measured] = Field(description="Epochs that were looked at, in order.")
    times: int = Field(description="How often the metric turned from good to bad; `epoch` is one of these.")
    checkpoint: int | None = Field(description="The epoch of the last kept checkpoint before it, to fork from.")
    sentence: str = Field(description="The result in words.")
