"""The id of the artifact folder, and why a worker claims no jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "stores",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
    )
    op.add_column("workers", sa.Column("blocked", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Revert."""
    op.drop_column("workers", "blocked")
    op.drop_table("stores")
