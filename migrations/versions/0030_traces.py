"""The trace of the request that queued a job or created a sweep."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    for table in ("jobs", "sweeps"):
        op.add_column(table, sa.Column("traceparent", sa.String(55), nullable=True))


def downgrade() -> None:
    """Revert."""
    for table in ("jobs", "sweeps"):
        op.drop_column(table, "traceparent")
