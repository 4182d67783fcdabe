"""Compares two groups of jobs, with one value per seed, by a t interval for the difference of their means.

Jobs are paired by seed if both groups have the same seeds, so that effects of the seed on both sides cancel out. A
single seed does not show how much results vary, so it gets no interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from service.spec.metric_info import Goal, MetricInfo, describe
from service.storage.tables import Job
from service.sweeps import statistics
from service.sweeps.statistics import Test

CONFIDENCE: Final = 0.95

Which = Literal["last", "best"]
"""Which value of a metric to compare: that of the last epoch, or the best of all epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A job of a group."""

    job_id: str
    seed: int
    value: float | None
    """``None`` if the job has no finite value of the metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Jobs that differ only in their seeds."""

    label: str
    members: Sequence[Member]

    @property
    def values(self) -> dict[int, float]:
        """The values by seed."""
        return {member.seed: member.value for member in self.members if member.value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The comparison of group ``b`` with group ``a``."""

    metric: str
    a: Group
    b: Group
    seeds: Sequence[int]
    """Seeds of the pairs; empty if the groups are not paired."""
    which: Which
    difference: float | None
    """Mean of ``b`` minus mean of ``a``, over the pairs if there are any."""
    test: Test | None
    why_no_interval: str | None
    notes: Sequence[str] = field(default=())

    @property
    def is_paired(self) -> bool:
        """Whether the values are paired by seed."""
        return bool(self.seeds)

    @property
    def count(self) -> int:
        """Number of pairs, or of values on both sides."""
        return len(self.seeds) if self.is_paired else len(self.a.values) + len(self.b.values)

    @property
    def sentence(self) -> str:
        """The result as a sentence."""
        return _sentence(self)


def value_of(job: Job, metric: str, which: Which = "last") -> float | None:
    """The value of a metric of a job; ``None`` if there is no finite one."""
    value = job.metrics.get(metric)
    goal = describe(metric).goal
    if which == "best" and goal is not None:
        value = job.extremes.get(metric, {}).get("max" if goal is Goal.MAXIMIZE else "min")
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def group(label: str, jobs: Sequence[Job], metric: str, which: Which = "last") -> Group:
    """A group of jobs with their values of a metric.

    Raises:
        ValueError: two jobs have the same seed.
    """
    members = [
        Member(job_id=job.id, seed=job.resolved["seed"], value=value_of(job, metric, which))
        for job in sorted(jobs, key=lambda job: (job.resolved["seed"], job.id))
    ]
    for one, other in itertools.pairwise(members):
        if one.seed == other.seed:
            raise ValueError(
                f"{one.job_id} and {other.job_id} both have seed {one.seed}: a group is one setting with several seeds"
            )
    return Group(label=label, members=members)


def compare(metric: str, a: Group, b: Group, *, which: Which = "last", notes: Sequence[str] = ()) -> Comparison:
    """Compare two groups: by the paired t test if they share at least two seeds, otherwise by Welch's test."""
    first, second = a.values, b.values
    common = sorted(first.keys() & second.keys())
    found = [*notes, *_without_value(metric, a, b)]
    seeds: Sequence[int] = ()
    test = why = None
    difference: float | None = None
    if len(common) > 1:
        seeds = common
        test = statistics.paired(_at(first, seeds), _at(second, seeds), confidence=CONFIDENCE)
        if left := sorted((first.keys() | second.keys()) - set(seeds)):
            found.append(f"seeds that only one side has are ignored: {', '.join(map(str, left))}")
    elif len(first) > 1 and len(second) > 1:
        test = statistics.welch(list(first.values()), list(second.values()), confidence=CONFIDENCE)
        found.append("the sides have different seeds, so the values are not paired")
    elif not first or not second:
        missing = a.label if not first else b.label
        why = f"{missing} has no value of {metric} yet"
    else:
        one = a.label if len(first) == 1 else b.label
        both = len(first) == 1 and len(second) == 1
        why = f"{'with one seed each,' if both else f'{one} has one seed:'} the variation between seeds is unknown"
        difference = statistics.mean(list(second.values())) - statistics.mean(list(first.values()))
    if test is not None:
        difference = test.difference
    return Comparison(
        metric=metric,
        a=a,
        b=b,
        seeds=seeds,
        which=which,
        difference=difference,
        test=test,
        why_no_interval=why,
        notes=found,
    )


def _at(values: Mapping[int, float], seeds: Sequence[int]) -> list[float]:
    return [values[seed] for seed in seeds]


def _without_value(metric: str, *groups: Group) -> list[str]:
    lacking = [member.job_id for group in groups for member in group.members if member.value is None]
    return [f"no finite value of {metric}: {', '.join(lacking)}"] if lacking else []


def _sentence(made: Comparison) -> str:
    if made.difference is None:
        return f"There is nothing to compare: {made.why_no_interval}."
    info = _named(describe(made.metric), made.which)
    factor, unit = (100.0, " points") if info.percent else (1.0, "")
    sign = -1.0 if info.goal is Goal.MINIMIZE else 1.0
    difference = sign * made.difference
    ahead, behind = (made.b, made.a) if difference >= 0 else (made.a, made.b)
    word = "better" if info.goal is not None else "higher"
    amount = f"{_as_text(abs(difference) * factor)}{unit}"
    if made.test is None:
        return (
            f"{ahead.label} is {word} than {behind.label} by {amount} in {info.label}. "
            f"No interval: {made.why_no_interval}."
        )
    flip = sign if difference >= 0 else -sign
    low, high = sorted((flip * made.test.low * factor, flip * made.test.high * factor))
    size = f"{made.count} pairs" if made.is_paired else f"{len(made.a.values)} and {len(made.b.values)} seeds"
    interval = f"95% CI {_as_text(low)} to {_as_text(high)}, {size}"
    if low <= 0 <= high:
        return (
            f"No difference is shown between {made.a.label} and {made.b.label} in {info.label}: "
            f"{ahead.label} is {word} by {amount}, {interval}."
        )
    return f"{ahead.label} is {word} than {behind.label} by {amount} in {info.label}, {interval}."


def _named(info: MetricInfo, which: Which) -> MetricInfo:
    """The metric with a label that says which of its values are compared."""
    is_best = which == "best" and info.goal is not None
    return replace(info, label=f"best {info.label}" if is_best else f"{info.label} of the last epoch")


def _as_text(value: float) -> str:
    """A number with two decimals, or two significant digits if the decimals would be zeros."""
    return f"{value:.2f}" if value == 0 or 0.005 <= abs(value) < 1e5 else f"{value:.1e}"
