"""Indexes that have the queue, jobs of one state, and jobs by priority in order."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    op.create_index("ix_jobs_waiting", "jobs", ["status", sa.text("priority DESC"), "queued_ms", "id"], unique=False)
    op.create_index("ix_jobs_status", "jobs", ["status", "created_ms", "id"], unique=False)
    op.create_index("ix_jobs_priority", "jobs", ["priority", "id"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_jobs_priority", table_name="jobs")
    op.drop_index("ix_jobs_status", table_name="jobs")
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    where = sa.text("status = 'queued'")
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        [sa.text("priority DESC"), "queued_ms", "id"],
        unique=False,
        sqlite_where=where,
        postgresql_where=where,
    )
