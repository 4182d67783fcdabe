"""Lists of jobs: pages, groups, columns and CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from flask import Response

from service.application import job_lists
from service.jobs.queries import columns, folds, listing
from service.jobs.queries.columns import Column
from service.storage.database import Database
from service.storage.tables import Job
from service.web.core.core import core, owner
from service.web.http import downloads
from service.web.http.endpoint import Result, endpoint
from service.web.http.problems import Problem
from service.web.http.responses import next_link
from service.web.resources.jobs import jobs as job_resources
from service.web.resources.jobs.jobs import TAG
from service.web.schemas.folds import FoldSet
from service.web.schemas.listing import (
    MAX_CSV_ROWS,
    ColumnList,
    JobGroupList,
    JobList,
    column_item,
    csv_lines,
)
from service.web.schemas.queries import FilterQuery, GroupQuery, ListQuery, PageQuery

blueprint: Final = job_resources.blueprint
"""The blueprint of ``jobs``, since operation ids start with the blueprint's name."""

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
    also={
        200: "With `format=csv`: `id`, `name` and the selected columns; `X-Total-Count` is the number of matching jobs."
    },
    problems=("invalid_cursor",),
    page="/",
)
def show_list(query: ListQuery) -> Result:
    """List jobs.

    Pages stay consistent while jobs are added: `next_cursor` is a position in the order, not an offset. `columns` adds
    properties, settings and metrics to each job.
    """
    if query.format == "csv":
        return _as_csv(query)
    page = list_jobs(query)
    return page, next_link(page.next_cursor)


@blueprint.get("/jobs/columns")
@endpoint(TAG, ColumnList, query=FilterQuery)
def show_columns(query: FilterQuery) -> ColumnList:
    """List the available columns.

    These are all properties, and the settings and metrics of the newest 2,000 jobs. `values` of a setting lists the
    values in which these jobs differ.
    """
    with core().database.read() as session:
        values_by_column = listing.columns_of(session, query.job_filter, owner=owner())
    return ColumnList(data=[column_item(column, values) for column, values in values_by_column])


@blueprint.get("/jobs/groups")
@endpoint(TAG, JobGroupList, query=GroupQuery)
def show_groups(query: GroupQuery) -> JobGroupList:
    """List jobs in groups.

    Each group has its number of jobs and the best value of each metric in `columns`. Add `query` of a group to the
    parameters of `GET /jobs` to list its jobs. A job with several tags is in several groups.
    """
    return group_jobs(query)


def list_jobs(query: PageQuery) -> JobList:
    """A page of jobs.

    Raises:
        InvalidCursor: this service did not issue the cursor, or issued it for another sort order.
    """
    selected = [columns.parse(name) for name in query.columns]
    with core().database.read() as session:
        page = job_lists.job_page(
            session,
            query.job_filter,
            selected,
            owner=owner(),
            sort=query.sort,
            limit=query.limit,
            cursor=query.cursor,
            one_per_sweep=query.one_per_sweep,
            counts=query.counts,
        )
        return JobList.of(page, selected)


def group_jobs(query: GroupQuery) -> JobGroupList:
    """Groups of jobs."""
    selected = [columns.parse(name) for name in query.columns]
    with core().database.read() as session:
        groups = job_lists.job_groups(session, query.job_filter, query.by, selected, owner=owner(), limit=query.limit)
    return JobGroupList.of(groups, query.by, selected)


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
    for start in range(0, len(job_ids), _BATCH_SIZE):
        with database.read() as session:
            jobs = listing.load(session, job_ids[start : start + _BATCH_SIZE], specs=job_lists.need_specs(selected))
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
