"""Job lists: pages, counts, groups, and the available columns."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Select, exists, func, or_, select
from sqlalchemy.orm import Session, aliased, defer

from service.jobs.queries.columns import PRESET, Column, occurring
from service.jobs.queries.sorting import SortOrder
from service.spec.presets.definitions import current_name
from service.states import ListedStatus, Status
from service.storage.database import visible
from service.storage.sweep_tables import is_stopped_by_sweep
from service.storage.tables import Job, JobTag

MAX_INSPECTED_JOBS: Final = 2000
"""Number of the newest jobs that determine which settings and metrics occur."""


class GroupBy(StrEnum):
    """The properties by which jobs can be grouped."""

    TAG = "tag"
    NAME = "name"
    PRESET = "preset"
    DATASET = "dataset"
    SPEC = "spec"
    SWEEP = "sweep"


Lacking = Literal["tag", "name", "note", "parent", "sweep"]
"""Fields that jobs may lack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """A filter for job lists; ``None`` means any."""

    status: Sequence[ListedStatus] | None = None
    kind: str | None = None
    tags: Collection[str] = ()
    """The job has all of these tags."""
    text: str | None = None
    """Text that the name, id, note or a tag contains, case-insensitive."""
    name: str | None = None
    """The exact name."""
    preset: str | None = None
    dataset: str | None = None
    """A name: all of its versions; ``name@digits``: the version whose SHA-256 begins with these digits."""
    spec: str | None = None
    """The spec's hash."""
    parent: str | None = None
    fold_group: str | None = None
    sweep: str | None = None
    starred: bool | None = None
    created_since_ms: int | None = None
    without: Collection[Lacking] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a job list. Columns that lists do not show are not loaded."""

    jobs: Sequence[Job]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs with the same name, tag, preset, dataset or spec, or of the same sweep."""

    value: str | None
    """The common value; ``None``: no name, no tag or no sweep."""
    count: int
    newest_ms: int
    example: str | None
    """The name of one of the jobs."""
    best: dict[str, float | None]
    """The best value of each requested column with a direction."""


def find(
    session: Session,
    job_filter: JobFilter,
    *,
    owner: str | None = None,
    sort: str = "-created_at",
    limit: int = 20,
    cursor: str | None = None,
    specs: bool = False,
    one_per_sweep: bool = False,
) -> Page:
    """A page of jobs. The cursor is a sort position, not an offset, so pages are stable while jobs are added.

    Args:
        sort: as for ``SortOrder``.
        specs: also load the resolved specs.
        one_per_sweep: of each sweep, list only the first job.

    Raises:
        InvalidCursor: this service did not issue the cursor, or it belongs to another order.
        UnknownColumn: there is no such order.
    """
    order = SortOrder(sort)
    query = select(Job.id, order.value).where(*_conditions(job_filter, owner))
    if one_per_sweep:
        query = query.where(_is_first_of_sweep())
    if cursor is not None:
        query = query.where(order.after(cursor))
    # Select only ids first: without an index for the order, the database would sort whole rows.
    positions = session.execute(query.order_by(*order.columns).limit(limit + 1)).all()
    page = load(session, [job_id for job_id, _ in positions[:limit]], specs=specs)
    if len(positions) <= limit:
        return Page(page, None)
    last_id, value = positions[limit - 1]
    return Page(page, order.cursor(value, last_id))


def ids(session: Session, job_filter: JobFilter, *, owner: str | None, sort: str, limit: int) -> Sequence[str]:
    """The ids of the first jobs in an order.

    Raises:
        UnknownColumn: there is no such order.
    """
    query = select(Job.id).where(*_conditions(job_filter, owner)).order_by(*SortOrder(sort).columns)
    return session.scalars(query.limit(limit)).all()


def load(session: Session, job_ids: Sequence[str], *, specs: bool) -> list[Job]:
    """The jobs with these ids, in the same order, without deleted ones."""
    # Defer the columns that lists do not show: specs are most of a row.
    deferred = [Job.spec, Job.provenance, *(() if specs else (Job.resolved,))]
    query = select(Job).where(Job.id.in_(job_ids)).options(*(defer(column, raiseload=True) for column in deferred))
    by_id = {job.id: job for job in session.scalars(query)}
    return [by_id[job_id] for job_id in job_ids if job_id in by_id]


