"""Forks, reproductions, and the log of all jobs in the order of time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.add_column(sa.Column("start_epoch", sa.Integer(), server_default=sa.text("0"), nullable=False))
        batch_op.add_column(sa.Column("reproduction", sa.JSON(), nullable=True))
    op.create_table(
        "expected_epochs",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("samples_digest", sa.String(length=80), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_expected_epochs_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "epoch", name=op.f("pk_expected_epochs")),
    )
    op.create_index("ix_events_created", "events", ["created_ms"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_events_created", table_name="events")
    op.drop_table("expected_epochs")
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.drop_column("reproduction")
        batch_op.drop_column("start_epoch")
