"""Lists of jobs: their parameters, and their rows as JSON and as CSV for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError
from sqlalchemy.orm import Session

from service.access.owners import display_names
from service.jobs.queries import columns, listing, lookup, sorting
from service.jobs.queries.columns import Column, Type, UnknownColumn
from service.jobs.queries.listing import Group, GroupBy, JobFilter, Lacking
from service.schema.metrics import Goal
from service.spec import metric_info
from service.states import JobKind, ListedStatus, SweepStatus
from service.storage.tables import Job
from service.sweeps import queries
from service.web.http.downloads import csv_cell, csv_line
from service.web.http.queries import Cursor, OptionalId, OptionalText, OtherOwner, Query, Text, split
from service.web.http.schemas import Metrics, ResponseModel, Timestamp, finite
from service.web.jobs.schemas import (
    INTERVALS,
    STOPPED_BY_SWEEP,
    IntervalItem,
    JobSummary,
    derived_fields,
    metric_intervals,
)
from service.wording import at_time


def _unknown_column(name: str, error: UnknownColumn) -> PydanticCustomError:
    return PydanticCustomError(
        "unknown_column", "{name}: {why}", {"name": name[:100], "why": str(error), "suggestion": error.suggestion}
    )


def _parse_column(name: str) -> str:
    try:
        return columns.parse(name).name
    except UnknownColumn as error:
        raise _unknown_column(name, error) from error


def _check_order(sort: str) -> str:
    try:
        sorting.SortOrder(sort)
    except UnknownColumn as error:
        raise _unknown_column(sort, error) from error
    return sort


Columns = Annotated[
    list[Annotated[str, StringConstraints(max_length=200), AfterValidator(_parse_column)]],
    BeforeValidator(split),
    Field(
        max_length=columns.MAX_COLUMNS,
        description="Columns to add to each job, repeated or comma-separated: properties (`preset`, `duration`, "
        "`parent`), "
        "settings (`optimizer.learning_rate` or `/layers/0/units`), metrics of the last epoch (`val_accuracy`) or the "
        "best of all epochs (`best:val_accuracy`; `min:` and `max:` for metrics without a direction). "
        "`GET /jobs/columns` lists them.",
    ),
]


class FilterQuery(Query):
    """Which jobs to select."""

    status: Annotated[list[ListedStatus], BeforeValidator(split)] = Field(
        default=[],
        description="One or more, repeated or comma-separated. `stopped`: cancelled by their sweeps; `cancelled`: the "
        "other cancelled jobs.",
    )
    kind: JobKind | None = None
    tag: Annotated[list[Text], BeforeValidator(split)] = Field(
        default=[], max_length=20, description="Jobs with all of these tags, repeated or comma-separated."
    )
    q: OptionalText = Field(None, description="Substring of name, id, tag or note.")
    name: OptionalText = Field(None, description="Exact name.")
    preset: OptionalText = None
    dataset: OptionalText = Field(
        None,
        description="Name of a dataset: selects all of its versions. `name@digits`: the version with this SHA-256.",
    )
    spec: OptionalText = Field(None, description="A `spec_hash`: jobs with an equivalent spec.")
    parent: OptionalId = Field(None, description="Id of a job: selects its forks and reproductions.")
    fold_group: OptionalId = Field(
        None, description="Selects the jobs of one cross-validation: `fold_group` of any of them."
    )
    sweep: OptionalId = Field(None, description="Id of a sweep: selects the jobs of its trials.")
    starred: bool | None = None
    created_since: AwareDatetime | None = Field(None, description="Jobs that were submitted then or later.")
    owner: OtherOwner = None
    without: Annotated[list[Lacking], BeforeValidator(split)] = Field(
        default=[], description="Jobs without these, repeated or comma-separated."
    )

    @property
    def job_filter(self) -> JobFilter:
        """The filter for the database."""
        filters = self.model_dump(
            include={"kind", "name", "preset", "dataset", "spec", "parent", "fold_group", "sweep", "starred", "without"}
        )
        since = self.created_since
        since_ms = None if since is None else round(since.timestamp() * 1000)
        return JobFilter(status=self.status or None, tags=self.tag, text=self.q, created_since_ms=since_ms, **filters)


class PageQuery(FilterQuery):
    """Which jobs to list, in which order, and with which columns."""

    columns: Columns = []
    sort: Annotated[str, StringConstraints(max_length=200), AfterValidator(_check_order)] = Field(
        "-created_at",
        description="Prefix `-` for descending order. `created_at`, `priority`, `name`, `started_at`, `finished_at`; "
        "`status`: running jobs first; `duration` of ended jobs; `epoch`: number of finished epochs; or any column "
        "that `GET /jobs/columns` marks as sortable, such as `-val_accuracy`, `best:val_loss` or "
        "`optimizer.learning_rate`. Jobs without a value are always last.",
    )
    limit: int = Field(20, ge=1, le=100)
    cursor: Cursor = None
    one_per_sweep: bool = Field(
        False, description="Of each sweep, list only its first job; `sweeps` of the answer describes the sweep."
    )
    counts: bool = Field(False, description="Also return the number of jobs in each state, regardless of `status`.")


class ListQuery(PageQuery):
    """Which jobs to list, and the format."""

    format: Literal["json", "csv"] = Field(
        "json",
        description="`csv`: all jobs in one response, at most 50,000; `limit`, `cursor`, `counts` and `one_per_sweep` "
        "are not allowed.",
    )


class GroupQuery(FilterQuery):
    """How to group jobs."""

    by: GroupBy = GroupBy.TAG
    columns: Columns = []
    limit: int = Field(100, ge=1, le=500)


MAX_CSV_ROWS: Final = 50_000
_LABELS_WITHOUT_VALUE: Final[dict[GroupBy, str]] = {GroupBy.TAG: "without a tag", GroupBy.NAME: "without a name"}


class ListedJob(JobSummary):
    """A job in a list, with the requested columns."""

    columns: dict[str, Any] = Field({}, description="By name; null if a job has no value.")
    stopped_by_sweep: bool = Field(description=STOPPED_BY_SWEEP)
    intervals: dict[str, IntervalItem] = Field(description=INTERVALS)


class ColumnItem(ResponseModel):
    """A column and its display."""

    name: str
    label: str
    description: str
    type: Type
    percent: bool = Field(description="Whether it is a fraction in [0, 1], to be shown as a percentage.")
    metric: str | None = Field(description="The metric's name, without prefixes such as `best:`.")
    goal: Goal | None = Field(description="The better direction; null: neither.")
    sort: str | None = Field(description="The value for `sort`; null: lists cannot be sorted by it.")
    values: int | None = Field(None, description="Number of distinct values of a setting among the jobs.")


class ColumnList(ResponseModel):
    """The available columns."""

    data: list[ColumnItem]


class ListedSweep(ResponseModel):
    """A sweep that is one row in a list of jobs."""

    id: str
    title: str
    status: SweepStatus
    jobs: int = Field(description="Number of jobs so far.")
    trials: int = Field(description="As many as there will be, unless the budget ends first.")
    finished_trials: int = Field(description="Trials that have succeeded, failed or been stopped.")
    metric: str = Field(description="Of the objective.")
    best_trial: int | None
    best_value: float | None
    created_at: Timestamp = Field(validation_alias="created_ms")
    page: str = Field(description="Path of its page.")


class JobList(ResponseModel):
    """A page of jobs."""

    data: list[ListedJob]
    has_more: bool
    next_cursor: str | None
    counts: dict[ListedStatus, int] | None = Field(
        None,
        description="Number of jobs in each state; `stopped` are those that their sweeps stopped, `cancelled` the "
        "others; null without `counts=true`.",
    )
    stopped_by_sweep: int | None = Field(
        None,
        deprecated=True,
        description="The number of `stopped` jobs, also in `counts`; null without `counts=true`.",
    )
    columns: list[ColumnItem] = Field([], description="The requested columns, in order.")
    parents: dict[str, str] = Field({}, description="Titles of the jobs' parents by id, without deleted ones.")
    owners: dict[str, str] = Field({}, description="Display names of other owners by id, of those who have one.")
    sweeps: dict[str, ListedSweep] = Field({}, description="With `one_per_sweep=true`: the jobs' sweeps by id.")

    @classmethod
    def read(cls, session: Session, query: PageQuery, *, owner: str | None) -> JobList:
        """A page of jobs."""
        selected = [columns.parse(name) for name in query.columns]
        page = listing.find(
            session,
            query.job_filter,
            owner=owner,
            sort=query.sort,
            limit=query.limit,
            cursor=query.cursor,
            specs=any(column.needs_spec for column in selected),
            one_per_sweep=query.one_per_sweep,
        )
        stopped = lookup.stopped_by_sweep(session, page.jobs)
        counts = listing.counts(session, query.job_filter, owner=owner) if query.counts else None
        scored = lookup.validation_counts(session, page.jobs)
        sweep_ids = {job.sweep_id for job in page.jobs if job.sweep_id} if query.one_per_sweep else set()
        owners = {job.owner for job in page.jobs if job.owner} if query.owner is not None else set()
        return cls(
            data=[
                ListedJob.from_row(
                    job,
                    **derived_fields(job),
                    columns={column.name: finite(_displayed_value(column, column.value(job))) for column in selected},
                    stopped_by_sweep=job.id in stopped,
                    intervals=metric_intervals(job.metrics, scored.get(job.id), job.test_scores),
                )
                for job in page.jobs
            ],
            has_more=page.next_cursor is not None,
            next_cursor=page.next_cursor,
            counts=counts,
            stopped_by_sweep=None if counts is None else counts.get(ListedStatus.STOPPED, 0),
            columns=[column_item(column) for column in selected],
            parents=listing.titles(session, page.jobs, owner=owner),
            owners=display_names(session, owners),
            sweeps={row.sweep.id: listed_sweep(row) for row in queries.listed(session, sweep_ids, owner=owner)},
        )


class JobGroup(ResponseModel):
    """Jobs with a common value."""

    value: str | None = Field(description="The common value; null: no tag, no name or no sweep.")
    label: str
    count: int
    newest_at: Timestamp = Field(validation_alias="newest_ms", description="Creation time of the newest job.")
    example: str | None = Field(description="One of their names.")
    best: Metrics = Field(description="The best value of each column with a direction.")
    query: dict[str, str] = Field(
        description="Parameters that select these jobs in `GET /jobs`, in addition to the others."
    )


class JobGroupList(ResponseModel):
    """Groups of jobs; the group with the newest job is first."""

    by: GroupBy
    data: list[JobGroup]
    has_more: bool = Field(description="Whether there are more groups than `limit`.")
    columns: list[ColumnItem]

    @classmethod
    def read(cls, session: Session, query: GroupQuery, *, owner: str | None) -> JobGroupList:
        """The groups of jobs."""
        selected = [columns.parse(name) for name in query.columns]
        groups, has_more = listing.groups(session, query.job_filter, query.by, selected, owner=owner, limit=query.limit)
        sweep_ids = {group.value for group in groups if group.value} if query.by is GroupBy.SWEEP else set()
        titles = {row.sweep.id: queries.title(row.sweep) for row in queries.listed(session, sweep_ids, owner=owner)}
        return cls(
            by=query.by,
            data=[job_group(group, query.by, titles) for group in groups],
            has_more=has_more,
            columns=[column_item(column) for column in selected],
        )


def listed_sweep(row: queries.ListedSweep) -> ListedSweep:
    """A sweep for a list of jobs."""
    sweep = row.sweep
    return ListedSweep.from_row(
        sweep,
        title=queries.title(sweep),
        jobs=row.jobs,
        finished_trials=row.finished_trials,
        metric=sweep.resolved["objective"]["metric"],
        page=f"/ui/sweeps/{sweep.id}",
    )


def column_item(column: Column, values: int | None = None) -> ColumnItem:
    """A column for a list."""
    return ColumnItem.from_row(
        column,
        goal=metric_info.describe(column.metric).goal if column.metric and column.better else None,
        sort=sorting.of_column(column.name),
        values=values,
    )


def job_group(group: Group, by: GroupBy, titles: Mapping[str, str]) -> JobGroup:
    """A group of jobs; ``titles`` are the titles of sweeps."""
    if group.value is None:
        label, query = _LABELS_WITHOUT_VALUE.get(by, f"without a {by}"), {"without": by.value}
    else:
        label, query = titles.get(group.value, group.value), {by.value: group.value}
        if by is GroupBy.SPEC:
            label = group.value.removeprefix("sha256:")[:10]
    return JobGroup.from_row(group, label=label, query=query)


def csv_lines(columns: Sequence[Column], jobs: Iterable[Job]) -> Iterator[str]:
    """The lines of a CSV file: names, then one per job."""
    yield csv_line([column.name for column in columns])
    for job in jobs:
        yield csv_line([csv_cell(_displayed_value(column, column.value(job))) for column in columns])


def _displayed_value(column: Column, value: Any) -> Any:
    return at_time(value) if column.type is Type.TIME and value is not None else value
