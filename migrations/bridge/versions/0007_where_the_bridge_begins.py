"""The schema of the oldest databases that can be upgraded. It is never created: new databases begin with 0014."""

from __future__ import annotations

from service.errors import SettingsError

revision = "0007"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Refuse: only databases that are at this revision or a later one cross the bridge."""
    raise SettingsError("a new database begins with revision 0014: create it with python -m migrations.upgrade")


def downgrade() -> None:
    """Refuse likewise."""
    raise SettingsError("nothing before revision 0007 is known: restore a backup with the version that made it")
