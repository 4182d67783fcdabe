"""Reuse of results, and investigations of differences: columns of jobs, and the provenance of workers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_ENDED = sa.text("finished_ms IS NOT NULL")


def upgrade() -> None:
    """Apply. Existing jobs have no prefix hash, so none of them is reused."""
    op.add_column("jobs", sa.Column("prefix_hash", sa.String(80)))
    op.add_column("jobs", sa.Column("reused_from", sa.String(40)))
    op.add_column("jobs", sa.Column("reused_epochs", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("jobs", sa.Column("reusable", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("jobs", sa.Column("investigation", sa.JSON()))
    op.add_column("workers", sa.Column("provenance", sa.JSON()))
    op.create_index("ix_jobs_prefix", "jobs", ["prefix_hash"], sqlite_where=_ENDED, postgresql_where=_ENDED)


def downgrade() -> None:
    """Revert."""
    op.drop_index("ix_jobs_prefix", "jobs")
    op.drop_column("workers", "provenance")
    for column in ("investigation", "reusable", "reused_epochs", "reused_from", "prefix_hash"):
        op.drop_column("jobs", column)
