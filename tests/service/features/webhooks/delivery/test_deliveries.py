from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from service.errors import SpecError
from service.features.webhooks import endpoints, outbox
from service.features.webhooks.delivery import deliveries, sending
from service.features.webhooks.delivery.deliveries import MAX_IN_FLIGHT, RETRY_DELAYS_S, Attempt, Claim
from service.features.webhooks.delivery.message_sender import MessageSender
from service.features.webhooks.endpoints import Changes
from service.features.webhooks.errors import AddressRefused, DeliveryNotFound, WebhookDisabled, WebhookNotFound
from service.features.webhooks.outbox import DeliveryStatus, MessageType
from service.features.webhooks.protocol.addresses import AddressRules
from service.features.webhooks.tables import Webhook, WebhookDelivery
from service.runtime.settings import Settings
from service.storage.database import Database
from tests.service.features.webhooks.receivers import Receiver, answer, receive
from tests.waiting import wait_until

RULES = AddressRules(networks=[ipaddress.ip_network("127.0.0.0/8")], http=True)
FAILED = Attempt(at_ms=0, seconds=0.1, status=500, error="the response is 500")
DELIVERED = Attempt(at_ms=0, seconds=0.1, status=200)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    environ = {"TAPELINE_WEBHOOK_NETWORKS": "127.0.0.0/8", "TAPELINE_WEBHOOK_HTTP": "1"}
    environ |= {"TAPELINE_URL": "https://tapeline.example/", "TAPELINE_HOME": str(tmp_path)}
    return Settings.from_env(environ, cores=1)


def create(database: Database, url: str = "http://127.0.0.1:9/", owner: str | None = None, **options: Any) -> Webhook:
    options = {"is_admin": True} | options
    return endpoints.create(database, url, list(MessageType), RULES, owner=owner, **options)


def announce(database: Database, name: str = "digits", owner: str | None = None) -> str:
    with database.write() as session:
        data = {"id": "job_1", "url": "/jobs/job_1", "name": name, "status": "succeeded"}
        return outbox.announce(session, owner=owner, kind="job.succeeded", data=data)


def read(database: Database, webhook_id: str, event_id: str) -> WebhookDelivery:
    with database.read() as session:
        return deliveries.find(session, webhook_id, event_id, owner=None)


def hook(database: Database, webhook_id: str) -> Webhook:
    with database.read() as session:
        return endpoints.find(session, webhook_id, owner=None)


def claim(database: Database, at_most: int = 100, in_flight: Collection[Claim] = ()) -> list[Claim]:
    return deliveries.claim(database, in_flight=in_flight, at_most=at_most)


def make_due(database: Database) -> None:
    """Let all times that are waited for pass."""
    with database.write() as session:
        session.execute(update(WebhookDelivery).where(WebhookDelivery.next_ms.is_not(None)).values(next_ms=1))
        session.execute(update(Webhook).where(Webhook.resume_ms.is_not(None)).values(resume_ms=1))


def wait_s(database: Database, row: WebhookDelivery) -> float:
    assert row.next_ms is not None
    return row.next_ms / 1000 - time.time()


def test_a_receiver_that_knows_only_the_standard_verifies_a_message(
    database: Database, receiver: Receiver, settings: Settings
) -> None:
    webhook = create(database, receiver.url)
    receiver.verify = webhook.secret
    event_id = announce(database, "Ziffern “ä” \N{SNOWMAN}")
    sender = MessageSender(database, settings)
    assert sender.send_due() == 1
    assert sender.wait(20)
    [message] = receiver.received
    assert message.id == event_id
    content = message.verified(webhook.secret)
    row = read(database, webhook.id, event_id)
    assert content["type"] == "job.succeeded"
    assert content["timestamp"] == time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(row.created_ms // 1000)) + (
        f".{row.created_ms % 1000:03d}Z"
    )
    assert content["data"] == {
        "id": "job_1",
        "url": "https://tapeline.example/jobs/job_1",
        "name": "Ziffern “ä” \N{SNOWMAN}",
        "status": "succeeded",
    }
    assert (row.status, row.next_ms, row.lease) == ("delivered", None, None)
    assert [(item["status"], item["error"]) for item in row.attempts] == [(204, None)]
    assert sender.send_due() == 0


