"""Compares two groups of jobs, with one value per seed, by a t interval for the difference of their means.

Jobs are paired by seed if both groups have the same seeds, so that effects of the seed on both sides cancel out. A
single seed does not show how much results vary, so it gets no interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from pydantic import ConfigDict
from sqlalchemy.orm import Session

from service import kinds, statistics
from service.errors import JobNotFound, UnusableParameter
from service.jobs.queries import listing, lookup
from service.schema.metrics import Goal, MetricInfo
from service.spec import splits
from service.spec.fields import suggest_metric
from service.spec.metric_info import METRICS, TEST_SCORES, describe
from service.statistics import CONFIDENCE, Test
from service.storage.tables import Job
from service.sweeps import queries
from service.wording import counted, listed

IT: Final = "it"
"""The label of a group in a sentence that follows its name."""
_FEW_EXAMPLES: Final = 1000
_ROUNDING: Final = 1e-12
"""Relative size of a difference that is due to the rounding of floats."""

Which = Literal["last", "best"]
"""Which value of a metric to compare: that of the last epoch, or the best of all epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedJob:
    """A job of a group."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    job: str
    seed: int
    value: float | None
    """Null: the job has no finite value of the metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Jobs that differ only in their seeds."""

    label: str
    jobs: Sequence[ComparedJob]

    @property
    def values(self) -> dict[int, float]:
        """The values by seed."""
        return {job.seed: job.value for job in self.jobs if job.value is not None}


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
    confidence: float = CONFIDENCE
    no_verdict: str | None = None
    """The sentence if there is no verdict, because the data differ or the jobs are the same."""

    @property
    def is_paired(self) -> bool:
        """Whether the values are paired by seed."""
        return bool(self.seeds)

    @property
    def count(self) -> int:
        """Number of pairs, or of values on both sides."""
        return len(self.seeds) if self.is_paired else len(self.a.values) + len(self.b.values)

    @property
    def varies(self) -> bool:
        """Whether the differences vary. If they do not, the interval has no width."""
        return self.test is not None and not _is_zero(self.test.high - self.test.low, self)

    @property
    def sentence(self) -> str:
        """The result as a sentence."""
        return self.no_verdict or _sentence(self)


def contains_zero(result: Comparison) -> bool:
    """Whether the interval of the difference contains 0, apart from rounding."""
    test = result.test
    return test is not None and (test.low <= 0 <= test.high or _is_zero(test.difference, result))


def value_of(job: Job, metric: str, which: Which = "last") -> float | None:
    """The value of a metric of a job; ``None`` if there is no finite one."""
    value = job.metrics.get(metric, (job.test_scores or {}).get(metric))
    goal = describe(metric).goal
    if which == "best" and goal is not None and metric not in TEST_SCORES:
        value = job.extremes.get(metric, {}).get("max" if goal is Goal.MAXIMIZE else "min")
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def group(label: str, jobs: Sequence[Job], metric: str, which: Which = "last") -> Group:
    """A group of jobs with their values of a metric.

    Raises:
        ValueError: two jobs have the same seed.
    """
    members = [
        ComparedJob(job=job.id, seed=job.resolved["seed"], value=value_of(job, metric, which))
        for job in sorted(jobs, key=lambda job: (job.resolved["seed"], job.id))
    ]
    for a, b in itertools.pairwise(members):
        if a.seed == b.seed:
            raise ValueError(f"{a.job} and {b.job} both have seed {a.seed}: a group is one setting with several seeds")
    return Group(label=label, jobs=members)


def compare(
    metric: str,
    a: Group,
    b: Group,
    *,
    which: Which = "last",
    notes: Sequence[str] = (),
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare two groups: by the paired t test if they share at least two seeds, otherwise by Welch's test."""
    first, second = a.values, b.values
    common_seeds = sorted(first.keys() & second.keys())
    all_notes = [*notes, *_without_value(metric, a, b)]
    seeds: Sequence[int] = ()
    test = reason = None
    difference: float | None = None
    if len(common_seeds) > 1:
        seeds = common_seeds
        test = statistics.paired(_values_at(first, seeds), _values_at(second, seeds), confidence=confidence)
        if unpaired := sorted((first.keys() | second.keys()) - set(seeds)):
            all_notes.append(f"seeds that only one side has are ignored: {', '.join(map(str, unpaired))}")
    elif len(first) > 1 and len(second) > 1:
        test = statistics.welch(list(first.values()), list(second.values()), confidence=confidence)
        have = f"share only seed {common_seeds[0]}, and pairing needs two" if common_seeds else "have different seeds"
        all_notes.append(f"the sides {have}, so the values are not paired")
    elif not first or not second:
        missing = a.label if not first else b.label
        reason = f"{missing} has no value of {metric} yet"
    else:
        single = a.label if len(first) == 1 else b.label
        both = len(first) == 1 and len(second) == 1
        reason = (
            f"{'with one seed each,' if both else f'{single} has one seed:'} the variation between seeds is unknown"
        )
        difference = statistics.mean(list(second.values())) - statistics.mean(list(first.values()))
    if test is not None:
        lowest, highest = describe(metric).limits
        span = highest - lowest  # no difference of means is larger
        test = replace(test, low=max(test.low, -span), high=min(test.high, span))
        difference = test.difference
    elif reason is None or (difference is not None and not math.isfinite(difference)):
        seeds, difference, reason = (), None, f"the values of {metric} are too large to compare"
    result = Comparison(
        metric=metric,
        a=a,
        b=b,
        seeds=seeds,
        which=which,
        difference=difference,
        test=test,
        why_no_interval=reason,
        notes=all_notes,
        confidence=confidence,
    )
    if test is not None and not result.varies and not _is_zero(test.difference, result):
        all_notes.append(
            "the differences do not vary, which can be chance where a metric has few distinct values and there are few "
            "seeds: the interval and p say nothing here"
        )
    return result


