"""Retention: deletes expired jobs, checkpoints, audit entries and rows of features, cached images and orphaned files.

``plan`` changes nothing; ``carry_out`` checks each job again before deletion, because it may have been retried. While a
restore holds its lock, neither may run: its files have no rows until the end, and would be taken for orphans.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, delete, func, literal, select
from sqlalchemy.orm import Session

from service import hooks
from service.access import audit_seals
from service.errors import DeletionRefused, IllegalTransition, JobNotFound
from service.jobs import actions, leases
from service.jobs.queries import lookup
from service.runtime.settings import Settings
from service.states import TERMINAL, Status
from service.storage import artifact_rows
from service.storage.artifacts import EXPORTS, ArtifactKind, ArtifactStore, Stored
from service.storage.database import Database, locking
from service.storage.tables import Artifact, Job

STALE_FILE_S: Final = 3600.0
"""A file without a row counts as orphaned at this age; younger ones may be about to get their row."""
CACHED_PICTURE_S: Final = 7 * 24 * 3600.0
"""How long rendered animations and plots are cached."""
_DAY_MS: Final = 24 * 60 * 60 * 1000
_BATCH: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Retention periods in days; 0 means forever."""

    jobs_days: float = 0.0
    """From a job's end, as for checkpoints."""
    checkpoints_days: float = 0.0
    audit_days: float = 0.0
    rows_days: Mapping[str, float] = field(default_factory=dict)
    """Of rows of features, by the name of ``ExpiredData``."""

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The retention periods of the settings."""
        return cls(
            jobs_days=settings.keep_jobs_days,
            checkpoints_days=settings.keep_checkpoints_days,
            audit_days=settings.keep_audit_days,
            rows_days={item.name: item.days(settings) for item in hooks.expired()},
        )


@dataclass(frozen=True, slots=True)
class Removable:
    """Something to delete."""

    name: str
    """A job's id, or a file's path."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """Everything to delete."""

    jobs: Sequence[Removable] = ()
    checkpoints: Sequence[Removable] = ()
    pictures: Sequence[Removable] = ()
    """Cached images."""
    files: Sequence[Removable] = ()
    """Orphaned files."""
    cached_bytes: int = 0
    """Size of all cached images, including those that stay."""
    audit_entries: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    """Numbers of rows of features, by the name of ``ExpiredData``."""

    @property
    def size_bytes(self) -> int:
        """The bytes that the deletion would free."""
        groups = (self.jobs, self.checkpoints, self.pictures, self.files)
        return sum(item.size_bytes for group in groups for item in group)


def plan(database: Database, store: ArtifactStore, policy: Policy) -> RetentionPlan:
    """Determine what can be deleted, without deleting it."""
    now_ms = leases.clock(database)
    with database.read() as session:
        expired = _expired_jobs(session, policy, now_ms)
    checkpoints = old_checkpoints(database, policy)
    expired_ids = {item.name for item in expired}  # deleting a job deletes its cached images

    def find_paths(job_ids: Sequence[str]) -> dict[str, set[str]]:
        with database.read() as session:
            return lookup.paths(session, job_ids)

    cached: list[Stored] = []

    def scan() -> Iterator[Stored]:
        for item in store.stored():
            if item.is_derived:
                cached.append(item)
            yield item

    orphans = store.orphans(find_paths, older_than_s=STALE_FILE_S, among=scan())
    files = [Removable(item.path, item.size_bytes) for item in orphans]
    orphan_paths = {item.name for item in files}
    pictures = [
        Removable(item.path, item.size_bytes)
        for item in cached
        if item.age_s > CACHED_PICTURE_S and item.job_id not in expired_ids and item.path not in orphan_paths
    ]
    return RetentionPlan(
        expired,
        checkpoints,
        pictures,
        files,
        cached_bytes=sum(item.size_bytes for item in cached),
        audit_entries=audit_seals.count_expired(database, policy.audit_days),
        rows={item.name: item.count(database, policy.rows_days.get(item.name, 0.0)) for item in hooks.expired()},
    )


def old_checkpoints(database: Database, policy: Policy) -> list[Removable]:
    """Checkpoints that a policy would delete: of jobs that ended before the retention period, except each job's best
    and latest, the first checkpoint of a fork, and those that features need; also the exports of these checkpoints."""
    if not policy.checkpoints_days:
        return []
    now_ms = leases.clock(database)
    is_checkpoint = Artifact.kind == ArtifactKind.CHECKPOINT
    latest = (
        select(Artifact.job_id, func.max(Artifact.epoch).label("epoch"))
        .where(is_checkpoint)
        .group_by(Artifact.job_id)
        .subquery()
    )
    query = (
        select(Artifact)
        .join(Job, Job.id == Artifact.job_id)
        .join(latest, latest.c.job_id == Artifact.job_id)
        .where(Artifact.kind.in_((ArtifactKind.CHECKPOINT, *EXPORTS)))
        .where(_ended_before(now_ms - int(policy.checkpoints_days * _DAY_MS)))
        .where(Artifact.epoch < latest.c.epoch)
        .where(Artifact.epoch != func.coalesce(Job.best_epoch, 0), Artifact.epoch != Job.start_epoch)
        .where(*(Artifact.epoch.not_in(epochs) for epochs in hooks.kept_epochs(Job.id)))
        .order_by(Artifact.job_id, Artifact.epoch)
    )
    if policy.jobs_days:  # expired jobs are deleted with all checkpoints
        query = query.where(Job.finished_ms >= now_ms - int(policy.jobs_days * _DAY_MS))
    with database.read() as session:
        return [Removable(row.path, row.size_bytes) for row in session.scalars(query)]


def carry_out(database: Database, store: ArtifactStore, policy: Policy, planned: RetentionPlan) -> RetentionPlan:
    """Delete what a plan lists, unless it must be kept now; returns what was deleted."""
    # Planning can be slow: in the meantime, a job may have been retried and have ended again.
    now_ms = leases.clock(database)
    jobs = [item for item in planned.jobs if _remove_job(database, store, policy, now_ms, item.name)]
    checkpoints = _remove_checkpoints(database, store, policy, now_ms, planned.checkpoints)
    files = list(_still_orphaned(database, planned.files))
    store.remove(item.name for item in (*planned.pictures, *files))
    audit_entries = audit_seals.remove_expired(database, policy.audit_days)
    rows = {item.name: item.remove(database, policy.rows_days.get(item.name, 0.0)) for item in hooks.expired()}
    return RetentionPlan(jobs, checkpoints, planned.pictures, files, audit_entries=audit_entries, rows=rows)


def apply(database: Database, store: ArtifactStore, policy: Policy) -> RetentionPlan:
    """Plan and carry out."""
    return carry_out(database, store, policy, plan(database, store, policy))


def _ended_before(cutoff_ms: int) -> ColumnElement[bool]:
    # Only ended jobs have this time. A condition on the state, too, would make SQLite read all jobs in these states.
    return Job.finished_ms < cutoff_ms


def _expired_jobs(session: Session, policy: Policy, now_ms: int) -> list[Removable]:
    if not policy.jobs_days:
        return []
    query = select(Job.id, Job.size_bytes).where(_ended_before(now_ms - int(policy.jobs_days * _DAY_MS)))
    query = query.where(*(~epochs.exists() for epochs in hooks.kept_epochs(Job.id)))
    return [Removable(job_id, size) for job_id, size in session.execute(query.order_by(Job.finished_ms))]


class _NotExpired(Exception):
    """The job was retried after planning, and its new end is within the retention period."""


def _remove_job(database: Database, store: ArtifactStore, policy: Policy, now_ms: int, job_id: str) -> bool:
    def check(job: Job) -> None:
        if not _is_expired(job, now_ms - int(policy.jobs_days * _DAY_MS)):
            raise _NotExpired

    try:
        actions.remove(database, job_id, check=check)
    except (JobNotFound, DeletionRefused, IllegalTransition, _NotExpired):  # deleted, needed or retried since
        return False
    store.remove_folder(job_id)
    return True


def _remove_checkpoints(
    database: Database, store: ArtifactStore, policy: Policy, now_ms: int, planned: Iterable[Removable]
) -> list[Removable]:
    by_job: dict[str, list[Removable]] = {}
    for item in planned:
        by_job.setdefault(item.name.partition("/")[0], []).append(item)
    removed: list[Removable] = []
    for job_id, items in by_job.items():
        with database.write() as session:
            job = session.scalar(locking(select(Job).where(Job.id == job_id)))
            if job is None or not _is_expired(job, now_ms - int(policy.checkpoints_days * _DAY_MS)):
                continue
            kept = [Artifact.epoch.not_in(epochs) for epochs in hooks.kept_epochs(literal(job_id))]
            expired = Artifact.path.in_([item.name for item in items])
            removed_paths = set(session.scalars(delete(Artifact).where(expired, *kept).returning(Artifact.path)))
            items = [item for item in items if item.name in removed_paths]
            artifact_rows.update_job_size(session, job_id)
        store.remove(item.name for item in items)
        removed += items
    return removed


def _still_orphaned(database: Database, planned: Sequence[Removable]) -> Iterator[Removable]:
    """The files that still have no row; some may have received one since planning."""
    for start in range(0, len(planned), _BATCH):
        batch = planned[start : start + _BATCH]
        with database.read() as session:
            by_job = lookup.paths(session, {item.name.partition("/")[0] for item in batch})
        known_paths = set().union(*by_job.values())
        yield from (item for item in batch if item.name not in known_paths)


def _is_expired(job: Job, cutoff_ms: int) -> bool:
    return Status(job.status) in TERMINAL and job.finished_ms is not None and job.finished_ms < cutoff_ms


def restore_folder(artifacts: Path) -> Path:
    """The folder for journal and lock of a restore into ``artifacts``."""
    return artifacts / ".restoring"


@contextmanager
def lock_restore(folder: Path) -> Iterator[None]:
    """Hold the lock of a restore on its ``restore_folder``; the system releases it when the process ends.

    Raises:
        BlockingIOError: another restore holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def is_restoring(artifacts: Path) -> bool:
    """Whether a restore is running; one that was killed is not."""
    try:
        with lock_restore(restore_folder(artifacts)):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
