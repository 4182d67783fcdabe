"""Pages about jobs: list, form, and those of one job."""

from __future__ import annotations

from typing import Annotated, Any, Final

from flask import Blueprint, Response
from pydantic import BeforeValidator, Field

from service.access.owners import display_names
from service.jobs import events, worker_registry
from service.jobs.events import LogPage
from service.jobs.queries import listing, lookup
from service.jobs.queries.listing import GroupBy
from service.kinds.pages import page_of
from service.spec.metric_info import KEY_METRICS, describe
from service.states import TERMINAL, JobKind
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Event, Job
from service.web.core.core import core, read_job
from service.web.gate.access_checks import identity, share_link
from service.web.http.endpoint import endpoint
from service.web.http.queries import (
    JobId,
    Query,
    Text,
    blank_is_none,
)
from service.web.http.responses import as_page, next_address, own_address, see_other
from service.web.jobs import overview, playground
from service.web.jobs.listing import FilterQuery, GroupQuery, PageQuery
from service.web.jobs.result_schemas import LogQuery, ModelQuery, PlayQuery, event_document
from service.web.jobs.schemas import job_detail
from service.web.jobs.views import list_jobs, show_groups


class IndexQuery(PageQuery):
    """What the jobs page shows."""

    group: Annotated[GroupBy | None, BeforeValidator(blank_is_none)] = Field(None, description="Group the jobs.")

    @property
    def collapses_sweeps(self) -> bool:
        """Whether a sweep is one row: if jobs are sorted by time, and no filter selects only some of its
        jobs."""
        filters = FilterQuery.model_fields.keys() - {"owner"}
        set_filters = {name for name in self.model_fields_set & filters if getattr(self, name)}
        return not set_filters and self.group is None and self.sort.removeprefix("-") == "created_at"


class NewQuery(Query):
    """The initial spec of a new job."""

    like: JobId | None = Field(None, description="Id of a job whose spec to copy.")
    advice: Text | None = Field(
        None,
        description="Advice of the job `like` to apply, as the code of its finding and a position from 0: "
        "`mode_collapse.0`.",
    )
    sweep: JobId | None = Field(None, description="Id of a sweep whose spec to copy.")
    dataset: Text | None = Field(None, description="Name of a dataset to train on.")
    several: bool = Field(False, description="Start with a sweep: several values of the learning rate, and seeds.")


blueprint: Final = Blueprint("pages", __name__)

TAG: Final = "Pages"
_INITIAL_JOBS: Final = 30
"""Jobs in the HTML of the list; its script loads more."""
_OBJECTIVES: Final = [name for names in KEY_METRICS.values() for name in names if describe(name).goal]
"""Metrics that decide which job is better."""
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
    **{
        f"{sign}{name}": f"{word} last {describe(name).label}"
        for name in _OBJECTIVES
        for sign, word in (("-", "Highest"), ("", "Lowest"))
    },
}
_COLUMNS: Final = ["status", "progress", "metrics", "created_at"]
"""Default columns of the job list, besides the name."""
_CHOICES: Final[dict[str, Any]] = {
    "default_columns": _COLUMNS,
    "kinds": list(JobKind),
    "sort_labels": _SORT_LABELS,
    "group_by": list(GroupBy),
}
"""Options of the controls of the list."""
_MAX_GROUPS: Final = 500


@blueprint.get("/")
@endpoint(TAG, "text/html", query=IndexQuery, problems=("invalid_cursor", "owner_not_found"))
def index(query: IndexQuery) -> Response:
    """Show the jobs page."""
    query = query.model_copy(update={"columns": query.columns or _COLUMNS})
    caller = identity()
    address, of_owner = own_address(), query.owner if caller is not None and query.owner != caller.owner else None
    with core().database.read() as session:
        impediment = worker_registry.impediment(session, core().settings)
        names = display_names(session, {of_owner} if of_owner else ())
    values = _first_jobs(query) | _CHOICES | {"impediment": impediment, "names": names}
    return as_page("jobs/index.html", **values, address=address, of_owner=of_owner)


