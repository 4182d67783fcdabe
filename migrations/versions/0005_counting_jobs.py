"""Jobs counted by status and kind without reading them."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_jobs_counts", "jobs", ["status", "kind"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_jobs_counts", table_name="jobs")
