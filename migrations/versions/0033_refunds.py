"""Of a preempted lease, only the time since its last epoch is given back to its owner."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from service.storage.fairness import triggers

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None


def _replace(since: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        # A function that is replaced loses what revision 0025 has set, but keeps its privileges.
        schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
        op.execute(triggers.postgresql_count(since))
        op.execute(f"ALTER FUNCTION count_owner_queue() SECURITY DEFINER SET search_path = {schema}, pg_temp")
    else:
        op.execute("DROP TRIGGER owner_queue_update")
        op.execute(triggers.sqlite_update(since))


def upgrade() -> None:
    """Apply."""
    _replace(triggers.LAST_EPOCH)


def downgrade() -> None:
    """Revert."""
    _replace(triggers.WHOLE_LEASE)
