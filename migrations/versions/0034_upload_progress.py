"""The progress of uploads, for all web processes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "upload_progress",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("upload", sa.String(64), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.Column("total_bytes", sa.BigInteger()),
        sa.Column("fraction", sa.Float()),
        sa.Column("verdict", sa.String(10)),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_upload_progress"),
    )
    op.create_index("ix_upload_progress_upload", "upload_progress", ["upload"])


def downgrade() -> None:
    """Revert."""
    op.drop_table("upload_progress")
