"""Operations of the API: Webhooks. Written by `make client`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict, Unpack

from tapeline.methods.calls import Calls, given


class WebhookPatch(TypedDict, total=False):
    """Fields to change."""

    url: str | None
    events: Sequence[str] | None
    description: str | None
    enabled: bool | None


class Webhooks(Calls):
    """Methods of ``Client``."""

    def webhooks(self, *, owner: str | None = None) -> list[dict[str, Any]]:
        """List the owner's webhooks, the oldest first, without their secrets.

        Args:
            owner: For the scope ``admin``: what belongs to this owner (an id or a unique display name), with ``-``,
                to everybody without a key, or, with ``*``, to all. Such reads are in the audit log.
        """
        return self._items("GET", "/webhooks", query=given(owner=owner))

    def create_webhook(self, url: str, events: Sequence[str], *, description: str | None = None) -> dict[str, Any]:
        """Create a webhook: a URL to which messages about the owner's jobs, sweeps and aliases are posted.

        Messages are signed by the Standard Webhooks specification. The secret is only in this response: store it, or
        rotate it. All addresses of the host are checked now and at each attempt: by default, only public ones are
        permitted.

        Args:
            url: Where messages are sent: ``https://``, with a host that has public addresses only.
            events: The types of events that are sent. ``worker.lost`` needs a key with the scope ``admin``.
            description: Free text.
        """
        return self._send("POST", "/webhooks", body=given(url=url, events=events, description=description))

    def webhook(self, webhook_id: str) -> dict[str, Any]:
        """Show a webhook, without its secret."""
        return self._send("GET", "/webhooks/{webhook_id}", {"webhook_id": webhook_id})

    def change_webhook(self, webhook_id: str, /, **changes: Unpack[WebhookPatch]) -> dict[str, Any]:
        """Change a webhook, or disable or enable it.

        Args:
            enabled: Nothing is announced to a disabled webhook. One that is enabled gets the messages that waited.
        """
        return self._send("PATCH", "/webhooks/{webhook_id}", {"webhook_id": webhook_id}, body=changes)

    def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook with its messages, also those that were not delivered; with the scope ``admin``, also one
        of another owner.
        """
        self._nothing("DELETE", "/webhooks/{webhook_id}", {"webhook_id": webhook_id})

    def webhook_deliveries(
        self,
        webhook_id: str,
        *,
        status: Literal["pending", "delivered", "failed"] | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """List the messages to a webhook, the newest first, with the response to each attempt.

        Args:
            limit: The most items to return.
        """
        return self._pages(
            "GET",
            "/webhooks/{webhook_id}/deliveries",
            {"webhook_id": webhook_id},
            query=given(status=status),
            limit=limit,
        )

    def webhook_delivery(self, webhook_id: str, delivery_id: str) -> dict[str, Any]:
        """Show a message and its attempts."""
        return self._send(
            "GET",
            "/webhooks/{webhook_id}/deliveries/{delivery_id}",
            {"webhook_id": webhook_id, "delivery_id": delivery_id},
        )

    def redeliver(self, webhook_id: str, delivery_id: str) -> dict[str, Any]:
        """Send a message again under the same id, or at once if it waits; its schedule begins again."""
        return self._send(
            "POST",
            "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
            {"webhook_id": webhook_id, "delivery_id": delivery_id},
        )

    def rotate_webhook(self, webhook_id: str) -> dict[str, Any]:
        """Replace the secret and the key of the webhook. For 24 hours, messages have the signatures of both.

        The new secret is only in this response.
        """
        return self._send("POST", "/webhooks/{webhook_id}/rotate", {"webhook_id": webhook_id})
