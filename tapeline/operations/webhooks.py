"""Operations of a client on webhooks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from tapeline.connection import Connection, json_body, segment

_POLL_INTERVAL_S: Final = 0.5


class WebhookOperations:
    """The methods of ``Client`` about webhooks."""

    _connection: Connection

    def webhooks(self, *, owner: str | None = None) -> Sequence[dict[str, Any]]:
        """The owner's webhooks, the oldest first, without their secrets; ``owner``: as of ``sweeps``."""
        params = {"owner": owner} if owner else {}
        webhooks: Sequence[dict[str, Any]] = self._connection.json("GET", "/webhooks", params=params)["data"]
        return webhooks

    def create_webhook(self, url: str, events: Sequence[str], *, description: str | None = None) -> dict[str, Any]:
        """Create a webhook; ``secret`` is only in this result.

        Args:
            url: where messages are sent.
            events: what to tell of, such as ``job.failed`` and ``sweep.ended``.
        """
        body = {"url": url, "events": list(events), "description": description}
        return self._connection.json("POST", "/webhooks", json=body)

    def webhook(self, webhook_id: str) -> dict[str, Any]:
        """One webhook, without its secret."""
        return self._connection.json("GET", _path(webhook_id))

    def change_webhook(self, webhook_id: str, /, **changes: Any) -> dict[str, Any]:
        """Set ``url``, ``events``, ``description`` or ``enabled`` of a webhook."""
        return self._connection.json("PATCH", _path(webhook_id), repeatable=True, **json_body(changes))

    def rotate_webhook(self, webhook_id: str) -> dict[str, Any]:
        """Replace the secret of a webhook; the new ``secret`` is only in this result. For 24 hours, messages have the
        signatures of both."""
        return self._connection.json("POST", f"{_path(webhook_id)}/rotate")

    def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook with its messages."""
        with self._connection.response("DELETE", _path(webhook_id)):
            pass

    def test_webhook(self, webhook_id: str, *, timeout_s: float = 30) -> dict[str, Any]:
        """Send a message of the type ``webhook.test``, and return it with the attempt, or, after ``timeout_s``,
        without one."""
        sent = self._connection.json("POST", f"{_path(webhook_id)}/test")
        deadline = time.monotonic() + timeout_s
        while not sent["attempts"] and time.monotonic() < deadline:
            time.sleep(_POLL_INTERVAL_S)
            sent = self.webhook_delivery(webhook_id, sent["id"])
        return sent

    def webhook_deliveries(
        self, webhook_id: str, *, status: str | None = None, limit: int | None = None
    ) -> Sequence[dict[str, Any]]:
        """The messages to a webhook, the newest first, each with its ``attempts``.

        Args:
            status: only those that are ``pending``, ``delivered`` or ``failed``.
            limit: the most messages to return.
        """
        params = {"status": status} if status else {}
        return list(self._connection.items(f"{_path(webhook_id)}/deliveries", params, limit=limit))

    def webhook_delivery(self, webhook_id: str, delivery_id: str) -> dict[str, Any]:
        """One message to a webhook."""
        return self._connection.json("GET", f"{_path(webhook_id)}/deliveries/{segment(delivery_id)}")

    def redeliver(self, webhook_id: str, delivery_id: str) -> dict[str, Any]:
        """Send a message again under the same id, or at once if it waits."""
        path = f"{_path(webhook_id)}/deliveries/{segment(delivery_id)}/redeliver"
        return self._connection.json("POST", path)


def _path(webhook_id: str) -> str:
    return f"/webhooks/{segment(webhook_id)}"