def counts(session: Session, job_filter: JobFilter, *, owner: str | None = None) -> dict[ListedStatus, int]:
    """The number of jobs in each state; the filter's own ``status`` is ignored."""
    conditions = list(_conditions(job_filter, owner, by_status=False))
    query = select(Job.status, func.count()).where(*conditions).group_by(Job.status)
    by_status = {ListedStatus(status): count for status, count in session.execute(query)}
    if ListedStatus.CANCELLED in by_status:
        stopped = select(func.count()).select_from(Job).where(*conditions, is_stopped_by_sweep())
        by_status[ListedStatus.STOPPED] = session.scalar(stopped) or 0
        by_status[ListedStatus.CANCELLED] -= by_status[ListedStatus.STOPPED]
    return {status: count for status, count in by_status.items() if count}


def titles(session: Session, jobs: Sequence[Job], *, owner: str | None = None) -> dict[str, str]:
    """Display names of the parents of these jobs, except deleted ones."""
    parent_ids = {job.parent_id for job in jobs if job.parent_id is not None}
    if not parent_ids:
        return {}
    query = select(Job.id, Job.name, Job.kind).where(Job.id.in_(parent_ids), visible(Job.owner, owner))
    return {job_id: title(job_id, name, kind) for job_id, name, kind in session.execute(query)}


def title(job_id: str, name: str | None, kind: str) -> str:
    """The display name of a job, which may have no name."""
    return name or f"{kind} {job_id[-6:].lower()}"


def groups(
    session: Session,
    job_filter: JobFilter,
    by: GroupBy,
    columns: Sequence[Column] = (),
    *,
    owner: str | None = None,
    limit: int = 100,
) -> tuple[list[Group], bool]:
    """Groups of jobs, sorted by their newest job, and whether there are more than ``limit``.

    A job with several tags is in several groups.
    """
    measured = [column for column in columns if column.better is not None and column.expression is not None]
    # A subquery, since PostgreSQL does not recognize two equal expressions with parameters as the same.
    values = [
        column.expression.label(f"m{index}") for index, column in enumerate(measured) if column.expression is not None
    ]
    inner = select(_GROUP_KEYS[by].label("key"), Job.name, Job.created_ms, *values).where(
        *_conditions(job_filter, owner)
    )
    if by is GroupBy.TAG:
        inner = inner.outerjoin(JobTag, JobTag.job_id == Job.id)
    rows = inner.subquery()
    bests = [
        (func.max if column.better == "max" else func.min)(rows.c[f"m{index}"]) for index, column in enumerate(measured)
    ]
    newest = func.max(rows.c.created_ms)
    query = (
        select(rows.c.key, func.count(), newest, func.max(rows.c.name), *bests)
        .group_by(rows.c.key)
        .order_by(newest.desc(), rows.c.key)
        .limit(limit + 1)
    )
    page = [
        Group(key, count, newest_ms, example, {column.name: best for column, best in zip(measured, best, strict=True)})
        for key, count, newest_ms, example, *best in session.execute(query)
    ]
    return page[:limit], len(page) > limit


def columns_of(session: Session, job_filter: JobFilter, *, owner: str | None = None) -> list[tuple[Column, int | None]]:
    """All facts, and the settings and metrics that occur among the newest jobs; see ``columns.occurring``."""
    newest = select(Job.id).where(*_conditions(job_filter, owner)).order_by(Job.created_ms.desc(), Job.id.desc())
    inspected = newest.limit(MAX_INSPECTED_JOBS).subquery()
    distinct = select(func.min(Job.id)).join(inspected, inspected.c.id == Job.id).group_by(Job.spec_hash)
    specs = session.scalars(select(Job.resolved).where(Job.id.in_(distinct))).all()
    measured = session.execute(select(Job.metrics, Job.test_scores).join(inspected, inspected.c.id == Job.id)).all()
    metrics = [values for pair in measured for values in pair if values is not None]
    distinct_specs = {json.dumps(spec, sort_keys=True): spec for spec in specs}
    return occurring(list(distinct_specs.values()), {name for values in metrics for name in values})


