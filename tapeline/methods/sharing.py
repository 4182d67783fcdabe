"""Operations of the API: Sharing. Written by `make client`."""

from __future__ import annotations

from typing import Any

from tapeline.methods.calls import Calls, given


class Sharing(Calls):
    """Methods of ``Client``."""

    def shares(self, *, owner: str | None = None) -> list[dict[str, Any]]:
        """List the links that are valid, the newest first, without their tokens.

        Args:
            owner: For the scope ``admin``: what belongs to this owner (an id or a unique display name), with ``-``,
                to everybody without a key, or, with ``*``, to all. Such reads are in the audit log.
        """
        return self._items("GET", "/shares", query=given(owner=owner))

    def revoke_share(self, share_id: str) -> None:
        """Revoke a link; with the scope ``admin``, also one of another owner. It stops working at once, also for
        streams within two seconds.
        """
        self._nothing("DELETE", "/shares/{share_id}", {"share_id": share_id})
