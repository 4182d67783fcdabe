"""The data that a job trains on is pinned; uploads have versions, and stay for as long as a job needs them."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_JOBS: Final = sa.table(
    "jobs",
    sa.column("id"),
    sa.column("owner"),
    sa.column("created_ms"),
    sa.column("resolved", sa.JSON()),
    sa.column("provenance", sa.JSON(none_as_null=True)),
    sa.column("upload_id"),
    sa.column("dataset_sha256"),
)
_UPLOADS: Final = sa.table(
    "uploads",
    sa.column("id"),
    sa.column("owner"),
    sa.column("name"),
    sa.column("sha256"),
    sa.column("created_ms"),
    sa.column("deleted_ms"),
)


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("uploads") as batch_op:
        batch_op.add_column(sa.Column("deleted_ms", sa.BigInteger(), nullable=True))
        batch_op.drop_constraint(op.f("uq_uploads_owner_name"), type_="unique")
        batch_op.create_unique_constraint(op.f("uq_uploads_owner_name_sha256"), ["owner", "name", "sha256"])
    op.add_column("jobs", sa.Column("upload_id", sa.String(length=40), nullable=True))
    op.add_column("jobs", sa.Column("dataset_sha256", sa.String(length=80), nullable=True))
    pinned = sa.text("upload_id IS NOT NULL")
    op.create_index("ix_jobs_upload", "jobs", ["upload_id"], sqlite_where=pinned, postgresql_where=pinned)
    _pin_old_jobs()


def _pin_old_jobs() -> None:
    trained_on = _JOBS.c.provenance["dataset"].as_string()
    op.execute(sa.update(_JOBS).where(trained_on.is_not(None)).values(dataset_sha256=trained_on))
    for upload in op.get_bind().execute(sa.select(_UPLOADS)).all():
        # A job that began with other data of the same name is not pinned to these.
        same_data = sa.or_(_JOBS.c.dataset_sha256.is_(None), _JOBS.c.dataset_sha256 == upload.sha256)
        whose: Any = _JOBS.c.owner == upload.owner if upload.owner else _JOBS.c.owner.is_(None)
        op.execute(
            sa.update(_JOBS)
            .where(whose, _JOBS.c.resolved["dataset"]["name"].as_string() == upload.name, same_data)
            .where(_JOBS.c.created_ms >= upload.created_ms)
            .values(upload_id=upload.id, dataset_sha256=upload.sha256)
        )


def downgrade() -> None:
    """Take back. Of several versions of an upload the newest stays, and deleted ones go: their names were unique."""
    newer = _UPLOADS.alias()
    superseded = sa.exists().where(
        newer.c.owner == _UPLOADS.c.owner, newer.c.name == _UPLOADS.c.name, newer.c.created_ms > _UPLOADS.c.created_ms
    )
    op.execute(sa.delete(_UPLOADS).where(sa.or_(_UPLOADS.c.deleted_ms.is_not(None), superseded)))
    op.drop_index("ix_jobs_upload", "jobs")
    op.drop_column("jobs", "dataset_sha256")
    op.drop_column("jobs", "upload_id")
    with op.batch_alter_table("uploads") as batch_op:
        batch_op.drop_constraint(op.f("uq_uploads_owner_name_sha256"), type_="unique")
        batch_op.create_unique_constraint(op.f("uq_uploads_owner_name"), ["owner", "name"])
        batch_op.drop_column("deleted_ms")
