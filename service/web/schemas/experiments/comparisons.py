"""Comparisons of two groups of jobs."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field

from service import statistics
from service.sweeps.comparison import Comparison, Group
from service.web.http.queries import MAX_COMPARED, JobId, Query, Text, split
from service.web.http.schemas import Answer


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
    metric: Text | None = Field(None, description="Default: `val_accuracy` of classifiers, `frechet_distance` of GANs.")
    of: Literal["last", "best"] = Field("last", description="The value of the last epoch, or the best of all epochs.")


class ComparedJob(Answer):
    """A job of a group."""

    job: str
    seed: int
    value: float | None = Field(description="Null: the job has no finite value of the metric.")


class ComparedGroup(Answer):
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
            jobs=[ComparedJob(job=item.job_id, seed=item.seed, value=item.value) for item in group.members],
            n=len(values),
            mean=statistics.mean(values) if values else None,
            min=min(values, default=None),
            max=max(values, default=None),
        )


class Pair(Answer):
    """Two values with the same seed."""

    seed: int
    a: float
    b: float
    difference: float


class ComparisonAnswer(Answer):
    """The difference between two groups of jobs."""

    metric: str
    comparable: bool = Field(
        True,
        description="False: the jobs are the same, or were scored on different data, and `difference` is null.",
    )
    a: ComparedGroup
    b: ComparedGroup
    paired: bool = Field(description="Whether the values are paired by seed; otherwise Welch's test is used.")
    pairs: list[Pair]
    n: int = Field(description="Pairs, or values on both sides.")
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
        test, values_a, values_b = comparison.test, comparison.a.values, comparison.b.values
        pairs = [
            Pair(seed=seed, a=values_a[seed], b=values_b[seed], difference=values_b[seed] - values_a[seed])
            for seed in comparison.seeds
        ]
        return cls(
            metric=comparison.metric,
            comparable=comparison.no_verdict is None,
            a=ComparedGroup.of(comparison.a),
            b=ComparedGroup.of(comparison.b),
            paired=comparison.is_paired,
            pairs=pairs,
            n=comparison.count,
            difference=comparison.difference,
            interval=[test.low, test.high] if test else None,
            confidence=statistics.CONFIDENCE,
            p=test.p if test else None,
            t=test.t if test and math.isfinite(test.t) else None,
            degrees_of_freedom=test.degrees_of_freedom if test else None,
            why_no_interval=comparison.why_no_interval,
            sentence=comparison.sentence,
            notes=list(comparison.notes),
        )
