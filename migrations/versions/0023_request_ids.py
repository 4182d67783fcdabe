"""The request that queued a job; in SQLite, the order of the queue's index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("request_id", sa.String(128), nullable=True))
    if op.get_bind().dialect.name == "sqlite":
        # Databases from before 0014 lost the descending order when their tables were copied.
        op.execute("DROP INDEX IF EXISTS ix_jobs_waiting")
        op.create_index("ix_jobs_waiting", "jobs", ["status", sa.text("priority DESC"), "queued_ms", "id"])


def downgrade() -> None:
    """Revert."""
    op.drop_column("jobs", "request_id")
