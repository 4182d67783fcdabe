"""Use case: compare two groups of jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.orm import Session

from service.application.experiments.objectives import OBJECTIVES
from service.errors import JobNotFound, UnusableParameter
from service.jobs.queries import listing, lookup
from service.spec import splits
from service.spec.fields import suggest_metric
from service.spec.metric_info import METRICS
from service.spec.schema import Kind
from service.storage.tables import Job
from service.sweeps import comparison, queries
from service.sweeps.comparison import Comparison, Which

_NOT_COMPARED: Final = {"seed", "name", "tags", "priority", "reuse"}


def compare(
    session: Session, a: Sequence[str], b: Sequence[str], *, metric: str | None, which: Which, owner: str | None
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
    kinds = {job.kind for jobs in sides.values() for job in jobs}
    if len(kinds) > 1:
        raise UnusableParameter("b", "a classifier and a GAN have no metric in common")
    metric = metric or OBJECTIVES[Kind(kinds.pop())]
    measured = {name for jobs in sides.values() for job in jobs for name in job.metrics}
    if metric not in measured and metric not in METRICS:
        suggestion = suggest_metric(metric, sorted(measured), "they have")
        raise UnusableParameter("metric", f"the jobs have no metric {metric!r}; {suggestion}")
    groups, notes = [], list[str]()
    for name, jobs in sides.items():
        try:
            label = _label(session, name, names[name], jobs)
            groups.append(comparison.group(label, jobs, metric, which))
        except ValueError as error:
            raise UnusableParameter(name, str(error)) from error
        notes += _note_unequal_settings(name, jobs)
    if groups[0].label == groups[1].label:
        groups = [comparison.group(name, sides[name], metric, which) for name in sides]
    notes += _note_unequal_epochs({side.label: sides[name] for name, side in zip(sides, groups, strict=True)})
    result = comparison.compare(metric, *groups, which=which, notes=notes)
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
    return next((why for jobs in compared if (why := splits.differing_data(jobs))), None)


def _note_unequal_settings(name: str, jobs: Sequence[Job]) -> Iterator[str]:
    settings = [_settings(job.resolved) for job in jobs]
    if any(other != settings[0] for other in settings[1:]):
        yield f"the jobs of {name} differ in more than the seed, and the interval covers all of these differences"
    unfinished = [job.id for job in jobs if job.finished_ms is None]
    if unfinished:
        yield f"not finished yet: {', '.join(unfinished)}"


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
