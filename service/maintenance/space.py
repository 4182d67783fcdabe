"""What uses the disk, and what could be reclaimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import func, select, text

from service.jobs import uploads
from service.jobs.queries import statistics
from service.maintenance import retention
from service.maintenance.retention import Policy
from service.runtime.settings import Settings
from service.storage.artifacts import EXPORTS, ArtifactKind, ArtifactStore
from service.storage.database import Database
from service.storage.tables import Job

LARGEST: Final = 5
TRIAL_DAYS: Final = 7.0
"""The retention of checkpoints whose effect is told where none is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeJob:
    """A job and what its files take."""

    id: str
    name: str | None
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Bytes on disk, by what they are, and what ``tapeline gc`` would free."""

    kinds: dict[str, int]
    largest_jobs: Sequence[LargeJob]
    reclaimable_bytes: int
    """By ``tapeline gc --delete``, under the retention that is set."""
    old_checkpoints_bytes: int
    """Checkpoints of jobs that ended more than ``TRIAL_DAYS`` ago, besides the best and the latest, and besides what
    the retention that is set would delete already."""

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return sum(self.kinds.values())


def measure(settings: Settings, database: Database, store: ArtifactStore) -> Space:
    """Sum up rows and files. It reads every artifact's row and looks at every file once."""
    policy = Policy.of(settings)
    going = retention.plan(database, store, policy)
    trial = retention.old_checkpoints(database, Policy(checkpoints_days=TRIAL_DAYS))
    ours = {item.name for item in going.checkpoints}
    expired = {item.name for item in going.jobs}
    old = [item for item in trial if item.name not in ours and item.name.partition("/")[0] not in expired]
    with database.read() as session:
        stored = dict(statistics.artifact_bytes(session))
        sent = uploads.total_bytes(session)
        largest = session.execute(
            select(Job.id, Job.name, Job.size_bytes)
            .where(Job.size_bytes > 0)
            .order_by(Job.size_bytes.desc(), Job.id)
            .limit(LARGEST)
        ).all()
    kinds = {
        "checkpoints": stored.get(ArtifactKind.CHECKPOINT, 0),
        "samples": stored.get(ArtifactKind.SAMPLE, 0),
        "exported models": sum(stored.get(kind, 0) for kind in EXPORTS),
        "cached images": going.cached_bytes,
        "orphaned files": sum(item.size_bytes for item in going.files),
        "uploaded datasets": sent,
        "database": _database_bytes(database),
    }
    return Space(
        kinds=kinds,
        largest_jobs=[LargeJob(id=job_id, name=name, size_bytes=size) for job_id, name, size in largest],
        reclaimable_bytes=going.size_bytes,
        old_checkpoints_bytes=sum(item.size_bytes for item in old),
    )


def _database_bytes(database: Database) -> int:
    if not database.is_sqlite:
        with database.read() as session:
            return int(session.scalar(select(func.pg_database_size(text("current_database()")))) or 0)
    main = Path(database.engine.url.database or "")
    return sum(path.stat().st_size for path in (main, main.with_name(main.name + "-wal")) if path.exists())