def _values_at(values: Mapping[int, float], seeds: Sequence[int]) -> list[float]:
    return [values[seed] for seed in seeds]


def _without_value(metric: str, *groups: Group) -> list[str]:
    missing = [job.job for group in groups for job in group.jobs if job.value is None]
    return [f"no finite value of {metric}: {', '.join(missing)}"] if missing else []


def _sentence(result: Comparison) -> str:
    if result.difference is None:
        return f"There is nothing to compare: {result.why_no_interval}."
    info = _relabel(describe(result.metric), result.which)
    sign = -1.0 if info.goal is Goal.MINIMIZE else 1.0
    leading, trailing = (result.b, result.a) if sign * result.difference >= 0 else (result.a, result.b)
    is_equal = _is_zero(result.difference, result)
    amount = _amount(abs(result.difference), info)
    # As a plain observation, where the data do not support a verdict.
    observed = f"{leading.label} was {amount} {'lower' if sign < 0 else 'higher'} than {trailing.label} in {info.label}"
    if is_equal:
        observed = f"{result.a.label} and {result.b.label} were equal in {info.label}"
    if result.test is None:
        claim = "that they are equally good" if is_equal else "that it is better" if info.goal else "a difference"
        seeds = _seeds(result)
        return f"{observed}, {seeds}. This does not show {claim}: the variation between seeds is unknown."
    level = f"{100 * result.confidence:.4g}%"
    pairs = (
        counted(result.count, "pair")
        if result.is_paired
        else f"{len(result.a.values)} and {len(result.b.values)} seeds"
    )
    if not result.varies:
        scope = f"in each of {pairs}" if result.is_paired else f"with {pairs}, all equal on each side"
        return f"{observed}, {scope}." if is_equal else f"{observed}, {scope}: the {level} CI has no width."
    flip = math.copysign(1.0, result.difference)  # the interval of the leading group's advantage
    low, high = sorted((flip * result.test.low, flip * result.test.high))
    interval = f"{level} CI over seeds {_number(low, info)} to {_number(high, info)}, {pairs}"
    word = "better" if info.goal is not None else "higher"
    if low <= 0 <= high:
        of_leading = "Its mean" if leading.label == IT else f"The mean of {leading.label}"
        relation = "equal to" if is_equal else f"{amount} {'lower' if sign < 0 else 'higher'} than"
        return (
            f"{of_leading} is {relation} that of {trailing.label} in {info.label}, {interval}: the interval contains "
            "0, so no difference is shown."
        )
    return f"{leading.label} is {word} than {trailing.label} by {amount} in {info.label}, {interval}."


