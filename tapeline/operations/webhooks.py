"""Operations of a client on webhooks, besides those of one request."""

from __future__ import annotations

import time
from typing import Any, Final

from tapeline.methods.webhooks import Webhooks

_POLL_INTERVAL_S: Final = 0.5


class WebhookOperations(Webhooks):
    """The methods of ``Client`` about webhooks."""

    def test_webhook(self, webhook_id: str, *, timeout_s: float = 30) -> dict[str, Any]:
        """Send a message of the type ``webhook.test``, and return it with the attempt, or, after ``timeout_s``,
        without one."""
        sent = self._send("POST", "/webhooks/{webhook_id}/test", {"webhook_id": webhook_id})
        deadline = time.monotonic() + timeout_s
        while not sent["attempts"] and time.monotonic() < deadline:
            time.sleep(_POLL_INTERVAL_S)
            sent = self.webhook_delivery(webhook_id, sent["id"])
        return sent
