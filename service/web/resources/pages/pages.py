"""The pages a person opens: plain HTML made here, kept fresh by small scripts."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request

from service.jobs import worker_registry
from service.jobs.queries import lookup
from service.jobs.queries.listing import GroupBy
from service.spec.schema import Kind
from service.storage.artifacts import ArtifactKind
from service.web.answers import as_page, next_page, see_other
from service.web.endpoints import endpoint
from service.web.resources.jobs.lists import group_jobs, list_jobs
from service.web.schemas.jobs import job_detail
from service.web.schemas.queries import MAX_COMPARED, CompareQuery, FilterQuery, GroupQuery, IndexQuery, NewQuery
from service.web.services import owner, services

blueprint: Final = Blueprint("pages", __name__)

TAG: Final = "Pages"
_FIRST: Final = 30
"""Jobs that the list shows before its script asks for more."""
_ORDERS: Final[dict[str, str]] = {
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
    "-val_accuracy": "Highest val accuracy",
    "val_accuracy": "Lowest val accuracy",
    "val_loss": "Lowest val loss",
    "-val_loss": "Highest val loss",
    "frechet_distance": "Lowest Fréchet distance",
    "-frechet_distance": "Highest Fréchet distance",
}
_COLUMNS: Final = ["status", "progress", "metrics", "created_at"]
"""What the list of jobs shows beside their names, until a person chooses."""
_GROUPS: Final = 500
_COMPARED: Final = {"id", "name", "kind", "status", "created_at", "tags", "start_epoch", "resolved", "urls"}
"""What the page that compares jobs is told of each."""


@blueprint.get("/")
@endpoint(TAG, "text/html", query=IndexQuery)
def index(query: IndexQuery) -> Response:
    """Show the jobs page."""
    chosen = query.columns or _COLUMNS
    limit = query.limit if "limit" in query.model_fields_set else _FIRST
    if query.group is not None:
        limit = 1  # the groups come instead; a group's jobs when it is opened
    first = list_jobs(query.model_copy(update={"columns": chosen, "limit": limit, "counts": True}))
    groups = None
    if query.group is not None:
        same = {name: getattr(query, name) for name in FilterQuery.model_fields}
        groups = group_jobs(GroupQuery(by=query.group, columns=chosen, limit=_GROUPS, **same))
    with services().database.read() as session:
        workers = worker_registry.live_workers(session)
    return as_page(
        "index.html",
        first=first,
        groups=groups,
        default_columns=_COLUMNS,
        next_address=next_page(first.next_cursor) if first.next_cursor is not None else None,
        workers=workers,
        kinds=list(Kind),
        orders=_ORDERS,
        group_by=list(GroupBy),
        address=request.host_url.rstrip("/"),
    )


@blueprint.get("/ui")
@endpoint(TAG, None, status=303)
def start() -> Response:
    """Redirect to the jobs page."""
    return see_other("/")


@blueprint.get("/ui/new")
@endpoint(TAG, "text/html", query=NewQuery)
def new() -> Response:
    """Show the form for a new job."""
    return as_page("new.html", keys_required=services().settings.keys_required)


@blueprint.get("/ui/compare")
@endpoint(TAG, "text/html", query=CompareQuery)
def compare(query: CompareQuery) -> Response:
    """Show the page that compares jobs."""
    asked = list(dict.fromkeys(query.jobs))
    if len(asked) > MAX_COMPARED:
        return as_page("compare.html", status=400, facts=[], asked=asked, too_many=len(asked), most=MAX_COMPARED)
    with services().database.read() as session:
        rows = lookup.several(session, asked, owner=owner())
        samples = lookup.artifact_epochs(session, [row.id for row in rows], ArtifactKind.SAMPLE)
    facts = [
        job_detail(row).model_dump(mode="json", include=_COMPARED) | {"samples": samples.get(row.id, [])}
        for row in sorted(rows, key=lambda row: asked.index(row.id))
    ]
    return as_page("compare.html", facts=facts, asked=asked, missing=len(asked) - len(facts))