def _seeds(result: Comparison) -> str:
    if len(result.a.values) == len(result.b.values) == 1:
        return "with one seed each"
    return f"with one seed of {result.a.label if len(result.a.values) == 1 else result.b.label}"


def _is_zero(value: float, result: Comparison) -> bool:
    """Whether a difference is zero, or no more than the rounding of the values that it comes from."""
    scale = max(abs(item) for side in (result.a, result.b) for item in side.values.values())
    return abs(value) <= _ROUNDING * scale


def _amount(value: float, info: MetricInfo) -> str:
    return f"{_number(value, info)}{' points' if info.percent else ''}"


def _number(value: float, info: MetricInfo) -> str:
    return _as_text(value * (100.0 if info.percent else 1.0))


def _relabel(info: MetricInfo, which: Which) -> MetricInfo:
    """The metric with a label that states which of its values are compared."""
    is_best = which == "best" and info.goal is not None
    return replace(info, label=f"best {info.label}" if is_best else f"{info.label} of the last epoch")


def _as_text(value: float) -> str:
    """A number with two decimals, or two significant digits if the decimals would be zeros."""
    if value == 0 or 0.005 <= abs(value) < 1e5:
        return f"{value:.2f}"
    return f"{value:.{1 - math.floor(math.log10(abs(value)))}f}" if 1e-7 < abs(value) < 1 else f"{value:.1e}"


_NOT_COMPARED: Final = {"seed", "name", "tags", "priority", "reuse"}