_GROUP_KEYS: Final[dict[GroupBy, ColumnElement[Any]]] = {
    GroupBy.TAG: JobTag.tag.expression,
    GroupBy.NAME: Job.name.expression,
    GroupBy.PRESET: PRESET,
    GroupBy.DATASET: Job.resolved[("dataset", "name")].as_string(),
    GroupBy.SPEC: Job.spec_hash.expression,
    GroupBy.SWEEP: Job.sweep_id.expression,
}


_EQUAL: Final[dict[str, ColumnElement[Any]]] = {
    "kind": Job.kind.expression,
    "name": Job.name.expression,
    "preset": _GROUP_KEYS[GroupBy.PRESET],
    "spec": Job.spec_hash.expression,
    "parent": Job.parent_id.expression,
    "fold_group": Job.fold_group.expression,
    "sweep": Job.sweep_id.expression,
}
"""The columns that have the value of a filter's field."""


def _conditions(job_filter: JobFilter, owner: str | None, *, by_status: bool = True) -> Iterator[ColumnElement[bool]]:
    yield visible(Job.owner, owner)
    if by_status and job_filter.status is not None:
        yield from _in_states(set(job_filter.status))
    for tag in job_filter.tags:
        yield Job.id.in_(_tagged().where(JobTag.tag == tag))
    if job_filter.dataset is not None:
        yield from _trained_on(job_filter.dataset)
    for name, column in _EQUAL.items():
        if (value := getattr(job_filter, name)) is not None:
            yield column == (current_name(value) if name == "preset" else value)
    if job_filter.starred is not None:
        yield Job.starred.is_(job_filter.starred)
    if job_filter.created_since_ms is not None:
        yield Job.created_ms >= job_filter.created_since_ms
    if job_filter.text:
        pattern = job_filter.text.lower()
        texts = (func.coalesce(Job.name, ""), Job.id, func.coalesce(Job.note, ""))
        matches = [func.lower(text).contains(pattern, autoescape=True) for text in texts]
        matches.append(Job.id.in_(_tagged().where(func.lower(JobTag.tag).contains(pattern, autoescape=True))))
        yield or_(*matches)
    for field in job_filter.without:
        yield _LACKING[field]


def _in_states(listed: Collection[ListedStatus]) -> Iterator[ColumnElement[bool]]:
    stored = sorted({Status.CANCELLED if item is ListedStatus.STOPPED else Status(item) for item in listed})
    # For a single state, an index has the order; SQLite uses it only for an equality.
    yield Job.status == stored[0] if len(stored) == 1 else Job.status.in_(stored)
    match ListedStatus.CANCELLED in listed, ListedStatus.STOPPED in listed:
        case True, False:
            yield ~is_stopped_by_sweep()
        case False, True:
            yield (Job.status != Status.CANCELLED) | is_stopped_by_sweep()


def _trained_on(dataset: str) -> Iterator[ColumnElement[bool]]:
    """All versions of a dataset or, with ``name@digits``, the one version, however the job's spec names it."""
    name, separator, digits = dataset.partition("@")
    # A single expression, so that a row's JSON is read once; LIKE would ignore case in SQLite.
    versioned_name = _GROUP_KEYS[GroupBy.DATASET].concat("@")
    yield func.substr(versioned_name, 1, len(name) + 1) == f"{name}@"
    if separator:
        version = f"sha256:{digits}"
        yield func.substr(Job.dataset_sha256, 1, len(version)) == version


def _is_first_of_sweep() -> ColumnElement[bool]:
    """The job belongs to no sweep, or no other job of its sweep has a lower trial, or the same one and a lower id."""
    other = aliased(Job)
    before = (other.trial < Job.trial) | (other.id < Job.id)
    # The condition on the trial is implied; with it, the index on sweep and trial finds the job directly.
    earlier = exists().where(other.sweep_id == Job.sweep_id, other.trial <= Job.trial, before)
    return Job.sweep_id.is_(None) | ~earlier


def _tagged() -> Select[tuple[str]]:
    return select(JobTag.job_id)


_LACKING: Final[dict[Lacking, ColumnElement[bool]]] = {
    "tag": Job.id.not_in(_tagged()),
    "name": Job.name.is_(None),
    "note": Job.note.is_(None),
    "parent": Job.parent_id.is_(None),
    "sweep": Job.sweep_id.is_(None),
}
