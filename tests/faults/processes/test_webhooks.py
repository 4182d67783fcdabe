"""Web, worker and scheduler are killed between a commit and the message about it: each message arrives, at least once,
under one id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from service.features.webhooks import endpoints
from service.features.webhooks.outbox import MessageType
from service.features.webhooks.protocol.addresses import AddressRules
from service.features.webhooks.tables import Webhook, WebhookDelivery
from tests.faults.harness import FaultHarness
from tests.faults.processes.test_web import web
from tests.service.features.webhooks.receivers import Receiver, receive
from tests.waiting import wait_until

__all__ = ["web"]

pytestmark = pytest.mark.timeout(400)

DIES_AFTER_THE_COMMIT = """
import os, signal
from service.jobs import actions
commit = actions.cancel
def cancel(*arguments, **named):
    commit(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
actions.cancel = cancel
"""


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


@pytest.mark.nightly
def test_a_web_process_that_dies_after_the_commit_of_a_cancellation(
    request: pytest.FixtureRequest, harness: FaultHarness, receiver: Receiver, webhook: Webhook
) -> None:
    job_id = harness.submit()
    harness.patch(DIES_AFTER_THE_COMMIT, program="gunicorn")
    client: httpx.Client = request.getfixturevalue("web")
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(f"/jobs/{job_id}/cancel")
    assert harness.job(job_id).status == "cancelled"
    assert receiver.received == []
    harness.start("workers.scheduler")
    wait_until(lambda: receiver.received, "the message", 30)
    assert told(receiver) == [("job.cancelled", job_id)]


@pytest.mark.stack
def test_a_worker_that_dies_before_and_after_the_commit_of_the_end(
    harness: FaultHarness, receiver: Receiver, webhook: Webhook
) -> None:
    harness.arm("succeeding", "kill")
    job_id = harness.submit()
    harness.start()
    harness.start("workers.scheduler")
    harness.until_reached("succeeding")
    harness.arm("succeeded", "kill")  # of the child
    harness.start()
    harness.until_reached("succeeded")
    harness.until_all_end()
    wait_until(lambda: ("job.succeeded", job_id) in told(receiver), "the message", 30)
    assert told(receiver).count(("job.succeeded", job_id)) == 1
    assert Counter(receiver.ids).keys() == {*announced(harness)}
    harness.check(None)


@pytest.mark.nightly
@pytest.mark.parametrize("place", ["message_claimed", "message_sent"])
def test_a_scheduler_that_dies_with_messages_in_flight(
    harness: FaultHarness, receiver: Receiver, webhook: Webhook, place: str
) -> None:
    ids = [harness.submit(seed=seed) for seed in range(3)]
    worker = harness.start()
    harness.until_all_end()
    worker.terminate()
    harness.arm(place, "kill")
    scheduler = harness.start("workers.scheduler")
    harness.until_reached(place)
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
    if place == "message_sent":  # it was received, and nobody knew
        assert max(counts.values()) == 2


@pytest.mark.nightly
def test_a_worker_that_is_lost_with_its_jobs_is_announced_once(
    harness: FaultHarness, receiver: Receiver, webhook: Webhook
) -> None:
    harness.arm("began", "hang")
    job_id = harness.submit()
    worker = harness.start()
    harness.until_reached("began")
    worker.kill()
    harness.start("workers.scheduler")
    wait_until(lambda: receiver.received, "the message", 60)
    [(kind, name)] = told(receiver)
    assert kind == "worker.lost"
    assert str(name).count("-") >= 2
    assert harness.job(job_id).status == "queued"
