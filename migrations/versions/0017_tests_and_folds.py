"""Scores of jobs on a test part, and the folds of cross-validations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_IN_FOLD_GROUP = sa.text("fold_group IS NOT NULL")


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("fold_group", sa.String(40), nullable=True))
    op.add_column("jobs", sa.Column("test_scores", sa.JSON(), nullable=True))
    op.create_index(
        "ix_jobs_fold_group", "jobs", ["fold_group"], sqlite_where=_IN_FOLD_GROUP, postgresql_where=_IN_FOLD_GROUP
    )


def downgrade() -> None:
    """Revert."""
    op.drop_index("ix_jobs_fold_group", table_name="jobs")
    for column in ("test_scores", "fold_group"):
        op.drop_column("jobs", column)
