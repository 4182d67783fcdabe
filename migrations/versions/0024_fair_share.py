"""Owners, the counts that decide who is served next, and usage per day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from service.storage.fairness import triggers

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "owners",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("display_name", sa.String(200), nullable=True),
        sa.Column("weight", sa.Float(), server_default=sa.text("1"), nullable=False),
        sa.Column("cap", sa.Integer(), nullable=True),
        sa.Column("max_priority", sa.Integer(), nullable=True),
        sa.Column("queued", sa.Integer(), nullable=True),
        sa.Column("requests", sa.Integer(), nullable=True),
        sa.Column("streams", sa.Integer(), nullable=True),
        sa.Column("uploads", sa.BigInteger(), nullable=True),
        sa.Column("datasets", sa.BigInteger(), nullable=True),
        sa.Column("artifacts", sa.BigInteger(), nullable=True),
        sa.Column("cpu_seconds", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_owners"),
    )
    op.create_table(
        "owner_queue",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("weight", sa.Float(), server_default=sa.text("1"), nullable=False),
        sa.Column("cap", sa.Integer(), nullable=True),
        sa.Column("blocked", sa.String(20), nullable=True),
        sa.Column("running", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("queued", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("urgent", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("vtime", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("accrued_ms", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("mean_seconds", sa.Float(), server_default=sa.text("30"), nullable=False),
        sa.Column(
            "due", sa.Float(), sa.Computed("vtime + running * mean_seconds / weight", persisted=True), nullable=False
        ),
        sa.Column("load", sa.Float(), sa.Computed("running / weight", persisted=True), nullable=False),
        sa.Column(
            "ready",
            sa.Boolean(),
            sa.Computed("queued > 0 AND blocked IS NULL AND (cap IS NULL OR running < cap)", persisted=True),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("owner", name="pk_owner_queue"),
    )
    op.create_index(
        "ix_owner_queue_next",
        "owner_queue",
        [sa.text("urgent DESC"), "due", "load", "owner"],
        sqlite_where=sa.text("ready"),
        postgresql_where=sa.text("ready"),
    )
    op.create_index("ix_owner_queue_vtime", "owner_queue", ["vtime"])
    op.create_table(
        "owner_defaults",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cap", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_owner_defaults"),
    )
    op.create_table(
        "owner_usage",
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("jobs", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cpu_seconds", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("slot_seconds", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("owner", "day", name="pk_owner_usage"),
    )
    op.create_table(
        "shares",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(64), nullable=True),
        sa.Column("path", sa.String(2000), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_shares"),
    )
    op.create_index("ix_shares_owner", "shares", ["owner"])
    op.create_table(
        "sign_in_links",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("used_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sign_in_links"),
    )
    op.create_index("ix_sign_in_links_key_id", "sign_in_links", ["key_id"])
    # From here on, nobody writes jobs: the index locks the table, until the triggers count what is written.
    op.create_index(
        "ix_jobs_lane",
        "jobs",
        ["owner", sa.text("priority DESC"), "queued_ms", "id"],
        sqlite_where=sa.text("status = 'queued'"),
        postgresql_where=sa.text("status = 'queued'"),
    )
    # Priorities from 6 on are those of urgent jobs now, which an owner with a key needs a permission for.
    op.execute(
        "UPDATE jobs SET priority = 5 "
        "WHERE priority > 5 AND owner IS NOT NULL AND status IN ('queued', 'running', 'paused')"
    )
    op.execute(
        "INSERT INTO owner_queue (owner, running, queued, urgent) SELECT COALESCE(owner, ''), "
        "SUM(CASE WHEN status = 'running' THEN 1 ELSE 0 END), SUM(CASE WHEN status = 'queued' THEN 1 ELSE 0 END), "
        "MAX(CASE WHEN status = 'queued' AND priority >= 6 THEN priority ELSE 0 END) "
        "FROM jobs WHERE status IN ('running', 'queued') GROUP BY COALESCE(owner, '')"
    )
    now = (
        "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
        if _is_postgresql()
        else "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
    )
    op.execute(f"UPDATE owner_queue SET accrued_ms = {now}")  # noqa: S608 - all text is in this module
    if _is_postgresql():
        # A small table of which each transaction changes a row.
        op.execute(
            "ALTER TABLE owner_queue SET (fillfactor = 50, autovacuum_vacuum_threshold = 500, "
            "autovacuum_vacuum_scale_factor = 0)"
        )
    if _is_postgresql():
        statements = [triggers.postgresql_count(triggers.WHOLE_LEASE), *triggers.POSTGRESQL]
    else:
        statements = [triggers.sqlite_update(triggers.WHOLE_LEASE), *triggers.SQLITE]
    for statement in statements:
        op.execute(statement)
    # Last: nothing can even be read while these are locked.
    op.add_column("uploads", sa.Column("shared", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("jobs", sa.Column("budget_seconds", sa.Float(), nullable=True))
    op.add_column("jobs", sa.Column("claimed_ms", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("claimed_cpu_seconds", sa.Float(), nullable=True))


def downgrade() -> None:
    """Revert."""
    on_jobs = " ON jobs" if _is_postgresql() else ""
    for event in ("insert", "update", "delete"):
        op.execute(f"DROP TRIGGER owner_queue_{event}{on_jobs}")
    op.drop_index("ix_jobs_lane", "jobs")
    op.drop_column("jobs", "claimed_cpu_seconds")
    op.drop_column("jobs", "claimed_ms")
    op.drop_column("jobs", "budget_seconds")
    op.drop_column("uploads", "shared")
    for table in ("sign_in_links", "shares", "owner_usage", "owner_queue", "owner_defaults", "owners"):
        op.drop_table(table)
    if _is_postgresql():
        for function in triggers.FUNCTIONS:
            op.execute(f"DROP FUNCTION {function}")
