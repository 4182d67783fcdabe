"""What webhooks need from the scheduler."""

from __future__ import annotations

from typing import Final

from service.hooks import ExpiredData, Upkeep
from service.webhooks import deliveries

_MESSAGES: Final = ExpiredData(
    name="deliveries",
    noun="messages to webhooks",
    days=lambda settings: settings.keep_deliveries_days,
    count=deliveries.count_expired,
    remove=deliveries.remove_expired,
)
UPKEEP: Final = Upkeep(expired=(_MESSAGES,))
