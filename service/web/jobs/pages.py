"""Pages about jobs: list, form, comparison, and those of one job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from flask import Blueprint, Response
from pydantic import BeforeValidator, Field

from service import kinds
from service.access.owners import display_names
from service.jobs import events, worker_registry
from service.jobs.events import LogPage
from service.jobs.queries import listing, lookup
from service.jobs.queries.listing import GroupBy
from service.kinds.pages import page_of
from service.spec import splits
from service.spec.metric_info import KEY_METRICS, describe
from service.states import TERMINAL, JobKind
from service.storage.artifacts import ArtifactKind
from service.storage.tables import Event, Job
from service.web.core.core import core, owner, read_job
from service.web.gate.access_checks import identity, is_shared, share_link
from service.web.http.endpoint import endpoint
from service.web.http.queries import (
    MAX_COMPARED,
    JobId,
    Query,
    Text,
    blank_is_none,
    split,
)
from service.web.http.responses import as_page, next_address, own_address, see_other
from service.web.jobs import overview, playground
from service.web.jobs.listing import FilterQuery, GroupQuery, PageQuery
from service.web.jobs.result_schemas import LogQuery, ModelQuery, PlayQuery, event_document
from service.web.jobs.schemas import job_detail, metric_intervals
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


class CompareQuery(Query):
    """Which jobs to compare, and what to plot."""

    jobs: Annotated[list[JobId], BeforeValidator(split)] = Field(
        default=[], description=f"Ids, repeated or comma-separated; at most {MAX_COMPARED}."
    )
    x: Text | None = Field(None, description="A setting, for example `optimizer.learning_rate`.")
    y: Text | None = Field(None, description="A metric, for example `val_accuracy`.")
    of: Literal["best", "last"] = Field("best", description="Which value of the metric.")


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


@blueprint.get("/ui/compare")
@endpoint(TAG, "text/html", query=CompareQuery, compares=("jobs",))
def compare(query: CompareQuery) -> Response:
    """Show the page that compares jobs."""
    job_ids = list(dict.fromkeys(query.jobs))
    if len(job_ids) > MAX_COMPARED:
        return as_page(
            "jobs/compare.html", status=400, facts=[], asked=job_ids, too_many=len(job_ids), most=MAX_COMPARED
        )
    return as_page("jobs/compare.html", asked=job_ids, **_compared(job_ids))


def _compared(job_ids: Sequence[str]) -> dict[str, Any]:
    """The facts of each existing job, and why none of them is the best; predictions are only named."""
    with core().database.read() as session:
        found = lookup.several(session, job_ids, owner=owner())
    trained = [row for row in found if kinds.of(row.kind).trains]
    predictions = [listing.title(row.id, row.name, row.kind) for row in found if row not in trained]
    facts, why_not = _job_facts(sorted(trained, key=lambda row: job_ids.index(row.id)))
    missing, same = len(job_ids) - len(found), why_not == splits.SAME_JOBS
    return {"facts": facts, "why_not": why_not, "same": same, "missing": missing, "predictions": predictions}


def _job_facts(rows: Sequence[Job]) -> tuple[list[dict[str, Any]], str | None]:
    """The facts of jobs, in this order, and why none of them is the best."""
    with core().database.read() as session:
        samples = lookup.artifact_epochs(session, [row.id for row in rows], ArtifactKind.SAMPLE)
        stopped = lookup.stopped_by_sweep(session, rows)
        counts = lookup.validation_counts(session, rows)
    facts = [
        job_detail(row, stopped_by_sweep=row.id in stopped).model_dump(mode="json", include=_COMPARED_FIELDS)
        | _sample_facts(row, samples.get(row.id, []))
        | {"best_intervals": _best_intervals(row, counts.get(row.id))}
        for row in rows
    ]
    return facts, splits.why_not_compared(
        [{name: getattr(row, name) for name in splits.COMPARED_FACTS} for row in rows]
    )


def _sample_facts(job: Job, epochs: Sequence[int]) -> dict[str, Any]:
    """The epochs of a job's samples; those of a classifier are examples of its dataset, which are not shared."""
    is_hidden = is_shared() and not kinds.of(job.kind).shares_samples
    return {"samples": [] if is_hidden else epochs, "hides_samples": is_hidden}


def _best_intervals(job: Job, validation_count: int | None) -> dict[str, Any]:
    """The interval of the best accuracy of all epochs."""
    best = {"val_accuracy": job.extremes.get("val_accuracy", {}).get("max")}
    return {name: interval.model_dump() for name, interval in metric_intervals(best, validation_count).items()}


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
