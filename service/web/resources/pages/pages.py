"""The main pages: server-rendered HTML that scripts update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from flask import Blueprint, Response

from service.jobs import worker_registry
from service.jobs.queries import lookup
from service.jobs.queries.listing import GroupBy
from service.spec import splits
from service.spec.schema import Kind
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Job
from service.web.core.core import core, owner
from service.web.http.endpoint import endpoint
from service.web.http.queries import MAX_COMPARED
from service.web.http.responses import as_page, next_address, own_address, see_other
from service.web.resources.jobs.lists import group_jobs, list_jobs
from service.web.schemas.jobs import accuracy_intervals, job_detail
from service.web.schemas.queries import CompareQuery, FilterQuery, GroupQuery, IndexQuery, NewQuery

blueprint: Final = Blueprint("pages", __name__)

TAG: Final = "Pages"
_INITIAL_JOBS: Final = 30
"""Jobs in the HTML of the list; its script loads more."""
_SORT_LABELS: Final[dict[str, str]] = {
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
"""Default columns of the job list, besides the name."""
_CHOICES: Final[dict[str, Any]] = {
    "default_columns": _COLUMNS,
    "kinds": list(Kind),
    "sort_labels": _SORT_LABELS,
    "group_by": list(GroupBy),
}
"""Options of the controls of the list."""
_MAX_GROUPS: Final = 500
_COMPARED_FIELDS: Final = {
    "id",
    "name",
    "kind",
    "status",
    "stopped_by_sweep",
    "created_at",
    "tags",
    "start_epoch",
    "resolved",
    "urls",
}
"""Fields of each job on the Compare page."""


@blueprint.get("/")
@endpoint(TAG, "text/html", query=IndexQuery, problems=("invalid_cursor",))
def index(query: IndexQuery) -> Response:
    """Show the jobs page."""
    query = query.model_copy(update={"columns": query.columns or _COLUMNS})
    with core().database.read() as session:
        impediment = worker_registry.impediment(session, core().settings)
    return as_page("jobs/index.html", **_first_jobs(query), impediment=impediment, **_CHOICES, address=own_address())


def _first_jobs(query: IndexQuery) -> dict[str, Any]:
    """The first page of the list; of a grouped list the groups, whose jobs are loaded when they are opened."""
    limit = query.limit if "limit" in query.model_fields_set else _INITIAL_JOBS
    groups = None
    if query.group is not None:
        limit = 1
        filters = {name: getattr(query, name) for name in FilterQuery.model_fields}
        groups = group_jobs(GroupQuery(by=query.group, columns=query.columns, limit=_MAX_GROUPS, **filters))
    changes = {"limit": limit, "counts": True, "one_per_sweep": query.collapses_sweeps}
    first = list_jobs(query.model_copy(update=changes))
    return {"first": first, "groups": groups, "next_address": next_address(first.next_cursor)}


@blueprint.get("/ui")
@endpoint(TAG, None, status=303)
def start() -> Response:
    """Redirect to the jobs page."""
    return see_other("/")


@blueprint.get("/ui/new")
@endpoint(TAG, "text/html", query=NewQuery)
def new() -> Response:
    """Show the form for a new job."""
    return as_page("form/new.html", keys_required=core().settings.keys_required)


@blueprint.get("/ui/compare")
@endpoint(TAG, "text/html", query=CompareQuery)
def compare(query: CompareQuery) -> Response:
    """Show the page that compares jobs."""
    job_ids = list(dict.fromkeys(query.jobs))
    if len(job_ids) > MAX_COMPARED:
        return as_page(
            "compare/index.html", status=400, facts=[], asked=job_ids, too_many=len(job_ids), most=MAX_COMPARED
        )
    facts, why_not = _job_facts(job_ids)
    missing = len(job_ids) - len(facts)
    same = why_not == splits.SAME_JOBS
    return as_page("compare/index.html", facts=facts, why_not=why_not, same=same, asked=job_ids, missing=missing)


def _job_facts(job_ids: Sequence[str]) -> tuple[list[dict[str, Any]], str | None]:
    """The facts of each existing job, in the order of the ids, and why none of them is the best."""
    with core().database.read() as session:
        rows = lookup.several(session, job_ids, owner=owner())
        samples = lookup.artifact_epochs(session, [row.id for row in rows], ArtifactKind.SAMPLE)
        stopped = lookup.stopped_by_sweep(session, rows)
        counts = lookup.validation_counts(session, rows)
    rows = sorted(rows, key=lambda row: job_ids.index(row.id))
    facts = [
        job_detail(row, stopped_by_sweep=row.id in stopped).model_dump(mode="json", include=_COMPARED_FIELDS)
        | {"samples": samples.get(row.id, []), "best_intervals": _best_intervals(row, counts.get(row.id))}
        for row in rows
    ]
    return facts, splits.why_not_compared(
        [{name: getattr(row, name) for name in splits.COMPARED_FACTS} for row in rows]
    )


def _best_intervals(job: Job, validation_count: int | None) -> dict[str, Any]:
    """The interval of the best accuracy of all epochs."""
    best = {"val_accuracy": job.extremes.get("val_accuracy", {}).get("max")}
    return {name: interval.model_dump() for name, interval in accuracy_intervals(best, validation_count).items()}
