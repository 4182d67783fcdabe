"""What a job's files take, in its own row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.add_column(sa.Column("size_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.execute(
        "UPDATE jobs SET size_bytes ="
        " (SELECT COALESCE(SUM(artifacts.size_bytes), 0) FROM artifacts WHERE artifacts.job_id = jobs.id)"
    )


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.drop_column("size_bytes")