def test_a_result_that_cannot_be_recorded_is_logged_with_its_message(
    database: Database, receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(database, receiver.url)
    event_id = announce(database)

    def refuse(*_: object) -> None:
        raise OperationalError("UPDATE", None, Exception("the database does not respond"))

    monkeypatch.setattr(deliveries, "record", refuse)
    with structlog.testing.capture_logs() as logs:
        sender = MessageSender(database, settings)
        sender.send_due()
        assert sender.wait(20)
    assert [(entry["log_level"], entry.get("message")) for entry in logs] == [("warning", event_id)]


def test_without_an_address_of_the_service_a_message_has_a_path() -> None:
    body = deliveries.body_of("job.failed", 0, '{"url": "/jobs/1", "name": "\\"url\\": \\"/x"}', "")
    assert json.loads(body)["data"] == {"url": "/jobs/1", "name": '"url": "/x'}
    body = deliveries.body_of("job.failed", 0, '{"url": "https://a.example/", "name": null}', "https://b.example")
    assert json.loads(body)["data"]["url"] == "https://a.example/"


def test_a_message_that_fails_is_tried_ten_times_in_three_days_and_then_the_webhook_is_disabled(
    database: Database,
) -> None:
    webhook, event_id = create(database), announce(database)
    other = announce(database, "another")
    waits = []
    for number in range(1, 11):
        make_due(database)
        claimed = next(item for item in claim(database) if item.event_id == event_id)
        deliveries.record(database, claimed, FAILED, jitter=0)
        row = read(database, webhook.id, event_id)
        assert len(row.attempts) == number
        if number < 10:
            assert row.status == "pending"
            waits.append(round(wait_s(database, row)))
    assert waits == pytest.approx(list(RETRY_DELAYS_S), abs=20)
    assert sum(RETRY_DELAYS_S) == 75 * 3600 + 35 * 60 + 5
    assert (row.status, row.next_ms) == ("failed", None)
    disabled = hook(database, webhook.id)
    assert "10 attempts over three days have failed" in (disabled.disabled_reason or "")
    make_due(database)
    assert claim(database) == []
    with pytest.raises(WebhookDisabled):
        deliveries.redeliver(database, webhook.id, event_id, owner=None)
    endpoints.change(database, webhook.id, Changes(enabled=True), RULES, owner=None, is_admin=True)
    assert [item.event_id for item in claim(database)] == [other]


def test_a_delay_is_longer_or_shorter_by_a_tenth(database: Database) -> None:
    webhook = create(database)
    waits = set()
    for number in range(40):
        event_id = announce(database, str(number))
        with database.write() as session:
            session.execute(update(Webhook).values(failures=0))
        [claimed] = claim(database)
        deliveries.record(database, claimed, FAILED)
        with database.write() as session:
            row = session.get_one(WebhookDelivery, (webhook.id, event_id))
            waits.add(round(wait_s(database, row), 3))
            row.next_ms = None
    assert len(waits) > 5
    assert 3.5 < min(waits) <= max(waits) <= 5.6


@pytest.mark.parametrize(("asked_s", "expected_s"), [(1.0, 5), (600.0, 600), (10.0**8, 86_400)])
def test_a_receiver_may_ask_for_a_later_attempt(database: Database, asked_s: float, expected_s: int) -> None:
    webhook, event_id = create(database), announce(database)
    attempt = Attempt(at_ms=0, seconds=0, status=503, error="busy", retry_after_s=asked_s)
    deliveries.record(database, claim(database)[0], attempt, jitter=0)
    assert wait_s(database, read(database, webhook.id, event_id)) == pytest.approx(expected_s, abs=3)


def test_a_receiver_that_is_gone_gets_no_more_messages(
    database: Database, receiver: Receiver, settings: Settings
) -> None:
    webhook, event_id = create(database, receiver.url), announce(database)
    receiver.respond = answer(410)
    sender = MessageSender(database, settings)
    sender.send_due()
    assert sender.wait(20)
    assert read(database, webhook.id, event_id).status == "failed"
    assert hook(database, webhook.id).disabled_reason == "the receiver has answered 410 Gone"
    announce(database)
    assert sender.send_due() == 0
    assert len(receiver.received) == 1


def test_two_senders_do_not_claim_the_same_message_and_a_lease_that_expires_passes_it_on(database: Database) -> None:
    webhook, event_id = create(database), announce(database)
    [first] = claim(database)
    assert claim(database) == []
    make_due(database)
    [second] = claim(database)
    assert (second.event_id, second.lease != first.lease) == (event_id, True)
    deliveries.record(database, first, FAILED)  # it was late, and another has taken over
    assert read(database, webhook.id, event_id).attempts == []
    deliveries.record(database, second, DELIVERED)
    assert read(database, webhook.id, event_id).status == "delivered"


def test_a_slow_receiver_takes_only_its_share_of_the_room(
    database: Database, receiver: Receiver, settings: Settings
) -> None:
    with receive() as slow:
        held: list[int] = []
        go = threading.Event()

        def hold(handler: Any) -> None:
            held.append(1)
            go.wait(20)
            answer(200)(handler)

        slow.respond = hold
        create(database, slow.url), create(database, receiver.url)
        for number in range(20):
            announce(database, str(number))
        sender = MessageSender(database, settings)

        def all_arrived() -> bool:
            sender.send_due()
            return len(receiver.received) == 20

        wait_until(all_arrived, "the messages to the fast receiver", 20)
        assert len(held) == deliveries.MAX_IN_FLIGHT_PER_HOST < MAX_IN_FLIGHT
        go.set()
        assert sender.wait(20)


def test_an_owner_with_many_hosts_leaves_room_for_others(database: Database) -> None:
    for number in range(9):
        create(database, f"http://127.0.0.{number + 1}:9/", owner="ann")
    for number in range(5):
        announce(database, str(number), owner="ann")
    held = claim(database, MAX_IN_FLIGHT)
    assert len(held) == deliveries.MAX_IN_FLIGHT_PER_OWNER < MAX_IN_FLIGHT
    create(database, "http://127.0.0.1:8/", owner="ben")
    announce(database, owner="ben")
    assert [item.owner for item in claim(database, MAX_IN_FLIGHT - len(held), held)] == ["ben"]
    announce(database, owner="ben")
    assert [item.owner for item in claim(database, 1, held)] == ["ben"], "whoever has fewer in flight is the first"


def test_messages_to_a_new_address_do_not_wait_for_the_old_one(database: Database) -> None:
    webhook, event_id = create(database), announce(database)
    with database.write() as session:
        session.execute(update(Webhook).values(failures=9, resume_ms=2**50))
    same = Changes(url=webhook.url, description="the same address")
    endpoints.change(database, webhook.id, same, RULES, owner=None, is_admin=True)
    assert claim(database) == []
    new = Changes(url="http://127.0.0.1:8/")
    endpoints.change(database, webhook.id, new, RULES, owner=None, is_admin=True)
    assert [item.event_id for item in claim(database)] == [event_id]


def test_of_a_message_that_is_sent_again_and_again_the_last_attempts_are_kept(database: Database) -> None:
    webhook, event_id = create(database), announce(database)
    for number in range(deliveries.MAX_ATTEMPTS + 3):
        [claimed] = claim(database)
        deliveries.record(database, claimed, Attempt(at_ms=number, seconds=0.1, status=200))
        deliveries.redeliver(database, webhook.id, event_id, owner=None)
    kept = [attempt["at_ms"] for attempt in read(database, webhook.id, event_id).attempts]
    assert kept == list(range(3, deliveries.MAX_ATTEMPTS + 3))


def test_what_the_old_address_answers_after_a_change_is_nothing_against_the_new_one(database: Database) -> None:
    webhook, event_id = create(database), announce(database)
    [claimed] = claim(database)
    changes = Changes(url="http://127.0.0.1:8/")
    endpoints.change(database, webhook.id, changes, RULES, owner=None, is_admin=True)
    deliveries.record(database, claimed, Attempt(at_ms=0, seconds=0.1, status=410, error="the response is 410"))
    assert (hook(database, webhook.id).disabled_ms, hook(database, webhook.id).failures) == (None, 0)
    [again] = claim(database)
    assert (again.event_id, again.url) == (event_id, "http://127.0.0.1:8/")


def test_after_five_failures_in_a_row_one_message_at_a_time_tries_the_receiver(database: Database) -> None:
    webhook = create(database)
    ids = [announce(database, str(number)) for number in range(8)]
    for _ in range(5):
        deliveries.record(database, claim(database, at_most=1)[0], FAILED)
    assert claim(database) == []  # three are due, and wait with the others
    make_due(database)
    [probe] = claim(database)
    assert probe.event_id == ids[0]
    make_later = claim(database)
    assert make_later == []  # not while it is under way
    deliveries.record(database, probe, FAILED)
    assert claim(database) == []
    make_due(database)
    [probe] = claim(database)
    deliveries.record(database, probe, DELIVERED)
    assert hook(database, webhook.id).failures == 0
    assert {item.event_id for item in claim(database, at_most=8)} <= set(ids[1:])


def test_what_a_person_asks_for_is_sent_though_others_are_held_back(database: Database) -> None:
    webhook, event_id = create(database), announce(database)
    with database.write() as session:
        session.execute(update(Webhook).values(failures=9, resume_ms=2**50))
    assert claim(database) == []
    deliveries.redeliver(database, webhook.id, event_id, owner=None)
    [claimed] = claim(database)
    assert claimed.event_id == event_id
    deliveries.record(database, claimed, FAILED)
    test = deliveries.send_test(database, webhook.id, owner=None)
    [claimed] = claim(database)
    assert (claimed.event_id, claimed.type) == (test.event_id, "webhook.test")
    deliveries.record(database, claimed, FAILED)
    assert read(database, webhook.id, test.event_id).status == "failed"  # a test is tried once


def test_a_message_can_be_sent_again_under_its_id(database: Database, receiver: Receiver, settings: Settings) -> None:
    webhook, event_id = create(database, receiver.url), announce(database)
    sender = MessageSender(database, settings)
    for _ in range(2):
        sender.send_due()
        assert sender.wait(20)
        deliveries.redeliver(database, webhook.id, event_id, owner=None)
    assert receiver.ids == [event_id] * 2
    assert receiver.received[0].body == receiver.received[1].body
    with pytest.raises(DeliveryNotFound):
        deliveries.redeliver(database, webhook.id, "evt_1", owner=None)


def test_for_a_day_after_a_rotation_a_message_has_the_signatures_of_both_secrets(
    database: Database, receiver: Receiver, settings: Settings
) -> None:
    webhook = create(database, receiver.url)
    old, new = webhook.secret, endpoints.rotate(database, webhook.id, owner=None).secret
    assert old != new
    sender = MessageSender(database, settings)

    def send() -> dict[str, bool]:
        announce(database)
        sender.send_due()
        assert sender.wait(20)
        message = receiver.received[-1]
        signatures = message.headers["webhook-signature"]
        return {name: message.is_signed_with(key) for name, key in (("old", old), ("new", new))} | {
            "v1a": signatures.count("v1a,") == 2
        }

    assert send() == {"old": True, "new": True, "v1a": True}
    with database.write() as session:
        session.execute(update(Webhook).values(previous_expires_ms=1))
    assert send() == {"old": False, "new": True, "v1a": False}


def test_a_webhook_of_another_owner_does_not_exist(database: Database) -> None:
    webhook = create(database, owner="ann")
    event_id = announce(database, owner="ann")
    attempts: Sequence[Callable[[], object]] = [
        lambda: endpoints.rotate(database, webhook.id, owner="ben"),
        lambda: endpoints.remove(database, webhook.id, owner="ben"),
        lambda: endpoints.change(database, webhook.id, Changes(), RULES, owner="ben", is_admin=True),
        lambda: deliveries.redeliver(database, webhook.id, event_id, owner="ben"),
        lambda: deliveries.send_test(database, webhook.id, owner="ben"),
        lambda: deliveries.send_test(database, webhook.id, owner=""),
    ]
    for attempt in attempts:
        with pytest.raises(WebhookNotFound):
            attempt()
    with database.read() as session:
        assert endpoints.all_of(session, "ben") == []
        assert [row.id for row in endpoints.all_of(session, "ann")] == [webhook.id]
        with pytest.raises(WebhookNotFound):
            deliveries.page(session, webhook.id, owner="ben")


def test_only_an_admin_hears_of_lost_workers(database: Database) -> None:
    events = [MessageType.WORKER_LOST]
    with pytest.raises(SpecError, match="scope admin"):
        endpoints.create(database, "http://127.0.0.1/", events, RULES, owner="ann", is_admin=False)
    webhook = endpoints.create(database, "http://127.0.0.1/", events, RULES, owner="root", is_admin=True)
    changes = Changes(events=events)
    with pytest.raises(SpecError, match="scope admin"):
        endpoints.change(database, webhook.id, changes, RULES, owner="root", is_admin=False)


def test_an_address_that_may_not_be_sent_to_is_a_fault_of_the_url(database: Database) -> None:
    for url in ("http://10.0.0.1/", "https://localhost.example@127.0.0.1/"):
        with pytest.raises(SpecError) as refused:
            create(database, url)
        assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [("#/url", "address_refused")]
        assert isinstance(refused.value.__cause__, AddressRefused)
    webhook = create(database)
    changes = Changes(url="http://10.0.0.1/")
    with pytest.raises(SpecError):
        endpoints.change(database, webhook.id, changes, RULES, owner=None, is_admin=True)
    assert hook(database, webhook.id).url == "http://127.0.0.1:9/"


def test_an_owner_has_a_limited_number_of_webhooks(database: Database) -> None:
    for _ in range(endpoints.MAX_WEBHOOKS):
        create(database, owner="ann")
    create(database, owner="ben")
    with pytest.raises(SpecError, match="20 webhooks"):
        create(database, owner="ann")


def test_deliveries_are_listed_in_pages_the_newest_first(database: Database) -> None:
    webhook = create(database)
    ids = [announce(database, str(number)) for number in range(7)]
    deliveries.record(database, claim(database, at_most=1)[0], DELIVERED)
    with database.write() as session:
        session.execute(update(WebhookDelivery).values(created_ms=5))
    found: list[str] = []
    cursor: str | None = None
    with database.read() as session:
        while True:
            page = deliveries.page(session, webhook.id, owner=None, cursor=cursor, limit=3)
            found += [row.event_id for row in page.rows]
            if (cursor := page.next_cursor) is None:
                break
        delivered = deliveries.page(session, webhook.id, owner=None, status=DeliveryStatus.DELIVERED)
    assert found == ids[::-1]
    assert [row.event_id for row in delivered.rows] == [ids[0]]


def test_old_messages_are_removed_and_with_a_webhook_all_of_them(database: Database) -> None:
    webhook = create(database)
    old, new = announce(database), announce(database)
    with database.write() as session:
        session.get_one(WebhookDelivery, (webhook.id, old)).created_ms = 1
    assert (deliveries.count_expired(database, 0), deliveries.remove_expired(database, 0)) == (0, 0)
    assert (deliveries.count_expired(database, 30), deliveries.remove_expired(database, 30)) == (1, 1)
    with database.read() as session:
        assert session.scalars(select(WebhookDelivery.event_id)).all() == [new]
    endpoints.remove(database, webhook.id, owner=None)
    with database.read() as session:
        assert session.scalars(select(WebhookDelivery.event_id)).all() == []


def test_an_answer_is_kept_in_part_and_without_what_a_database_rejects(database: Database) -> None:
    webhook, event_id = create(database), announce(database)
    text = "\0\ud7ff\N{SNOWMAN}" + "x" * 100_000
    attempt = Attempt(at_ms=0, seconds=0, status=500, error="the response is 500", response=text)
    deliveries.record(database, claim(database)[0], attempt)
    kept = read(database, webhook.id, event_id).attempts[0]["response"]
    assert kept[:3] == "\N{REPLACEMENT CHARACTER}\ud7ff\N{SNOWMAN}"
    assert len(kept) == 4000


def test_the_lease_outlasts_an_attempt() -> None:
    assert deliveries.LEASE_S >= 2 * sending.TOTAL_TIMEOUT_S
