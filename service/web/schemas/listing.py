"""What lists of jobs answer with, and how rows become that: JSON, and CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pydantic import Field

from service.jobs.queries import sorting
from service.jobs.queries.columns import Column, Type
from service.jobs.queries.listing import Group, GroupBy
from service.spec import metric_info
from service.spec.metric_info import Goal
from service.states import Status
from service.storage.tables import Job
from service.web.schemas.base import Answer, Metrics, Timestamp, at_time, finite
from service.web.schemas.jobs import JobSummary, derived_fields

MAX_CSV_ROWS: Final = 50_000
_SPOKEN: Final[dict[GroupBy, str]] = {GroupBy.TAG: "without a tag", GroupBy.NAME: "without a name"}
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # noqa: RUF001 - spreadsheets know these too
"""What a spreadsheet takes for the beginning of a formula."""


class ListedJob(JobSummary):
    """A job of a list, with the columns that were asked for."""

    columns: dict[str, Any] = Field({}, description="By the names that were asked for; null where a job has no value.")


class ColumnItem(Answer):
    """What a column is, and how to show it."""

    name: str
    label: str
    description: str
    type: Type
    percent: bool = Field(description="Whether it is a share, in [0, 1], that is shown as a percentage.")
    metric: str | None = Field(description="The metric's name, without `best:` and the like.")
    goal: Goal | None = Field(description="Which values are better; null: neither.")
    sort: str | None = Field(description="What to give as `sort`; null: a list cannot be sorted by it.")
    values: int | None = Field(None, description="Of a setting: how many different ones there are among the jobs.")


class ColumnList(Answer):
    """The columns that there are."""

    data: list[ColumnItem]


class JobList(Answer):
    """A page of jobs."""

    data: list[ListedJob]
    has_more: bool
    next_cursor: str | None
    counts: dict[Status, int] | None = Field(None, description="Jobs in each state, if `counts` was asked for.")
    columns: list[ColumnItem] = Field([], description="The columns that were asked for, in that order.")
    parents: dict[str, str] = Field({}, description="What the jobs' parents are called, those that are still there.")


class JobGroup(Answer):
    """Jobs that have something in common."""

    value: str | None = Field(description="What they have in common; null: that they have no tag, or no name.")
    label: str
    count: int
    newest_at: Timestamp = Field(validation_alias="newest_ms", description="When the newest of them was created.")
    example: str | None = Field(description="One of their names.")
    best: Metrics = Field(description="The best value of each column that has one.")
    query: dict[str, str] = Field(description="The parameters that select them, beside the others, in `GET /jobs`.")


class JobGroupList(Answer):
    """Jobs in groups, the one with the newest job first."""

    by: GroupBy
    data: list[JobGroup]
    has_more: bool = Field(description="Whether there are more groups than `limit`.")
    columns: list[ColumnItem]


def listed_job(job: Job, columns: Sequence[Column]) -> ListedJob:
    """A job for a list."""
    shown = {column.name: finite(_shown(column, column.value(job))) for column in columns}
    return ListedJob.represent(job, **derived_fields(job), columns=shown)


def column_item(column: Column, values: int | None = None) -> ColumnItem:
    """What a column is."""
    return ColumnItem.represent(
        column,
        goal=metric_info.describe(column.metric).goal if column.metric and column.better else None,
        sort=sorting.of_column(column.name),
        values=values,
    )


def job_group(group: Group, by: GroupBy) -> JobGroup:
    """A group of jobs."""
    if group.value is None:
        label, query = _SPOKEN.get(by, f"without a {by}"), {"without": by.value}
    else:
        label, query = group.value, {by.value: group.value}
        if by is GroupBy.SPEC:
            label = group.value.removeprefix("sha256:")[:10]
    return JobGroup.represent(group, label=label, query=query)


def csv_lines(columns: Sequence[Column], jobs: Iterable[Job]) -> Iterator[str]:
    """A line of names, then a line for each job."""
    yield csv_line([column.name for column in columns])
    for job in jobs:
        yield csv_line([csv_cell(_shown(column, column.value(job))) for column in columns])


def _shown(column: Column, value: Any) -> Any:
    return at_time(value) if column.type is Type.TIME and value is not None else value


def csv_cell(value: Any) -> str:
    """A value as a cell that no spreadsheet takes for a formula."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            # A name that begins like a formula would be one, in the spreadsheet of whoever opens the file.
            return f"'{value}" if value.startswith(_FORMULA) and not _NUMBER.fullmatch(value) else value
        case list() if all(isinstance(item, str) for item in value):
            return csv_cell(", ".join(value))
        case dict() | list():
            return json.dumps(finite(value), ensure_ascii=False)
        case _:
            return str(value)


def csv_line(cells: Sequence[str]) -> str:
    """Cells as a line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue()
