"""What workers run on, whether they are drained, and triggers that a role for workers alone may set off."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from service.storage.fairness import triggers

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_COLUMNS = ("version", "cpu", "cache", "datasets", "drain")


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def upgrade() -> None:
    """Apply."""
    if _is_postgresql():
        # A role that may only change jobs sets off triggers that change other tables, which it must not do by itself.
        schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
        for function in triggers.FUNCTIONS:
            op.execute(f"ALTER FUNCTION {function} SECURITY DEFINER SET search_path = {schema}, pg_temp")
            op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
    op.add_column("workers", sa.Column("version", sa.String(40), nullable=True))
    op.add_column("workers", sa.Column("cpu", sa.String(200), nullable=True))
    op.add_column("workers", sa.Column("cache", sa.JSON(), nullable=True))
    op.add_column("workers", sa.Column("datasets", sa.JSON(), nullable=True))
    op.add_column("workers", sa.Column("drain", sa.String(10), nullable=True))


def downgrade() -> None:
    """Revert."""
    if _is_postgresql():
        for function in triggers.FUNCTIONS:
            op.execute(f"ALTER FUNCTION {function} SECURITY INVOKER RESET search_path")
            op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")
    for column in _COLUMNS:
        op.drop_column("workers", column)
