"""What workers count, for metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("workers", sa.Column("totals", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Revert."""
    op.drop_column("workers", "totals")
