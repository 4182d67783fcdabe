"""Seals of the audit log, whose entries cannot be deleted except by retention; rotation and last use of keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import audit_triggers

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. The scheduler seals the entries that are there."""
    op.add_column("api_keys", sa.Column("last_used_ms", sa.BigInteger(), nullable=True))
    op.add_column("api_keys", sa.Column("replaced_by", sa.String(length=40), nullable=True))
    op.create_table(
        "audit_seals",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_id", sa.BigInteger(), nullable=False),
        sa.Column("last_id", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("entries_digest", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("removed_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_seals")),
    )
    op.create_index(op.f("ix_audit_seals_last_id"), "audit_seals", ["last_id"], unique=False)
    kept = sa.text("removed_ms IS NULL")
    op.create_index("ix_audit_seals_kept", "audit_seals", ["id"], sqlite_where=kept, postgresql_where=kept)
    # The first ones exist since 0004.
    for statement in audit_triggers.POSTGRESQL[2:] if _is_postgresql() else audit_triggers.SQLITE[1:]:
        op.execute(statement)


def downgrade() -> None:
    """Take back: the entries stay, without their seals."""
    if _is_postgresql():
        op.execute("DROP TRIGGER audit_is_not_truncated ON audit")
        op.execute("DROP TRIGGER audit_keeps_entries ON audit")
        op.execute("DROP FUNCTION audit_keeps_entries()")
    else:
        op.execute("DROP TRIGGER audit_keeps_entries")
        op.execute("DROP TRIGGER audit_replaces_nothing")
    op.drop_table("audit_seals")
    if _is_postgresql():
        op.execute("DROP FUNCTION audit_seals_are_append_only()")
    op.drop_column("api_keys", "replaced_by")
    op.drop_column("api_keys", "last_used_ms")


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"
