"""Limits of an owner that have no column of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("owners", sa.Column("further_limits", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    """Revert."""
    op.drop_column("owners", "further_limits")
