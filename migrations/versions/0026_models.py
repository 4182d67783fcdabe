"""The model registry: names, versions, aliases with their gates, approvals and moves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def _of_model(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=f"fk_{table}_model_id", ondelete="CASCADE")


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "models",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("owner", "name", name="uq_models_owner_name"),
    )
    op.create_table(
        "model_versions",
        sa.Column("model_id", sa.String(40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(2000)),
        sa.Column("key_id", sa.String(40)),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        _of_model("model_versions"),
        sa.PrimaryKeyConstraint("model_id", "version", name="pk_model_versions"),
        sa.UniqueConstraint("model_id", "sha256", name="uq_model_versions_model_id_sha256"),
    )
    op.create_index("ix_model_versions_job_id", "model_versions", ["job_id"])
    op.create_table(
        "model_approvals",
        sa.Column("model_id", sa.String(40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("note", sa.String(2000)),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        _of_model("model_approvals"),
        sa.PrimaryKeyConstraint("model_id", "version", "key_id", name="pk_model_approvals"),
    )
    op.create_table(
        "model_aliases",
        sa.Column("model_id", sa.String(40), nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer()),
        sa.Column("seq", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("gates", sa.JSON(), nullable=False),
        _of_model("model_aliases"),
        sa.PrimaryKeyConstraint("model_id", "alias", name="pk_model_aliases"),
    )
    op.create_table(
        "model_moves",
        sa.Column("model_id", sa.String(40), nullable=False),
        sa.Column("alias", sa.String(64), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("from_version", sa.Integer()),
        sa.Column("to_version", sa.Integer()),
        sa.Column("restores", sa.Integer()),
        sa.Column("forced", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("reason", sa.String(2000)),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(40)),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        _of_model("model_moves"),
        sa.PrimaryKeyConstraint("model_id", "alias", "seq", name="pk_model_moves"),
    )


def downgrade() -> None:
    """Revert."""
    for table in ("model_moves", "model_aliases", "model_approvals", "model_versions", "models"):
        op.drop_table(table)
