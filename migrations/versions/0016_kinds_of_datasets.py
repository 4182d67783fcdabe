"""Uploads that are tables, in colour, or have a test part."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("uploads", sa.Column("kind", sa.String(16), nullable=False, server_default="images"))
    op.add_column("uploads", sa.Column("image_channels", sa.Integer(), nullable=False, server_default=sa.text("1")))
    op.add_column("uploads", sa.Column("columns", sa.JSON(), nullable=True))
    op.add_column("uploads", sa.Column("test_count", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("uploads", sa.Column("report", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Revert."""
    for column in ("report", "test_count", "columns", "image_channels", "kind"):
        op.drop_column("uploads", column)
