"""A job's star, note, extreme metrics, processor time and memory."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_JOB_COLUMNS = ("extremes", "starred", "note", "cpu_seconds", "peak_memory_bytes")
_EPOCH_COLUMNS = ("cpu_seconds", "memory_bytes")


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.add_column(sa.Column("extremes", sa.JSON(), server_default=sa.text("'{}'"), nullable=False))
        batch_op.add_column(sa.Column("starred", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("note", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("cpu_seconds", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True))
    with op.batch_alter_table("epochs") as batch_op:
        batch_op.add_column(sa.Column("cpu_seconds", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("memory_bytes", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """Take back."""
    with op.batch_alter_table("epochs") as batch_op:
        for name in _EPOCH_COLUMNS:
            batch_op.drop_column(name)
    with op.batch_alter_table("jobs") as batch_op:
        for name in _JOB_COLUMNS:
            batch_op.drop_column(name)
