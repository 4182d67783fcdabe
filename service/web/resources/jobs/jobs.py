"""Jobs: submit, show, change and control them."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, request

from service.application.jobs import Jobs, Submitted
from service.application.specs import NetworkMismatch
from service.jobs.request_bodies import ForkRequest, JobPatch
from service.storage.tables import Job
from service.web.core.core import provided
from service.web.gate.access_checks import actor
from service.web.http import problems, requests
from service.web.http.endpoint import Result, endpoint
from service.web.http.problems import Problem
from service.web.http.queries import SubmitQuery
from service.web.http.responses import as_json, etag_of, tagged_json
from service.web.jobs.stream import wait_for_change
from service.web.schemas.jobs import DryRun, JobDetail, SubmittedJob, job_detail, network_item
from service.web.streaming.poller import Poller

blueprint: Final = Blueprint("jobs", __name__)

TAG: Final = "Jobs"
_NOT_FOUND: Final = ("job_not_found",)


@blueprint.post("/jobs")
@endpoint(
    TAG,
    SubmittedJob,
    status=201,
    query=SubmitQuery,
    headers=("Idempotency-Key",),
    document="spec",
    also={200: DryRun},
    problems=("idempotency_conflict", "quota_exceeded"),
)
def submit(query: SubmitQuery, document: Any) -> Response:
    """Submit a job.

    The response is sent as soon as the job is stored. A repeated request with the same `Idempotency-Key` gets the same
    response, with `Idempotency-Replayed: true`, and creates no second job. With `dry_run=true` nothing is stored.

    A spec with `dataset.folds` and no `dataset.fold` is a cross-validation: one job for each fold, all of them or none.
    The response is the first one; `fold_jobs` has the ids of all, and `GET /folds/{fold_group}` their results.
    """
    if query.dry_run:
        return _dry_run(document)
    idempotency = requests.idempotency_key(document)
    return submitted_job(provided(Jobs).submit(document, by=actor(), idempotency=idempotency))


@blueprint.get("/jobs/<job_id>")
@endpoint(
    TAG,
    JobDetail,
    headers=("If-None-Match", "Prefer"),
    also={304: "The job has not changed."},
    problems=(*_NOT_FOUND, "quota_exceeded"),
    page="/ui/jobs/{job_id}",
)
def show(job_id: str) -> Response:
    """Show a job.

    Long polling: with `If-None-Match` and `Prefer: wait=30` the response is delayed until the job changes, or 30 s.
    """
    response = tagged_json(_detail(provided(Jobs).get(job_id, by=actor())))
    wait_s = requests.preferred_wait_s()
    if response.status_code == 304 and wait_s and not provided(Poller).is_full:
        response = wait_for_change(job_id, wait_s)
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    return response


@blueprint.patch("/jobs/<job_id>")
@endpoint(
    TAG,
    JobDetail,
    headers=("If-Match",),
    body=JobPatch,
    body_media="application/merge-patch+json",
    problems=(*_NOT_FOUND, "precondition_failed"),
)
def change(job_id: str, body: JobPatch) -> Response:
    """Change a job's name, tags, priority, star or note.

    A merge patch (RFC 7396): omitted fields are unchanged, null clears a field. `If-Match` prevents overwriting a
    concurrent change.
    """

    return tagged_json(_detail(provided(Jobs).change(job_id, body, by=actor(), check=_check_if_match)))


def _check_if_match(job: Job) -> None:
    if request.if_match and not request.if_match.contains(etag_of(_detail(job))):
        raise Problem(
            "precondition_failed", "the job has changed since you read it: read it again, then repeat the change"
        )


@blueprint.delete("/jobs/<job_id>")
@endpoint(TAG, None, status=204, problems=(*_NOT_FOUND, "illegal_transition"))
def delete(job_id: str) -> None:
    """Delete an ended job with all its files."""
    provided(Jobs).delete(job_id, by=actor())


@blueprint.post("/jobs/<job_id>/cancel")
@endpoint(TAG, JobDetail, status=202, problems=(*_NOT_FOUND, "illegal_transition"))
def cancel(job_id: str) -> Result:
    """Cancel a job.

    A running job stops after the current batch, within about a second. Its results so far are kept.
    """
    return _accepted_response(provided(Jobs).cancel(job_id, by=actor()))


@blueprint.post("/jobs/<job_id>/pause")
@endpoint(TAG, JobDetail, status=202, problems=(*_NOT_FOUND, "illegal_transition"))
def pause(job_id: str) -> Result:
    """Pause a running job.

    It stops after the current batch. When it resumes, the current epoch is trained again.
    """
    return _accepted_response(provided(Jobs).pause(job_id, by=actor()))


@blueprint.post("/jobs/<job_id>/resume")
@endpoint(TAG, JobDetail, status=202, problems=(*_NOT_FOUND, "illegal_transition"))
def resume(job_id: str) -> Result:
    """Continue a paused job from its last checkpoint."""
    return _accepted_response(provided(Jobs).resume(job_id, by=actor()))


@blueprint.post("/jobs/<job_id>/retry")
@endpoint(TAG, JobDetail, status=202, problems=(*_NOT_FOUND, "illegal_transition"))
def retry(job_id: str) -> Result:
    """Continue a failed job from its last checkpoint."""
    return _accepted_response(provided(Jobs).retry(job_id, by=actor()))


@blueprint.post("/jobs/<job_id>/fork")
@endpoint(
    TAG,
    JobDetail,
    status=201,
    headers=("Idempotency-Key",),
    document=ForkRequest,
    problems=(
        *_NOT_FOUND,
        "artifact_not_found",
        "artifact_damaged",
        "idempotency_conflict",
        "illegal_transition",
        "quota_exceeded",
    ),
)
def fork(job_id: str, document: Any) -> Response:
    """Fork a job: submit a new job that continues from one of its checkpoints.

    `overrides` are merged into the resolved spec, and the result is validated. The new job starts with the weights of
    the checkpoint, and with the optimizer's state if the optimizer is unchanged; the shapes of the networks must not
    change. `start_epoch` of the new job is the epoch of the checkpoint. The checkpoint is copied, so the parent may be
    deleted. Without a `name` in the overrides, the fork of `first` is named `first-2`, or the next free number.
    """
    idempotency = requests.idempotency_key(document)
    return submitted_job(provided(Jobs).fork(job_id, document, by=actor(), idempotency=idempotency))


@blueprint.post("/jobs/<job_id>/reproduce")
@endpoint(
    TAG,
    JobDetail,
    status=201,
    headers=("Idempotency-Key",),
    problems=(*_NOT_FOUND, "artifact_damaged", "idempotency_conflict", "illegal_transition", "quota_exceeded"),
)
def reproduce(job_id: str) -> Response:
    """Reproduce a succeeded job: train it again and compare every epoch.

    `reproduction` of the new job says whether all results are bit-identical, or which epoch is the first to differ. The
    reproduction of `first` is named `first (reproduced)`.
    """
    idempotency = requests.idempotency_key(None)
    return submitted_job(provided(Jobs).reproduce(job_id, by=actor(), idempotency=idempotency))


def _detail(job: Job) -> JobDetail:
    return job_detail(job, stopped_by_sweep=provided(Jobs).is_stopped_by_sweep(job))


def submitted_job(submitted: Submitted) -> Response:
    """The stored response, which a repeated request gets unchanged."""
    headers = {"Location": f"/jobs/{submitted.answer['id']}"}
    if submitted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return as_json(submitted.answer, 201, headers=headers)


def _dry_run(document: Any) -> Response:
    try:
        return as_json(DryRun.of(provided(Jobs).dry_run(document, by=actor())))
    except NetworkMismatch as error:
        # A form shows at which layer a network stops fitting.
        networks = [network_item(network).model_dump(mode="json") for network in error.networks]
        return problems.invalid_spec(error, resolved=error.spec.model_dump(mode="json"), networks=networks)


def _accepted_response(job: Job) -> Result:
    return _detail(job), {"Location": f"/jobs/{job.id}"}
