"""Extremes of jobs from before 0008, no empty names, and indexes for names and for a key's last audit entry."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_JOBS: Final = sa.table("jobs", sa.column("id"), sa.column("name"), sa.column("extremes", sa.JSON()))
_EPOCHS: Final = sa.table(
    "epochs", sa.column("job_id"), sa.column("epoch"), sa.column("metrics", sa.JSON()), sa.column("cpu_seconds")
)
_JOBS_PER_QUERY: Final = 100


def upgrade() -> None:
    """Apply."""
    if op.get_bind().dialect.name == "postgresql":
        # A worker of the old code that commits an epoch between the two statements would have it overwritten.
        op.execute("LOCK TABLE jobs IN EXCLUSIVE MODE")
    op.create_index("ix_jobs_name", "jobs", ["name", "owner", "created_ms", "id"], unique=False)
    op.create_index("ix_audit_key", "audit", ["key_id", "at_ms"], unique=False)
    op.execute(sa.update(_JOBS).where(_JOBS.c.name == "").values(name=None))
    for job_id, extremes in _missing_extremes():
        op.execute(sa.update(_JOBS).where(_JOBS.c.id == job_id).values(extremes=extremes))


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_audit_key", "audit")
    op.drop_index("ix_jobs_name", "jobs")


def _missing_extremes() -> Iterator[tuple[str, dict[str, Any]]]:
    """The extremes of every job with epochs from before 0008, which recorded processor time and extremes at once."""
    connection = op.get_bind()
    old = sa.select(_EPOCHS.c.job_id).where(_EPOCHS.c.cpu_seconds.is_(None)).distinct()
    job_ids = connection.scalars(old).all()
    for first in range(0, len(job_ids), _JOBS_PER_QUERY):
        some = _EPOCHS.c.job_id.in_(job_ids[first : first + _JOBS_PER_QUERY])
        rows = connection.execute(
            sa.select(_EPOCHS.c.job_id, _EPOCHS.c.epoch, _EPOCHS.c.metrics)
            .where(some)
            .order_by(_EPOCHS.c.job_id, _EPOCHS.c.epoch)
        )
        for job_id, epochs in groupby(rows, key=lambda row: row.job_id):
            extremes: dict[str, Any] = {}
            for row in epochs:
                _extend(extremes, row.metrics, row.epoch)
            yield job_id, extremes


def _extend(extremes: dict[str, Any], metrics: dict[str, float | None], epoch: int) -> None:
    """What ``service.jobs.extremes`` did when this was written: a migration does not change with the code."""
    for name, value in metrics.items():
        if value is None or not math.isfinite(value):
            continue
        known = extremes.setdefault(name, {"min": value, "min_epoch": epoch, "max": value, "max_epoch": epoch})
        if value < known["min"]:
            known |= {"min": value, "min_epoch": epoch}
        if value > known["max"]:
            known |= {"max": value, "max_epoch": epoch}
