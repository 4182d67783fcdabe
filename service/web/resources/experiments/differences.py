"""Why two jobs have different results."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response

from service.application.experiments import differences
from service.application.jobs import Jobs
from service.jobs.request_bodies import Investigation
from service.web.core.core import core, owner, provided
from service.web.gate.access_checks import actor
from service.web.http import requests, slots
from service.web.http.endpoint import endpoint
from service.web.http.problems import Problem
from service.web.resources.jobs.jobs import submitted_job
from service.web.schemas.experiments.differences import DifferenceQuery, DifferencesAnswer
from service.web.schemas.jobs import JobDetail

blueprint: Final = Blueprint("differences", __name__)

TAG: Final = "Experiments"
_PROBLEMS: Final = ("job_not_found", "sweep_not_found", "trial_not_found", "busy")


@blueprint.get("/differences")
@endpoint(TAG, DifferencesAnswer, query=DifferenceQuery, problems=_PROBLEMS)
def show(query: DifferenceQuery) -> DifferencesAnswer:
    """Show how two jobs differ: spec, data, provenance, and the first epoch with different results.

    `checkpoint` is the first epoch in which both have a checkpoint and the tensors differ, with the first differing
    element. Nothing is trained. Of a trial, it is the job that has the other's seed, or that of its first seed.
    """
    with slots.hold(slots.COMPUTING):
        result = differences.find(core().database, core().artifacts, query.a, query.b, owner=owner())
    return DifferencesAnswer.of(result)


@blueprint.post("/differences")
@endpoint(
    TAG,
    JobDetail,
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
    try:
        with slots.hold(slots.COMPUTING):
            submitted = differences.request(provided(Jobs), document, by=actor(), idempotency=idempotency)
    except differences.NotComparable as error:
        raise Problem("not_comparable", str(error)) from error
    return submitted_job(submitted)
