"""The pages a person opens: plain HTML made here, kept fresh by small scripts."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, render_template, request

from service.contract import jobs, leases
from service.contract.artifacts import ArtifactKind
from service.contract.orders import Sort
from service.contract.spec import Kind
from service.web import queries
from service.web.answers import see_other
from service.web.operations import documented
from service.web.queries import MAX_COMPARED, CompareQuery, ListQuery, NewQuery
from service.web.representations import job_detail
from service.web.resources.jobs import list_jobs, next_page
from service.web.services import owner, services

blueprint: Final = Blueprint("pages", __name__)

TAG: Final = "Pages"
_FIRST: Final = 50
"""Jobs that the list shows before its script asks for more."""
_ORDERS: Final[dict[Sort, str]] = {
    "-created_at": "Newest first",
    "created_at": "Oldest first",
    "name": "Name, A to Z",
    "-name": "Name, Z to A",
    "status": "Running first",
    "-status": "Running last",
    "-started_at": "Last started",
    "started_at": "First started",
    "-finished_at": "Last finished",
    "finished_at": "First finished",
    "-priority": "Highest priority",
    "priority": "Lowest priority",
    "-duration": "Longest training",
    "duration": "Shortest training",
    "-epoch": "Most epochs",
    "epoch": "Fewest epochs",
    "-val_accuracy": "Highest accuracy",
    "val_accuracy": "Lowest accuracy",
    "val_loss": "Lowest loss",
    "-val_loss": "Highest loss",
    "frechet_distance": "Lowest Fréchet distance",
    "-frechet_distance": "Highest Fréchet distance",
}
_COLUMNS: Final[tuple[tuple[str, str, Sort], ...]] = (
    ("job", "Job", "name"),
    ("status", "Status", "status"),
    ("progress", "Progress", "-epoch"),
    ("metrics", "Last metrics", "-val_accuracy"),
    ("created", "Created", "-created_at"),
)
"""The columns of the list of jobs: class, heading, and how a click sorts it; a second click turns that round."""
_COMPARED: Final = {"id", "name", "kind", "status", "created_at", "tags", "start_epoch", "resolved", "urls"}
"""What the page that compares jobs is told of each."""


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
        columns=_COLUMNS,
        address=request.host_url.rstrip("/"),
    )


@blueprint.get("/ui")
@documented(TAG, None, status=303)
def start() -> Response:
    """Go to the list of jobs."""
    queries.read_query(queries.NoQuery)
    return see_other("/")


@blueprint.get("/ui/new")
@documented(TAG, "text/html", query=NewQuery)
def new() -> Response:
    """Let a person put a job together."""
    queries.read_query(NewQuery)
    return _html("new.html", keys_required=services().settings.keys_required)


@blueprint.get("/ui/compare")
@documented(TAG, "text/html", query=CompareQuery)
def compare() -> Response:
    """Show jobs beside each other."""
    asked = list(dict.fromkeys(queries.read_query(CompareQuery).jobs))
    if len(asked) > MAX_COMPARED:
        return _html("compare.html", status=400, facts=[], asked=asked, too_many=len(asked), most=MAX_COMPARED)
    with services().database.read() as session:
        rows = jobs.several(session, asked, owner=owner())
        samples = jobs.artifact_epochs(session, [row.id for row in rows], ArtifactKind.SAMPLE)
    facts = [
        job_detail(row).model_dump(mode="json", include=_COMPARED) | {"samples": samples.get(row.id, [])}
        for row in sorted(rows, key=lambda row: asked.index(row.id))
    ]
    return _html("compare.html", facts=facts, asked=asked, missing=len(asked) - len(facts))


def _html(template: str, *, status: int = 200, **values: object) -> Response:
    return Response(render_template(template, **values), status, content_type="text/html; charset=utf-8")
