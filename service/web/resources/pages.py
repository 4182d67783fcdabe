"""The pages a person opens: plain HTML made here, kept fresh by one small script each."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, Response, render_template, request

from service.contract import jobs, leases
from service.contract.artifacts import ArtifactKind
from service.contract.errors import JobNotFound
from service.contract.jobs import JobFilter
from service.contract.spec import Kind
from service.contract.states import Status
from service.contract.tables import Epoch, Job
from service.datasets import BUILT_IN
from service.web import queries
from service.web.operations import documented
from service.web.queries import ListQuery
from service.web.representations import checkpoint_items, job_detail, job_summary, sample_item
from service.web.services import owner, services

blueprint: Final = Blueprint("pages", __name__)

TAG: Final = "Pages"
_SHOWN: Final = ("train_loss", "val_accuracy", "d_loss", "g_loss")
"""The metrics that say most of a job, where there is room for two."""


@blueprint.get("/")
@documented(TAG, "text/html", query=ListQuery)
def index() -> Response:
    """Show the jobs to a person."""
    query = queries.read_query(ListQuery)
    wanted = JobFilter(status=query.status or None, kind=query.kind, tag=query.tag, text=query.q)
    with services().database.read() as session:
        page = jobs.find(session, wanted, owner=owner(), sort=query.sort, limit=query.limit, cursor=query.cursor)
        alive = leases.live_workers(session)
        data = [job_summary(job) for job in page.jobs]
    next_address = None
    if page.next_cursor is not None:
        same = [(name, value) for name, value in request.args.items(multi=True) if name != "cursor"]
        next_address = "/?" + urlencode([*same, ("cursor", page.next_cursor)])
    return _html(
        "index.html",
        jobs=data,
        query=query,
        next_address=next_address,
        workers=alive,
        statuses=list(Status),
        shown=_SHOWN,
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
