"""The pages a person opens: plain HTML made here, kept fresh by one small script each."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, render_template, request

from service.contract import jobs, leases
from service.contract.artifacts import ArtifactKind
from service.contract.errors import JobNotFound
from service.contract.spec import Kind
from service.contract.tables import Epoch, Job
from service.datasets import BUILT_IN
from service.web import queries
from service.web.operations import documented
from service.web.queries import ListQuery
from service.web.representations import checkpoint_items, job_detail, sample_item
from service.web.resources.jobs import list_jobs, next_page
from service.web.services import owner, services

blueprint: Final = Blueprint("pages", __name__)

TAG: Final = "Pages"
_FIRST: Final = 50
"""Jobs that the list shows before its script asks for more."""
_ORDERS: Final = (
    ("-created_at", "Newest first"),
    ("created_at", "Oldest first"),
    ("-priority", "Highest priority"),
    ("priority", "Lowest priority"),
)


@blueprint.get("/")
@documented(TAG, "text/html", query=ListQuery)
def index() -> Response:
    """Show the jobs to a person."""
    query = queries.read_query(ListQuery)
    limit = query.limit if "limit" in query.model_fields_set else _FIRST
    first = list_jobs(query.model_copy(update={"limit": limit, "counts": True}))
    with services().database.read() as session:
        workers = leases.live_workers(session)
    return _html(
        "index.html",
        first=first,
        next_address=next_page("/", first) if first.has_more else None,
        workers=workers,
        kinds=list(Kind),
        orders=_ORDERS,
        address=request.host_url.rstrip("/"),
    )


@blueprint.get("/ui/jobs/<job_id>")
@documented(TAG, "text/html", problems=("job_not_found",))
def job(job_id: str) -> Response:
    """Show a job to a person, live."""
    queries.read_query(queries.NoQuery)
    try:
        with services().database.read() as session:
            row = jobs.get(session, job_id, owner=owner())
            checkpoints = jobs.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
            samples = jobs.artifacts(session, job_id, ArtifactKind.SAMPLE)
            last = session.get(Epoch, (job_id, row.epoch))
    except JobNotFound:
        if request.accept_mimetypes.best_match(["application/json", "text/html"]) != "text/html":
            raise
        return _html("missing.html", status=404, job_id=job_id)
    return _html(
        "job.html",
        job=job_detail(row),
        checkpoints=checkpoint_items(row, checkpoints)[::-1],
        sample=sample_item(samples[-1]) if samples else None,
        is_judged=_is_judged(row),
        has_confusion=last is not None and last.confusion is not None,
        last_seq=row.last_seq,
    )


def _is_judged(row: Job) -> bool:
    known = BUILT_IN.get(str(row.resolved["dataset"]["name"]))
    return row.kind == Kind.GAN and known is not None and known.judge is not None


def _html(template: str, *, status: int = 200, **values: object) -> Response:
    return Response(render_template(template, **values), status, content_type="text/html; charset=utf-8")
