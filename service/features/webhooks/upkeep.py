"""What webhooks need from the scheduler."""

from __future__ import annotations

from typing import Final

from service.features.webhooks.delivery import deliveries
from service.features.webhooks.delivery.message_sender import MessageSender
from service.features.webhooks.settings import WebhookSettings
from service.hooks import ExpiredData, PeriodicWork, Upkeep
from service.runtime.settings import Settings
from service.storage.database import Database

_MESSAGES: Final = ExpiredData(
    name="deliveries",
    noun="messages to webhooks",
    days=lambda settings: settings.of(WebhookSettings).keep_deliveries_days,
    count=deliveries.count_expired,
    remove=deliveries.remove_expired,
)


def _periodic(database: Database, settings: Settings) -> tuple[PeriodicWork, ...]:
    sender = MessageSender(database, settings)
    # What is left after the wait is sent again, under the same id.
    return (PeriodicWork(task="send messages to webhooks", interval_s=1, run=sender.send_due, wait=sender.wait),)


UPKEEP: Final = Upkeep(expired=(_MESSAGES,), periodic=_periodic)
