"""Lists of jobs with related data: counts, titles of parents, and sweeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from service.jobs.queries import listing, lookup
from service.jobs.queries.columns import Column
from service.jobs.queries.listing import Group, GroupBy, JobFilter
from service.states import ListedStatus
from service.storage.tables import Job
from service.sweeps import queries as sweeps
from service.sweeps.queries import ListedSweep


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """A page of jobs."""

    jobs: Sequence[Job]
    next_cursor: str | None
    stopped: Collection[str]
    """The jobs that their sweeps stopped."""
    counts: Mapping[ListedStatus, int] | None
    """Of all matching jobs, regardless of their state; ``None``: not asked for."""
    validation_counts: Mapping[str, int]
    """The number of validation examples that a job was scored on, by id, as far as it is known."""
    parents: Mapping[str, str]
    """Titles of the jobs' parents by id."""
    sweeps: Sequence[ListedSweep]
    """With one job per sweep: the jobs' sweeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGroups:
    """Groups of jobs."""

    groups: Sequence[Group]
    has_more: bool
    titles: Mapping[str, str]
    """When grouped by sweep: titles of the sweeps by id."""


def job_page(
    session: Session,
    job_filter: JobFilter,
    columns: Sequence[Column],
    *,
    owner: str | None,
    sort: str,
    limit: int,
    cursor: str | None,
    one_per_sweep: bool,
    counts: bool,
) -> JobPage:
    """A page of jobs.

    Args:
        columns: the columns for which the jobs must have the values loaded.
        one_per_sweep: of each sweep, list only the first job.
        counts: also count all matching jobs by state.

    Raises:
        InvalidCursor: this service did not issue the cursor, or issued it for another sort order.
    """
    page = listing.find(
        session,
        job_filter,
        owner=owner,
        sort=sort,
        limit=limit,
        cursor=cursor,
        specs=need_specs(columns),
        one_per_sweep=one_per_sweep,
    )
    sweep_ids = {job.sweep_id for job in page.jobs if job.sweep_id} if one_per_sweep else set()
    return JobPage(
        jobs=page.jobs,
        next_cursor=page.next_cursor,
        stopped=lookup.stopped_by_sweep(session, page.jobs),
        counts=listing.counts(session, job_filter, owner=owner) if counts else None,
        validation_counts=lookup.validation_counts(session, page.jobs),
        parents=listing.titles(session, page.jobs, owner=owner),
        sweeps=sweeps.listed(session, sweep_ids, owner=owner),
    )


def job_groups(
    session: Session, job_filter: JobFilter, by: GroupBy, columns: Sequence[Column], *, owner: str | None, limit: int
) -> JobGroups:
    """Groups of jobs, with the best values of the columns."""
    groups, has_more = listing.groups(session, job_filter, by, columns, owner=owner, limit=limit)
    sweep_ids = {group.value for group in groups if group.value} if by is GroupBy.SWEEP else set()
    titles = {row.sweep.id: sweeps.title(row.sweep) for row in sweeps.listed(session, sweep_ids, owner=owner)}
    return JobGroups(groups=groups, has_more=has_more, titles=titles)


def need_specs(columns: Sequence[Column]) -> bool:
    """Whether a column needs the jobs' resolved specs."""
    return any(column.needs_spec for column in columns)
