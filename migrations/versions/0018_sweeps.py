"""Sweeps: many jobs as one experiment."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_IN_SWEEP = sa.text("sweep_id IS NOT NULL")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "sweeps",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("owner", sa.String(64)),
        sa.Column("name", sa.String(200)),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("resolved", sa.JSON(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON()),
        sa.Column("trials", sa.Integer(), nullable=False),
        sa.Column("finished_trials", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("failed_trials", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("epochs_started", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("best_trial", sa.Integer()),
        sa.Column("best_value", sa.Float()),
        sa.Column("sweep_digest", sa.String(80)),
        sa.Column("last_seq", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_sweeps"),
    )
    op.create_index("ix_sweeps_created", "sweeps", ["created_ms", "id"])
    op.create_index("ix_sweeps_status", "sweeps", ["status", "id"])
    op.create_table(
        "sweep_trials",
        sa.Column("sweep_id", sa.String(40), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float()),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("jobs", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON()),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name="fk_sweep_trials_sweep_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sweep_id", "trial", name="pk_sweep_trials"),
    )
    op.create_table(
        "sweep_events",
        sa.Column("sweep_id", sa.String(40), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.String(20), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweeps.id"], name="fk_sweep_events_sweep_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sweep_id", "seq", name="pk_sweep_events"),
    )
    op.add_column("jobs", sa.Column("sweep_id", sa.String(40)))
    op.add_column("jobs", sa.Column("trial", sa.Integer()))
    op.add_column("jobs", sa.Column("hold_epoch", sa.Integer()))
    op.create_index("ix_jobs_sweep", "jobs", ["sweep_id", "trial"], sqlite_where=_IN_SWEEP, postgresql_where=_IN_SWEEP)


def downgrade() -> None:
    """Revert."""
    op.drop_index("ix_jobs_sweep", "jobs")
    for column in ("hold_epoch", "trial", "sweep_id"):
        op.drop_column("jobs", column)
    for table in ("sweep_events", "sweep_trials", "sweeps"):
        op.drop_table(table)
