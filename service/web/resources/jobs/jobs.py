"""Jobs: send one in, look at it, and say what should become of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from flask import Blueprint, Response, request

from service.datasets import DatasetError, DatasetInfo
from service.errors import Fault, IdempotencyConflict, JobNotFound, SpecError
from service.jobs import actions, names, submissions
from service.jobs.changes import ForkRequest, JobPatch
from service.jobs.queries import lookup
from service.jobs.submissions import Origin, Submission
from service.runtime.failpoints import reach
from service.spec import validation
from service.spec.estimation import costs
from service.spec.schema import Spec
from service.states import Action
from service.storage import ids
from service.storage.artifacts import ArtifactDamaged, ArtifactKind
from service.storage.tables import Artifact, Job
from service.web import checking
from service.web.answers import as_json, tag_of, tagged_json
from service.web.middleware import problems
from service.web.middleware.guard import actor, refused, still_open
from service.web.middleware.problems import Problem
from service.web.openapi.operations import documented
from service.web.schemas import queries
from service.web.schemas.queries import NoQuery, SubmitQuery
from service.web.schemas.representations import DryRun, JobDetail, job_detail
from service.web.services import owner, services
from service.web.streaming.stream import Permission

blueprint: Final = Blueprint("jobs", __name__)

TAG: Final = "Jobs"
_ONE: Final = ("job_not_found",)
_BODY: Final = ("malformed_json", "body_too_large", "unsupported_media_type", "invalid_spec")


@blueprint.post("/jobs")
@documented(
    TAG,
    JobDetail,
    status=201,
    query=SubmitQuery,
    headers=("Idempotency-Key",),
    takes_spec=True,
    also={200: DryRun},
    problems=(*_BODY, "idempotency_conflict", "quota_exceeded"),
)
def submit() -> Response:
    """Submit a job.

    The response is sent as soon as the job is stored. A repeated request with the same `Idempotency-Key` gets the same
    response, with `Idempotency-Replayed: true`, and creates no second job. With `dry_run=true` nothing is stored.
    """
    query = queries.read_query(SubmitQuery)
    document = queries.read_json()
    idempotency = queries.idempotency_key(document)
    here = services()
    if query.dry_run:
        return _dry_run(document)
    try:
        spec, data = checking.check(document)
        here.quotas.new_job(owner())
    except (SpecError, Problem):
        # What was accepted once is answered so again, whatever has changed since.
        earlier = _answered(idempotency)
        if earlier is None:
            raise
        return earlier
    submission = Submission(
        spec=document,
        resolved=spec,
        steps=costs.total_steps(spec, data.train_count),
        owner=owner(),
        upload_id=data.upload_id,
        dataset_sha256=data.sha256,
    )
    answer, replayed = submissions.submit(
        here.database, submission, idempotency=idempotency, represent=_represent, by=actor()
    )
    reach("submitted")
    if not replayed:
        here.publisher.wake(answer["id"])
    return _submitted(answer, replayed=replayed)


def _dry_run(document: Any) -> Response:
    spec, data = checking.resolve(document)
    shape = checking.shape_of(data)
    try:
        checking.check_fit(document, spec, shape)
    except SpecError as error:
        # A form shows at which layer a network stops fitting.
        resolved, networks = spec.model_dump(mode="json"), checking.networks(spec, shape)
        shown = [network.model_dump(mode="json") for network in networks]
        return problems.invalid_spec(error, resolved=resolved, networks=shown)
    return as_json(checking.dry_run(document, spec, shape))


def _submitted(answer: dict[str, Any], *, replayed: bool) -> Response:
    headers = {"Location": f"/jobs/{answer['id']}"}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return as_json(answer, 201, headers=headers)


@blueprint.get("/jobs/<job_id>")
@documented(
    TAG,
    JobDetail,
    headers=("If-None-Match", "Prefer"),
    also={304: "The job has not changed."},
    problems=(*_ONE, "quota_exceeded"),
    page="/ui/jobs/{job_id}",
)
def show(job_id: str) -> Response:
    """Show a job.

    Long polling: with `If-None-Match` and `Prefer: wait=30` the response is delayed until the job changes, or 30 s.
    """
    queries.read_query(NoQuery)
    response = tagged_json(_read(job_id))
    wait_s = queries.preferred_wait_s()
    if response.status_code == 304 and wait_s and not services().is_full:
        response = _wait_for_change(job_id, wait_s)
        response.headers["Preference-Applied"] = f"wait={wait_s}"
    return response


@blueprint.patch("/jobs/<job_id>")
@documented(
    TAG,
    JobDetail,
    headers=("If-Match",),
    takes=JobPatch,
    problems=(*_ONE, *_BODY, "precondition_failed"),
)
def change(job_id: str) -> Response:
    """Change a job's name, tags, priority, star or note.

    A merge patch (RFC 7396): omitted fields are unchanged, null clears a field. `If-Match` prevents overwriting a
    concurrent change.
    """
    queries.read_query(NoQuery)
    patch = validation.read_body(JobPatch, queries.read_json(also="application/merge-patch+json"))

    def check(job: Job) -> None:
        if request.if_match and not request.if_match.contains(tag_of(job_detail(job))):
            raise Problem(
                "precondition_failed", "the job has changed since you read it: read it again, then repeat the change"
            )

    return tagged_json(
        job_detail(actions.change(services().database, job_id, patch, owner=owner(), by=actor(), check=check))
    )


@blueprint.delete("/jobs/<job_id>")
@documented(TAG, None, status=204, problems=(*_ONE, "illegal_transition"))
def delete(job_id: str) -> Response:
    """Delete an ended job with all its files."""
    here = services()
    actions.remove(here.database, job_id, owner=owner(), by=actor())
    here.artifacts.remove_job(job_id)
    return Response(status=204)


@blueprint.post("/jobs/<job_id>/cancel")
@documented(TAG, JobDetail, status=202, problems=(*_ONE, "illegal_transition"))
def cancel(job_id: str) -> Response:
    """Cancel a job.

    A running job stops after the current batch, within about a second. Its results so far are kept.
    """
    return _accepted(actions.cancel(services().database, job_id, owner=owner(), by=actor()))


@blueprint.post("/jobs/<job_id>/pause")
@documented(TAG, JobDetail, status=202, problems=(*_ONE, "illegal_transition"))
def pause(job_id: str) -> Response:
    """Pause a running job.

    It stops after the current batch. When it resumes, the current epoch is trained again.
    """
    return _accepted(actions.pause(services().database, job_id, owner=owner(), by=actor()))


@blueprint.post("/jobs/<job_id>/resume")
@documented(TAG, JobDetail, status=202, problems=(*_ONE, "illegal_transition"))
def resume(job_id: str) -> Response:
    """Continue a paused job from its last checkpoint."""
    return _requeued(actions.resume(services().database, job_id, owner=owner(), by=actor()))


@blueprint.post("/jobs/<job_id>/retry")
@documented(TAG, JobDetail, status=202, problems=(*_ONE, "illegal_transition"))
def retry(job_id: str) -> Response:
    """Continue a failed job from its last checkpoint."""
    return _requeued(actions.retry(services().database, job_id, owner=owner(), by=actor()))


@blueprint.post("/jobs/<job_id>/fork")
@documented(
    TAG,
    JobDetail,
    status=201,
    headers=("Idempotency-Key",),
    takes=ForkRequest,
    problems=(
        *_ONE,
        *_BODY,
        "artifact_not_found",
        "artifact_damaged",
        "idempotency_conflict",
        "illegal_transition",
        "quota_exceeded",
    ),
)
def fork(job_id: str) -> Response:
    """Fork a job: submit a new job that continues from one of its checkpoints.

    `overrides` are merged into the resolved spec, and the result is validated. The new job starts with the weights of
    the checkpoint, and with the optimizer's state if the optimizer is unchanged; the shapes of the networks must not
    change. `start_epoch` of the new job is the epoch of the checkpoint. The checkpoint is copied, so the parent may be
    deleted. Without a `name` in the overrides, the fork of `first` is named `first-2`, or the next free number.
    """
    document = queries.read_json()
    idempotency = queries.idempotency_key(document)
    earlier = _answered(idempotency)
    if earlier is not None:
        return earlier
    asked = validation.read_body(ForkRequest, document)
    here = services()
    while True:
        with here.database.read() as session:
            parent = lookup.get(session, job_id, owner=owner())
            actions.require(parent, Action.FORK)
            checkpoint = lookup.checkpoint(session, parent, asked.checkpoint)
            name = names.of_fork(session, parent, owner=owner()) if "name" not in asked.overrides else None
        about = {"name": name, "tags": parent.tags, "priority": parent.priority}
        spec, data = _derived(parent, about, asked.overrides, epoch=checkpoint.epoch)
        new = Submission(
            spec=spec.model_dump(mode="json"),
            resolved=spec,
            steps=costs.total_steps(spec, data.train_count),
            owner=owner(),
            upload_id=data.upload_id,
            dataset_sha256=data.pinned_sha256 or data.sha256,
        )
        try:
            return _submit_copy(new, parent, checkpoint, idempotency, reproduces=False)
        except ArtifactDamaged:
            # A running job removes its older checkpoints: the same one again means that the file is lost.
            with here.database.read() as session:
                if lookup.checkpoint(session, parent, asked.checkpoint).id == checkpoint.id:
                    raise


@blueprint.post("/jobs/<job_id>/reproduce")
@documented(
    TAG,
    JobDetail,
    status=201,
    headers=("Idempotency-Key",),
    problems=(*_ONE, "artifact_damaged", "idempotency_conflict", "illegal_transition", "quota_exceeded"),
)
def reproduce(job_id: str) -> Response:
    """Reproduce a succeeded job: train it again and compare every epoch.

    `reproduction` of the new job says whether all results are bit-identical, or which epoch is the first to differ. The
    reproduction of `first` is named `first (reproduced)`.
    """
    queries.read_query(NoQuery)
    idempotency = queries.idempotency_key(None)
    earlier = _answered(idempotency)
    if earlier is not None:
        return earlier
    with services().database.read() as session:
        original = lookup.get(session, job_id, owner=owner())
        actions.require(original, Action.REPRODUCE)
        start = lookup.checkpoint(session, original, str(original.start_epoch)) if original.start_epoch else None
        name = names.of_reproduction(session, original, owner=owner())
    about = {"name": name, "tags": original.tags, "priority": original.priority}
    spec = validation.read_resolved(original.resolved | about)
    again = Submission(
        spec=original.spec,
        resolved=spec,
        steps=original.steps,
        owner=owner(),
        upload_id=original.upload_id,
        dataset_sha256=original.dataset_sha256,
    )
    return _submit_copy(again, original, start, idempotency, reproduces=True)


def _derived(parent: Job, about: dict[str, Any], overrides: dict[str, Any], *, epoch: int) -> tuple[Spec, DatasetInfo]:
    """The spec of a fork, and its data: those of the parent, or others of the same shape.

    Args:
        about: the fork's name, tags and priority where the overrides do not say them.

    Raises:
        SpecError: with pointers into the request.
    """
    try:
        spec = validation.derive(parent.resolved | about, overrides, epoch=epoch)
        before = _data_of(parent)
        same = "dataset" not in overrides
        spec, data = checking.check(spec.model_dump(mode="json"), before if same else None)
        if before is not None and before.image_shape != data.image_shape:
            detail = f"its images are {_by(data)}; those of the checkpoint's dataset are {_by(before)}"
            raise SpecError([Fault(pointer="#/dataset/name", detail=detail, code="wrong_shape")])
        return spec, data
    except SpecError as error:
        sent = validation.as_sent(error, overrides)
        raise SpecError(
            [replace(fault, pointer="#/overrides" + fault.pointer.removeprefix("#")) for fault in sent.faults],
            total=sent.total,
        ) from error


def _data_of(job: Job) -> DatasetInfo | None:
    try:
        return services().shelf.of_job(job)
    except DatasetError:
        return None


def _by(data: DatasetInfo) -> str:
    return " x ".join(map(str, data.image_shape))


def _submit_copy(
    new: Submission,
    parent: Job,
    checkpoint: Artifact | None,
    idempotency: submissions.IdempotencyKey | None,
    *,
    reproduces: bool,
) -> Response:
    """Store a job that comes from another one, with a copy of the checkpoint that it begins with.

    Raises:
        ArtifactDamaged: the checkpoint cannot be read.
    """
    here = services()
    here.quotas.new_job(owner())
    start, new_id = None, ids.new_id("job")
    if checkpoint is not None:
        start = here.artifacts.copy(
            checkpoint.path, checkpoint.sha256, job_id=new_id, kind=ArtifactKind.CHECKPOINT, epoch=checkpoint.epoch
        )
    new = replace(new, id=new_id, origin=Origin(parent=parent, start=start, reproduces=reproduces))
    try:
        answer, replayed = submissions.submit(
            here.database, new, idempotency=idempotency, represent=_represent, by=actor()
        )
    except (IdempotencyConflict, JobNotFound, SpecError):
        here.artifacts.remove_job(new_id)
        raise
    # After any other error nobody knows whether the job was stored; the scheduler removes what no row names.
    if replayed:
        here.artifacts.remove_job(new_id)
    else:
        here.publisher.wake(answer["id"])
    return _submitted(answer, replayed=replayed)


def _answered(idempotency: submissions.IdempotencyKey | None) -> Response | None:
    """The stored answer of an earlier request with this key, looked for before anything is checked: what was
    accepted once is answered so again, whatever has changed since."""
    if idempotency is None:
        return None
    with services().database.read() as session:
        earlier = submissions.replay(session, idempotency, owner=owner())
    return _submitted(earlier, replayed=True) if earlier is not None else None


def _represent(job: Job) -> dict[str, Any]:
    return job_detail(job).model_dump(mode="json")


def _read(job_id: str) -> JobDetail:
    with services().database.read() as session:
        return job_detail(lookup.get(session, job_id, owner=owner()))


def _wait_for_change(job_id: str, wait_s: float) -> Response:
    hub = services().hub
    deadline = time.monotonic() + wait_s
    allowed = Permission(still_open())
    with _held_open(), hub.watch(job_id) as watch:
        while True:
            if not allowed:
                raise refused("the key was revoked, or has expired, while the answer was held back")
            # Read after the watch has begun: a change in between rings its bell.
            response = tagged_json(_read(job_id))
            left = deadline - time.monotonic()
            if response.status_code != 304 or left <= 0 or hub.closing:
                return response
            watch.wait(min(left, 1.0))


@contextmanager
def _held_open() -> Iterator[None]:
    """An answer that is held back takes a thread, as a stream does."""
    close = services().quotas.stream(owner())
    try:
        yield
    finally:
        close()


def _accepted(job: Job) -> Response:
    return as_json(job_detail(job), 202, headers={"Location": f"/jobs/{job.id}"})


def _requeued(job: Job) -> Response:
    services().publisher.wake(job.id)
    return _accepted(job)