def _first_jobs(query: IndexQuery) -> dict[str, Any]:
    """The first page of the list; of a grouped list the groups, whose jobs are loaded when they are opened."""
    limit = query.limit if "limit" in query.model_fields_set else _INITIAL_JOBS
    groups = None
    if query.group is not None:
        limit = 1
        filters = {name: getattr(query, name) for name in FilterQuery.model_fields}
        groups = show_groups.read(GroupQuery(by=query.group, columns=query.columns, limit=_MAX_GROUPS, **filters))
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
def new(query: NewQuery) -> Response:
    """Show the form for a new job or sweep."""
    title = "New sweep" if query.several or query.sweep else "New job"
    required = core().settings.keys_required
    return as_page("jobs/new.html", title=title, keys_required=required, objectives=_OBJECTIVES)


job_blueprint: Final = Blueprint("job_view", __name__)


@job_blueprint.get("/ui/jobs/<job_id>")
@endpoint(TAG, "text/html", query=ModelQuery, problems=("job_not_found",), is_shown_by_links=True)
def job(job_id: str, query: ModelQuery) -> Response:
    """Show the page of a job, updated live."""
    values = overview.values(job_id, query.checkpoint)
    page = page_of(values["job"].kind)
    return as_page(page.template, **{**values, **page.values(values["job"])})


@job_blueprint.get("/ui/play/<job_id>")
@endpoint(TAG, "text/html", query=PlayQuery, problems=("job_not_found",), is_shown_by_links=True)
def play(job_id: str, query: PlayQuery) -> Response:
    """Show the Play page: draw for a classifier, or walk through a GAN's latent space."""
    with read_job(job_id) as (session, row):
        checkpoints = lookup.artifacts(session, job_id, ArtifactKind.CHECKPOINT)
    return as_page("jobs/play.html", **playground.values(row, checkpoints, query.checkpoint))


_LOG_VIEWS: Final[dict[str, dict[str, str]]] = {
    "All": {},
    "Status": {"type": "end,status"},
    "Metrics": {"type": "metrics"},
    "Files": {"type": "checkpoint,sample"},
    "Warnings and errors": {"level": "warning"},
    "Errors": {"level": "error"},
}
"""The filters of the log's page, as parameters of its URL."""


@blueprint.get("/ui/jobs/<job_id>/log")
@endpoint(TAG, "text/html", query=LogQuery, problems=("job_not_found",), is_shown_by_links=True)
def log(job_id: str, query: LogQuery) -> Response:
    """Show the log of a job, by default the newest events."""
    before = query.before or (None if query.after else events.MAX_SEQ)
    with read_job(job_id) as (session, job):
        page = events.page(session, job_id, query.event_filter, after=query.after, before=before, limit=query.limit)
    return as_page(
        "jobs/log.html",
        job=job_detail(job),
        title=listing.title(job.id, job.name, job.kind),
        **_log_filters(query),
        **_log_part(job, query, page, is_end=before is not None),
    )


def _log_filters(query: LogQuery) -> dict[str, Any]:
    """The selected filters, and those to choose from."""
    parameters = {"type": ",".join(sorted(query.type)), "level": query.level or "", "q": query.q or ""}
    selected = {name: str(value) for name, value in parameters.items() if value}
    text = {name: value for name, value in selected.items() if name == "q"}
    views = [(name, view | text, view | text == selected) for name, view in _LOG_VIEWS.items()]
    return {"views": views, "selected": selected}


def _log_part(job: Job, query: LogQuery, page: LogPage, *, is_end: bool) -> dict[str, Any]:
    """The selected events, and where earlier or later ones are.

    Args:
        is_end: whether they are the last events before a number, instead of the first events after one.
    """
    rows = page.rows
    return {
        "events": [_line(row, job.id) for row in rows],
        "older": rows[0].seq if page.has_more and is_end else None,
        "newer": rows[-1].seq if page.has_more and not is_end else None,
        "facts": {
            "stream": f"/jobs/{job.id}/stream",
            "last_seq": max(job.last_seq, rows[-1].seq if rows else 0),
            "follows": job.status not in TERMINAL and query.before is None and not (page.has_more and query.after),
        },
    }


def _line(row: Event, job_id: str) -> dict[str, Any]:
    return event_document(row, job_id=job_id, link=share_link()) | {"level": events.level_of(row).value}
