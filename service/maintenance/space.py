"""Disk usage, and the space that could be reclaimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import func, select, text

from service.datasets import uploads
from service.jobs.queries import statistics
from service.maintenance import retention
from service.maintenance.retention import Policy
from service.runtime.settings import Settings
from service.storage.artifacts import EXPORTS, ArtifactKind, ArtifactStore
from service.storage.database import Database
from service.storage.tables import Job

LARGEST: Final = 5
TRIAL_DAYS: Final = 7.0
"""The checkpoint retention whose effect is shown if none is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeJob:
    """A job and the size of its files."""

    id: str
    name: str | None
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Disk usage by kind of data, and what ``tapeline gc`` would free, in bytes."""

    kinds: dict[str, int]
    largest_jobs: Sequence[LargeJob]
    reclaimable_bytes: int
    """With ``tapeline gc --delete`` and the configured retention."""
    old_checkpoints_bytes: int
    """Additionally, with a checkpoint retention of ``TRIAL_DAYS``: checkpoints of older jobs, except the best and the
    latest of each."""

    @property
    def total_bytes(self) -> int:
        """The sum over all kinds."""
        return sum(self.kinds.values())


def measure(settings: Settings, database: Database, store: ArtifactStore) -> Space:
    """Measure the disk usage. Expensive: it scans all rows of artifacts and the metadata of all files."""
    policy = Policy.of(settings)
    planned = retention.plan(database, store, policy)
    trial = retention.old_checkpoints(database, Policy(checkpoints_days=TRIAL_DAYS))
    already_planned = {item.name for item in planned.checkpoints}
    expired = {item.name for item in planned.jobs}
    additional = [
        item for item in trial if item.name not in already_planned and item.name.partition("/")[0] not in expired
    ]
    with database.read() as session:
        artifact_bytes = dict(statistics.artifact_bytes(session))
        upload_bytes = uploads.total_bytes(session)
        largest = session.execute(
            select(Job.id, Job.name, Job.size_bytes)
            .where(Job.size_bytes > 0)
            .order_by(Job.size_bytes.desc(), Job.id)
            .limit(LARGEST)
        ).all()
    kinds = {
        "checkpoints": artifact_bytes.get(ArtifactKind.CHECKPOINT, 0),
        "samples": artifact_bytes.get(ArtifactKind.SAMPLE, 0),
        "predictions": artifact_bytes.get(ArtifactKind.PREDICTIONS, 0),
        "exported models": sum(artifact_bytes.get(kind, 0) for kind in EXPORTS),
        "cached images": planned.cached_bytes,
        "orphaned files": sum(item.size_bytes for item in planned.files),
        "uploaded datasets": upload_bytes,
        "database": _database_bytes(database),
    }
    return Space(
        kinds=kinds,
        largest_jobs=[LargeJob(id=job_id, name=name, size_bytes=size) for job_id, name, size in largest],
        reclaimable_bytes=planned.size_bytes,
        old_checkpoints_bytes=sum(item.size_bytes for item in additional),
    )


def _database_bytes(database: Database) -> int:
    if not database.is_sqlite:
        with database.read() as session:
            return int(session.scalar(select(func.pg_database_size(text("current_database()")))) or 0)
    main_file = Path(database.engine.url.database or "")
    return sum(
        path.stat().st_size for path in (main_file, main_file.with_name(main_file.name + "-wal")) if path.exists()
    )
