"""What the audit log records about share links."""

from __future__ import annotations

from enum import StrEnum


class ShareAction(StrEnum):
    """Actions on share links."""

    SHARE = "share"
    REVOKE_SHARE = "revoke_share"