def compare_jobs(
    session: Session,
    a: Sequence[str],
    b: Sequence[str],
    *,
    metric: str | None,
    which: Which,
    owner: str | None,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare two groups of jobs by a metric.

    Raises:
        JobNotFound, SweepNotFound, TrialNotFound: a job or trial does not exist.
        UnusableParameter: the groups cannot be compared by this metric.
    """
    names = {"a": a, "b": b}
    sides = {side: _jobs(session, side_names, owner) for side, side_names in names.items()}
    for side, jobs in sides.items():
        if not jobs:
            raise UnusableParameter(side, "the trial has no jobs: its settings are not valid")
    for side, jobs in sides.items():
        for job in jobs:
            lookup.require_training(side, job)
    found = {job.kind for jobs in sides.values() for job in jobs}
    if len(found) > 1:
        raise UnusableParameter("b", f"jobs of the kinds {listed(sorted(found))} cannot be compared by one metric")
    metric = metric or kinds.of(found.pop()).key_metrics[0]
    measured = {name for jobs in sides.values() for job in jobs for name in job.metrics}
    if metric not in measured and metric not in METRICS:
        suggestion = suggest_metric(metric, sorted(measured), "they have")
        raise UnusableParameter("metric", f"the jobs have no metric {metric!r}; {suggestion}")
    groups, notes = [], list[str]()
    for name, jobs in sides.items():
        try:
            label = _label(session, name, names[name], jobs)
            groups.append(group(label, jobs, metric, which))
        except ValueError as error:
            raise UnusableParameter(name, str(error)) from error
        notes += _note_unequal_settings(name, jobs)
    if groups[0].label == groups[1].label:
        groups = [group(name, sides[name], metric, which) for name in sides]
    notes += _note_unequal_epochs({side.label: sides[name] for name, side in zip(sides, groups, strict=True)})
    result = compare(metric, *groups, which=which, notes=notes, confidence=confidence)
    if result.varies:
        result = replace(result, notes=[*result.notes, *_note_one_example(session, metric, sides)])
    match _why_not(*sides.values()):
        case None:
            return result
        case splits.SAME_JOBS:
            return replace(result, no_verdict=splits.SAME_JOBS, notes=())
        case why:
            nothing: dict[str, Any] = {"seeds": (), "difference": None, "test": None, "notes": ()}
            return replace(result, no_verdict=why, why_no_interval=why, **nothing)


def _jobs(session: Session, names: Sequence[str], owner: str | None) -> Sequence[Job]:
    job_ids = list(dict.fromkeys(job_id for name in names for job_id in _ids(session, name, owner)))
    jobs = lookup.several(session, job_ids, owner=owner)
    if missing := set(job_ids) - {job.id for job in jobs}:
        raise JobNotFound(min(missing))
    return jobs


def _ids(session: Session, name: str, owner: str | None) -> Sequence[str]:
    """The job ids of a side: one job, a trial (``swp_…:3``), or the best trial of a sweep."""
    return list(queries.jobs_of_trial(session, name, owner=owner).values()) if queries.names_trial(name) else [name]


def _label(session: Session, side: str, names: Sequence[str], jobs: Sequence[Job]) -> str:
    """The name that all jobs share; or that of their trial, if ``names`` begins with one or with a sweep; or
    the side's name."""
    titles = {listing.title(job.id, job.name, job.kind) for job in jobs}
    if len(titles) == 1 and not queries.names_trial(names[0]):
        return titles.pop()
    [(sweep_id, trial), *others] = {(job.sweep_id, job.trial) for job in jobs}
    if sweep_id is None or trial is None or others:
        return titles.pop() if len(titles) == 1 else side
    return queries.trial_title(queries.get(session, sweep_id), trial)


def _why_not(a: Sequence[Job], b: Sequence[Job]) -> str | None:
    """Why the sides get no verdict. Pairs of jobs with the same seed need the same data only within each pair."""
    facts = {job.id: {name: getattr(job, name) for name in splits.COMPARED_FACTS} for job in (*a, *b)}
    by_seed = [{job.resolved["seed"]: facts[job.id] for job in side} for side in (a, b)]
    common_seeds = by_seed[0].keys() & by_seed[1].keys()
    pairs = [[side[seed] for side in by_seed] for seed in common_seeds]
    if len(pairs) == max(map(len, by_seed)) and all(splits.are_same(*pair) for pair in pairs):
        return splits.SAME_JOBS
    compared = pairs if len(pairs) > 1 else [list(facts.values())]
    return next((why for jobs in compared if (why := splits.data_difference(jobs))), None)


def _note_unequal_settings(name: str, jobs: Sequence[Job]) -> Iterator[str]:
    settings = [_settings(job.resolved) for job in jobs]
    if any(other != settings[0] for other in settings[1:]):
        yield f"the jobs of {name} differ in more than the seed, and the interval covers all of these differences"
    unfinished = [job.id for job in jobs if job.finished_ms is None]
    if unfinished:
        yield f"not finished yet: {', '.join(unfinished)}"


def _note_one_example(session: Session, metric: str, sides: Mapping[str, Sequence[Job]]) -> Iterator[str]:
    """What a single validation example is worth, if there are few."""
    counts = set(lookup.validation_counts(session, [job for jobs in sides.values() for job in jobs]).values())
    if metric == "val_accuracy" and counts and min(counts) < _FEW_EXAMPLES:
        yield (
            f"the interval covers the seeds, not the choice of the {min(counts)} validation examples: one of them is "
            f"{100 / min(counts):.2f} points"
        )


def _note_unequal_epochs(sides: Mapping[str, Sequence[Job]]) -> Iterator[str]:
    trained = {label: sorted({job.epoch for job in jobs if job.epoch}) for label, jobs in sides.items()}
    if all(trained.values()) and len({epoch for epochs in trained.values() for epoch in epochs}) > 1:
        counts = [
            f"{label} after epoch {epochs[0]}" + (f" to {epochs[-1]}" if len(epochs) > 1 else "")
            for label, epochs in trained.items()
        ]
        yield f"the epochs differ, which can explain a difference: {', '.join(counts)}"


def _settings(resolved: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in resolved.items() if field not in _NOT_COMPARED}
