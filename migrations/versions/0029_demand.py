"""How many slots the queue wants, for what starts and stops machines."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

# ``service.storage.fairness.room.DEMAND`` at this revision. A later migration that changes ``owner_queue`` other than
# by new columns drops the view first and creates it again: neither database changes a table under a view.
QUERY: Final = (
    "SELECT COALESCE(SUM(running + CASE WHEN NOT ready THEN 0 "
    "WHEN cap IS NULL OR running + queued < cap THEN queued ELSE cap - running END), 0) AS slots FROM owner_queue"
)


def upgrade() -> None:
    """Apply."""
    op.execute(f"CREATE VIEW tapeline_demand AS {QUERY}")


def downgrade() -> None:
    """Revert."""
    op.execute("DROP VIEW tapeline_demand")
