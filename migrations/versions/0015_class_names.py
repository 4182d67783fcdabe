"""Names of an uploaded dataset's classes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("uploads", sa.Column("class_names", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Revert."""
    op.drop_column("uploads", "class_names")
