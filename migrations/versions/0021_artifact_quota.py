"""Quotas of stored files: the expected size of a job's files, and an index that covers the sums.

Jobs that are stored already have an expected size of 0, which means unknown: they count with what they have stored.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_OWNED = sa.text("owner IS NOT NULL")
_OWNED_AND_QUEUED = sa.text("owner IS NOT NULL AND status = 'queued'")


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("expected_bytes", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.drop_index("ix_jobs_quota", "jobs")
    columns = ["owner", "status", "size_bytes", "expected_bytes"]
    op.create_index("ix_jobs_quota", "jobs", columns, sqlite_where=_OWNED, postgresql_where=_OWNED)


def downgrade() -> None:
    """Revert."""
    op.drop_index("ix_jobs_quota", "jobs")
    op.create_index(
        "ix_jobs_quota",
        "jobs",
        ["owner", "status"],
        sqlite_where=_OWNED_AND_QUEUED,
        postgresql_where=_OWNED_AND_QUEUED,
    )
    op.drop_column("jobs", "expected_bytes")
