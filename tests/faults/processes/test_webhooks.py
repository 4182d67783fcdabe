"""A scheduler is killed after it has sent a message: each message arrives, at least once, under one id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, update

from service.features.webhooks import endpoints
from service.features.webhooks.outbox import MessageType
from service.features.webhooks.protocol.addresses import AddressRules
from service.features.webhooks.tables import Webhook, WebhookDelivery
from tests.faults.harness import FaultHarness
from tests.service.features.webhooks.receivers import Receiver, receive
from tests.waiting import wait_until

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(400)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as running:
        yield running


@pytest.fixture
def webhook(harness: FaultHarness, receiver: Receiver) -> Webhook:
    """A webhook for everything; processes that are started from now on may send to it."""
    harness.extra_environ |= {"TAPELINE_WEBHOOK_NETWORKS": "127.0.0.0/8", "TAPELINE_WEBHOOK_HTTP": "1"}
    settings = harness.settings.from_env(harness.settings.to_env() | harness.extra_environ, cores=1)
    rules = AddressRules.of(settings)
    created = endpoints.create(harness.database, receiver.url, list(MessageType), rules, owner=None, is_admin=True)
    receiver.verify = created.secret
    return created


def let_leases_expire(harness: FaultHarness) -> None:
    """Of messages that were in flight: a lease takes two minutes."""
    with harness.database.write() as session:
        session.execute(update(WebhookDelivery).where(WebhookDelivery.lease.is_not(None)).values(next_ms=1))


def announced(harness: FaultHarness) -> list[str]:
    with harness.database.read() as session:
        return sorted(session.scalars(select(WebhookDelivery.event_id)))


def told(receiver: Receiver) -> list[tuple[str, Any]]:
    """Type and id of what each message tells, in order, each message once."""
    messages = {item.id: item.verified(receiver.verify or "") for item in receiver.received}
    return [(message["type"], message["data"]["id"]) for message in messages.values()]


def test_a_scheduler_that_dies_with_messages_in_flight(
    harness: FaultHarness, receiver: Receiver, webhook: Webhook
) -> None:
    ids = [harness.submit(seed=seed) for seed in range(3)]
    worker = harness.start()
    harness.until_all_end()
    worker.terminate()
    harness.arm("message_sent", "kill")
    scheduler = harness.start("workers.scheduler")
    harness.until_reached("message_sent")
    scheduler.wait(20)
    let_leases_expire(harness)
    harness.start("workers.scheduler")

    def are_recorded() -> bool:
        with harness.database.read() as session:
            return set(session.scalars(select(WebhookDelivery.status))) == {"delivered"}

    wait_until(are_recorded, "the results", 30)  # what was received before the kill is sent again, too
    assert sorted(told(receiver)) == sorted(("job.succeeded", job_id) for job_id in ids)
    counts = Counter(receiver.ids)
    assert sorted(counts) == announced(harness)
    assert max(counts.values()) == 2, "it was received, and nobody knew"
