"""What a claim writes and what it compares: the token of the lease, and the version of the spec."""

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
    op.add_column("jobs", sa.Column("spec_version", sa.Integer(), nullable=False, server_default=sa.text("1")))
    op.add_column("workers", sa.Column("spec_version", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Revert."""
    op.drop_column("workers", "spec_version")
    for column in ("spec_version", "lease_token"):
        op.drop_column("jobs", column)
