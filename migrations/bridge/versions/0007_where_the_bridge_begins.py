"""The schema of the oldest databases that can be upgraded. It is never created: new databases begin with 0014."""

from __future__ import annotations

revision = "0007"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Refuse: only databases that are at this revision or a later one cross the bridge."""
    raise NotImplementedError("revision 0007 cannot be created")


def downgrade() -> None:
    """Refuse likewise."""
    raise NotImplementedError("nothing before revision 0007 is shipped")
