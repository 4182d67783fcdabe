"""Which jobs came out of a job, without looking at all of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_WITH_PARENT = sa.text("parent_id IS NOT NULL")


def upgrade() -> None:
    """Apply."""
    op.create_index(
        "ix_jobs_parent",
        "jobs",
        ["parent_id", "created_ms"],
        sqlite_where=_WITH_PARENT,
        postgresql_where=_WITH_PARENT,
    )


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_jobs_parent", "jobs")
