"""Jobs: submit, list, show, change and control them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from flask import Blueprint, Response, request

from service.application.jobs import Jobs, Submitted
from service.application.specs import NetworkMismatch, priority_faults
from service.errors import FoldsNotFound, JobNotFound, SpecError
from service.jobs import actions
from service.jobs.queries import columns, folds, listing
from service.jobs.queries.columns import Column
from service.jobs.request_bodies import ForkRequest, JobPatch
from service.states import Action
from service.storage.database import Database
from service.storage.tables import Job
from service.web.core.core import core, owner, provided, read_job
from service.web.gate.access_checks import actor
from service.web.http import downloads, problems, requests
from service.web.http.endpoint import Result, endpoint
from service.web.http.path_parameters import PathParameter
from service.web.http.problems import Problem
from service.web.http.queries import SubmitQuery
from service.web.http.responses import as_json, etag_of, tagged_json
from service.web.jobs.listing import (
    MAX_CSV_ROWS,
    ColumnList,
    FilterQuery,
    GroupQuery,
    JobGroupList,
    JobList,
    ListQuery,
    PageQuery,
    column_item,
    csv_lines,
)
from service.web.jobs.schemas import DryRun, FoldSet, JobDetail, NetworkItem, SubmittedJob, read_detail
from service.web.jobs.stream import wait_for_change
from service.web.streaming.poller import Poller

blueprint: Final = Blueprint("jobs", __name__)

TAG: Final = "Jobs"
JOB_ID: Final = PathParameter(
    "job_id",
    "A job's id.",
    "job_01J00000000000000000000000",
    not_found=lambda path: JobNotFound(path["job_id"][:60]),
    owner=(Job.id, Job.owner),
)
GROUP: Final = PathParameter(
    "group",
    "`fold_group` of a job.",
    "folds_01J00000000000000000000000",
    not_found=lambda path: FoldsNotFound(path["group"][:60]),
)
_NOT_FOUND: Final = ("job_not_found",)


@blueprint.post("/jobs")
@endpoint(
    TAG,
    SubmittedJob,
    status=201,
    query=SubmitQuery,
    headers=("Idempotency-Key", "traceparent"),
    document="spec",
    other_responses={200: DryRun},
    problems=("idempotency_conflict", "quota_exceeded"),
)
def submit(query: SubmitQuery, document: Any) -> Response:
    """Submit a job.

    The response is sent as soon as the job is stored. A repeated request with the same `Idempotency-Key` gets the same
    response, with `Idempotency-Replayed: true`, and creates no second job. With `dry_run=true` nothing is stored.

    A spec with `dataset.folds` and no `dataset.fold` is a cross-validation: one job for each fold, all of them or none.
    The response is the first one; `fold_jobs` has the ids of all, and `GET /folds/{fold_group}` their results.

    A spec of the `kind` `prediction` submits a prediction job. `model` is a version of a model (`digits@champion`,
    `digits:3`), or a job's id for its best checkpoint, with `@latest` or `@7` for another one. The reference is
    resolved at the submission: `resolved.model` has the job, the epoch and the SHA-256 of the checkpoint. The result is
    a CSV file, the artifact of the kind `predictions`. Such a job can be cancelled, retried and deleted.
    """
    if query.dry_run:
        return _dry_run(document)
    idempotency = requests.idempotency_key(document)
    return submitted_response(provided(Jobs).submit(document, by=actor(), idempotency=idempotency))


@blueprint.get("/jobs/<job_id>")
@endpoint(
    TAG,
    JobDetail,
    headers=("If-None-Match", "Prefer"),
    other_responses={304: "The job has not changed."},
    problems=(*_NOT_FOUND, "quota_exceeded"),
    page="/ui/jobs/{job_id}",
    is_shown_by_links=True,
)
def show(job_id: str) -> Response:
    """Show a job.

    Long polling: with `If-None-Match` and `Prefer: wait=30` the response is delayed until the job changes, or 30 s.
    """
    with read_job(job_id) as (session, job):
        response = tagged_json(read_detail(session, job))
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
    """Change a job's name, tags, priority, budget, star or note.

    A merge patch (RFC 7396): omitted fields are unchanged, null clears a field. `If-Match` prevents overwriting a
    concurrent change.
    """
    if faults := priority_faults(body.priority or 0, core().quotas.max_priority(owner())):
        raise SpecError(faults)
    job = actions.change(core().database, job_id, body, owner=owner(), by=actor(), check=_check_if_match)
    return tagged_json(_detail(job))


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
    return _act(job_id, Action.CANCEL)


@blueprint.post("/jobs/<job_id>/pause")
@endpoint(TAG, JobDetail, status=202, problems=(*_NOT_FOUND, "illegal_transition"))
def pause(job_id: str) -> Result:
    """Pause a running job.

    It stops after the current batch. When it resumes, the current epoch is trained again.
    """
    return _act(job_id, Action.PAUSE)


@blueprint.post("/jobs/<job_id>/resume")
@endpoint(TAG, JobDetail, status=202, problems=(*_NOT_FOUND, "illegal_transition", "budget_spent"))
def resume(job_id: str) -> Result:
    """Continue a paused job from its last checkpoint."""
    return _act(job_id, Action.RESUME)


@blueprint.post("/jobs/<job_id>/retry")
@endpoint(TAG, JobDetail, status=202, problems=(*_NOT_FOUND, "illegal_transition", "budget_spent"))
def retry(job_id: str) -> Result:
    """Continue a failed job from its last checkpoint."""
    return _act(job_id, Action.RETRY)


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
        "store_unavailable",
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
    return submitted_response(provided(Jobs).fork(job_id, document, by=actor(), idempotency=idempotency))


@blueprint.post("/jobs/<job_id>/reproduce")
@endpoint(
    TAG,
    JobDetail,
    status=201,
    headers=("Idempotency-Key",),
    problems=(
        *_NOT_FOUND,
        "artifact_damaged",
        "store_unavailable",
        "idempotency_conflict",
        "illegal_transition",
        "quota_exceeded",
    ),
)
def reproduce(job_id: str) -> Response:
    """Reproduce a succeeded job: train it again and compare every epoch.

    `reproduction` of the new job says whether all results are bit-identical, or which epoch is the first to differ. The
    reproduction of `first` is named `first (reproduced)`.
    """
    idempotency = requests.idempotency_key(None)
    return submitted_response(provided(Jobs).reproduce(job_id, by=actor(), idempotency=idempotency))


def _detail(job: Job) -> JobDetail:
    with core().database.read() as session:
        return read_detail(session, job)


def submitted_response(submitted: Submitted, collection: str = "/jobs") -> Response:
    """The stored response, which a repeated request gets unchanged."""
    headers = {"Location": f"{collection}/{submitted.answer['id']}"}
    if submitted.replayed:
        headers["Idempotency-Replayed"] = "true"
    return as_json(submitted.answer, 201, headers=headers)


def _dry_run(document: Any) -> Response:
    try:
        return as_json(DryRun.of(provided(Jobs).forecast(document, by=actor())))
    except NetworkMismatch as error:
        # A form shows at which layer a network stops fitting.
        networks = [NetworkItem.from_row(network).model_dump(mode="json") for network in error.networks]
        return problems.invalid_spec(error, resolved=error.spec.model_dump(mode="json"), networks=networks)


def _act(job_id: str, action: Action) -> Result:
    return _detail(provided(Jobs).act(job_id, action, by=actor())), {"Location": f"/jobs/{job_id}"}


_FIRST_IN_CSV: Final = ("id", "name")
_PLAIN_CSV: Final = (
    "kind", "status", "tags", "preset", "dataset", "epoch", "epochs", "train_loss", "val_loss", "val_accuracy",
    "frechet_distance", "created_at", "duration", "parent",
)  # fmt: skip
_BATCH_SIZE: Final = 500
"""Jobs that a CSV download reads per transaction."""


@blueprint.get("/jobs")
@endpoint(
    TAG,
    JobList,
    query=ListQuery,
    other_media=("text/csv",),
    other_responses={
        200: "With `format=csv`: `id`, `name` and the selected columns; `X-Total-Count` is the number of matching jobs."
    },
    problems=("invalid_cursor", "owner_not_found"),
    page="/",
)
def show_list(query: ListQuery) -> Result:
    """List jobs.

    Pages stay consistent while jobs are added: `next_cursor` is a position in the order, not an offset. `columns` adds
    properties, settings and metrics to each job.
    """
    if query.format == "csv":
        return _as_csv(query)
    return list_jobs(query)


@blueprint.get("/jobs/columns")
@endpoint(TAG, ColumnList, query=FilterQuery, problems=("owner_not_found",))
def show_columns(query: FilterQuery) -> ColumnList:
    """List the available columns.

    These are all properties, and the settings and metrics of the newest 2,000 jobs. `values` of a setting lists the
    values in which these jobs differ.
    """
    with core().database.read() as session:
        values_by_column = listing.columns_of(session, query.job_filter, owner=owner())
    return ColumnList(data=[column_item(column, values) for column, values in values_by_column])


@blueprint.get("/jobs/groups")
@endpoint(TAG, JobGroupList, query=GroupQuery, problems=("owner_not_found",))
def show_groups(query: GroupQuery) -> JobGroupList:
    """List jobs in groups.

    Each group has its number of jobs and the best value of each metric in `columns`. Add `query` of a group to the
    parameters of `GET /jobs` to list its jobs. A job with several tags is in several groups.
    """
    with core().database.read() as session:
        return JobGroupList.read(session, query, owner=owner())


def list_jobs(query: PageQuery) -> JobList:
    """A page of jobs.

    Raises:
        InvalidCursor: this service did not issue the cursor, or issued it for another sort order.
    """
    with core().database.read() as session:
        return JobList.read(session, query, owner=owner())


def _as_csv(query: ListQuery) -> Response:
    unsupported = query.model_fields_set & {"limit", "cursor", "counts", "one_per_sweep"}
    if unsupported:
        names = ", ".join(sorted(unsupported))
        raise Problem("invalid_parameter", f"{names}: not allowed with format=csv, which returns all jobs")
    selected = [columns.parse(name) for name in dict.fromkeys([*_FIRST_IN_CSV, *(query.columns or _PLAIN_CSV)])]
    database = core().database
    with database.read() as session:
        counts = listing.counts(session, query.job_filter, owner=owner())
        job_ids = listing.ids(session, query.job_filter, owner=owner(), sort=query.sort, limit=MAX_CSV_ROWS)
    rows = _rows(database, job_ids, selected)
    response = downloads.send_text(csv_lines(selected, rows), name="tapeline-jobs.csv", media_type="text/csv")
    total = sum(count for status, count in counts.items() if not query.status or status in query.status)
    response.headers["X-Total-Count"] = str(total)
    return response


def _rows(database: Database, job_ids: Sequence[str], selected: Sequence[Column]) -> Iterator[Job]:
    """Read jobs in batches, so that neither memory nor a transaction holds all of them."""
    needs_specs = any(column.needs_spec for column in selected)
    for start in range(0, len(job_ids), _BATCH_SIZE):
        with database.read() as session:
            jobs = listing.load(session, job_ids[start : start + _BATCH_SIZE], specs=needs_specs)
        yield from jobs


@blueprint.get("/folds/<group>")
@endpoint(TAG, FoldSet, problems=("folds_not_found",))
def show_folds(group: str) -> FoldSet:
    """Show a cross-validation: the job of each fold, and the mean of their metrics with its 95% interval.

    The interval is Student's t over the folds that have succeeded. Their training parts overlap, so it is an
    approximation.
    """
    with core().database.read() as session:
        return FoldSet.of(group, folds.jobs(session, group, owner=owner()))
