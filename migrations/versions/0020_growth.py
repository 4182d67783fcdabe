"""An index for retention, which read all ended jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_ENDED = sa.text("finished_ms IS NOT NULL")


def upgrade() -> None:
    """Apply."""
    op.create_index("ix_jobs_finished", "jobs", ["finished_ms", "id"], sqlite_where=_ENDED, postgresql_where=_ENDED)


def downgrade() -> None:
    """Revert."""
    op.drop_index("ix_jobs_finished", "jobs")
