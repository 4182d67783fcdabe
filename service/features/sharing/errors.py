"""The errors of share links."""

from __future__ import annotations

from service.errors import ProblemKind, TokenRefused


class ShareNotFound(TokenRefused, LookupError):
    """No valid share link has this token or id."""

    code = "share_not_found"
    kind = ProblemKind(
        404, "There is no such share link.", "Ask whoever sent it for a new one; `GET /shares` lists your own."
    )

    def __init__(self) -> None:
        super().__init__("the link was revoked, has expired, or shows something that was deleted: ask for a new one")
