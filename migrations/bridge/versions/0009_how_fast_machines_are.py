"""How fast machines compute, as their workers measured it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "calibrations",
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("factors", sa.JSON(), nullable=False),
        sa.Column("measured_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_calibrations")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("calibrations")
