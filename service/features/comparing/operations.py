"""Comparisons of groups of jobs, of two jobs, and of the epochs of one."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from flask import Blueprint, Response

from service.application.jobs import Jobs
from service.features.comparing.schemas import (
    BisectionAnswer,
    BisectionQuery,
    ComparisonAnswer,
    ComparisonQuery,
    DifferenceQuery,
    DifferencesAnswer,
)
from service.jobs.differences import explanation
from service.jobs.differences.bisection import Limit, bisect
from service.jobs.request_bodies import Investigation
from service.sweeps import queries
from service.sweeps.results.comparison import compare_jobs
from service.web.core.core import core, owner, provided
from service.web.core.rooms import Operations
from service.web.gate.access_checks import actor, is_shared
from service.web.http import requests, slots
from service.web.http.endpoint import endpoint
from service.web.jobs.schemas import JobDetail
from service.web.jobs.views import submitted_response

blueprint: Final = Blueprint("comparisons", __name__)

TAG: Final = "Experiments"
_PROBLEMS: Final = ("job_not_found", "sweep_not_found", "trial_not_found", "busy")


@blueprint.get("/comparisons", endpoint="show")
@endpoint(
    TAG,
    ComparisonAnswer,
    query=ComparisonQuery,
    compares=("a", "b"),
    problems=("job_not_found", "sweep_not_found", "trial_not_found"),
)
def show_comparison(query: ComparisonQuery) -> ComparisonAnswer:
    """Compare two groups of jobs.

    Each group is one setting, trained with several seeds. Values with the same seed are paired; where fewer than two
    seeds are common, Welch's test is used. `interval` is the 95% confidence interval of the difference of the means.
    With one seed there is none, and `why_no_interval` says so. Jobs that were scored on different data (another
    dataset, version or split) get no verdict, nor do those that are the same: `comparable` is false.
    """
    with core().database.read() as session:
        comparison = compare_jobs(session, query.a, query.b, metric=query.metric, which=query.of, owner=owner())
    return ComparisonAnswer.of(comparison)


@blueprint.get("/jobs/<job_id>/bisection")
@endpoint(
    TAG,
    BisectionAnswer,
    name="bisection.show",
    query=BisectionQuery,
    problems=("job_not_found",),
    is_shown_by_links=True,
)
def show_bisection(job_id: str, query: BisectionQuery) -> BisectionAnswer:
    """Find the epoch from which a metric is too low or too high.

    Its last value must be bad. The epochs are halved, so 64 epochs take at most 6 probes. Values that are not finite
    are bad. A metric may turn bad more than once: `times` counts.
    """
    limit = Limit(below=query.below, above=query.above)
    with core().database.read() as session:
        return BisectionAnswer.from_row(bisect(session, job_id, query.metric, limit, owner=owner()))


@blueprint.get("/differences")
@endpoint(
    TAG, DifferencesAnswer, name="differences.show", query=DifferenceQuery, compares=("a", "b"), problems=_PROBLEMS
)
def show_differences(query: DifferenceQuery) -> DifferencesAnswer:
    """Show how two jobs differ: spec, data, provenance, and the first epoch with different results.

    `checkpoint` is the first epoch in which both have a checkpoint and the tensors differ, with the first differing
    element. Nothing is trained. Of a trial, it is the job that has the other's seed, or that of its first seed.
    """
    with slots.hold(slots.COMPUTING):
        result = explanation.find(
            core().database, core().artifacts, partial(queries.pair, a=query.a, b=query.b, owner=owner())
        )
    answer = DifferencesAnswer.of(result)
    return answer.model_copy(update={"provenance": []}) if is_shared() else answer


@blueprint.post("/differences")
@endpoint(
    TAG,
    JobDetail,
    name="differences.investigate",
    status=201,
    headers=("Idempotency-Key",),
    document=Investigation,
    problems=(*_PROBLEMS, "not_comparable", "idempotency_conflict", "quota_exceeded"),
)
def investigate(document: Any) -> Response:
    """Find the batch, tensor and element at which two jobs diverge: submit a job that retrains both.

    A worker retrains them side by side, from the last epoch with equal checkpoints, until their weights differ or a
    stored result does not match its retraining. The new job's `investigation` has the result.
    """
    idempotency = requests.idempotency_key(document)
    with slots.hold(slots.COMPUTING):
        return submitted_response(provided(Jobs).investigate(document, by=actor(), idempotency=idempotency))


OPERATIONS: Final = Operations(blueprint=blueprint)
