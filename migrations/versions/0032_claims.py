"""What a claim writes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("jobs", sa.Column("lease_token", sa.String(32), nullable=True))


def downgrade() -> None:
    """Revert."""
    op.drop_column("jobs", "lease_token")
