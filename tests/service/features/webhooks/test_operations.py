"""Webhooks over HTTP: what a response shows, what is refused and how it says so, and what the pages show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.access import adoption, audit, keys
from service.access.keys import Scope
from service.features.webhooks import endpoints
from service.features.webhooks.delivery import deliveries
from service.features.webhooks.delivery.deliveries import Attempt
from service.features.webhooks.delivery.message_sender import MessageSender
from service.features.webhooks.outbox import MessageType
from service.features.webhooks.protocol.addresses import AddressRules
from service.features.webhooks.settings import WebhookSettings
from service.runtime import cursors
from service.storage.database import Database
from service.web.core.core import EXTENSION, Core
from tests.service.features.webhooks.receivers import Receiver, answer, receive
from tests.service.web.conftest import MakeApp
from tests.service.web.core.quota_clients import client_of, keyed

PUBLIC = "https://93.184.216.34/hook"
LOOPBACK = {"features": (WebhookSettings(webhook_networks=("127.0.0.0/8",), webhook_http=True),)}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as running:
        yield running


@pytest.fixture
def permissive(make_app: MakeApp, migrated_url: str) -> Flask:
    return make_app(migrated_url, url="https://tapeline.example", **LOOPBACK)


def core_of(app: Flask) -> Core:
    core: Core = app.extensions[EXTENSION]
    return core


def create(client: FlaskClient, url: str = PUBLIC, *events: str, **more: Any) -> Any:
    body = {"url": url, "events": list(events) or ["job.failed", "job.cancelled"], **more}
    response = client.post("/webhooks", json=body)
    assert response.status_code == 201, response.text
    assert response.headers["Location"] == f"/webhooks/{response.json['id']}"
    return response.json


def send(app: Flask) -> int:
    sender = MessageSender(core_of(app).database, core_of(app).settings)
    count = sender.send_due()
    assert sender.wait(20)
    return count


def fault(response: TestResponse) -> tuple[int, list[tuple[str, str]]]:
    assert response.json is not None
    return response.status_code, [(item["pointer"], item["detail"]) for item in response.json.get("errors", [])]


def test_a_secret_is_shown_once_and_a_rotation_shows_another(client: FlaskClient) -> None:
    created = create(client, PUBLIC, "sweep.ended", "job.failed", description="the chat")
    assert created["secret"].startswith("whsec_")
    assert created["public_key"].startswith("whpk_")
    assert created["events"] == ["job.failed", "sweep.ended"]
    webhook = client.get(f"/webhooks/{created['id']}").json
    assert webhook == {name: value for name, value in created.items() if name != "secret"}
    assert client.get("/webhooks").json["data"] == [webhook]
    assert webhook["previous_expires_at"] is None
    rotated = client.post(f"/webhooks/{created['id']}/rotate")
    assert rotated.status_code == 202
    assert created["secret"] != rotated.json["secret"]
    assert created["public_key"] != rotated.json["public_key"]
    assert client.get(f"/webhooks/{created['id']}").json["previous_expires_at"] is not None


def test_a_webhook_is_changed_disabled_enabled_and_deleted(client: FlaskClient) -> None:
    address = f"/webhooks/{create(client, description='old')['id']}"
    changed = client.patch(address, json={"description": None, "events": ["job.paused"]}).json
    assert (changed["description"], changed["events"], changed["enabled"]) == (None, ["job.paused"], True)
    disabled = client.patch(address, json={"enabled": False}).json
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "its owner has disabled it")
    refused = client.post(f"{address}/test")
    assert (refused.status_code, refused.json["code"]) == (409, "webhook_disabled")
    assert client.patch(address, json={"enabled": True}).json["disabled_at"] is None
    assert client.delete(address).status_code == 204
    gone = client.get(address)
    assert (gone.status_code, gone.json["code"]) == (404, "webhook_not_found")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://93.184.216.34/", "TAPELINE_WEBHOOK_HTTP=1"),
        ("https://127.0.0.1/", "not public"),
        ("https://[::ffff:127.0.0.1]/", "not public"),
        ("https://[64:ff9b::a9fe:a9fe]/", "not public"),
        ("https://[2002:7f00:1::1]/", "not public"),
        ("https://localhost:8000/", "localhost, which is"),
        ("https://2130706433/", "four numbers"),
        ("https://0177.0.0.1/", "four numbers"),
        ("https://ann:pw@93.184.216.34/", "user name"),
        ("not a url", "URL"),
    ],
)
def test_an_address_that_is_refused_is_named_in_a_problem(client: FlaskClient, url: str, says: str) -> None:
    status, [(pointer, detail)] = fault(client.post("/webhooks", json={"url": url, "events": ["job.failed"]}))
    assert (status, pointer) == (422, "#/url")
    assert says in detail
    webhook = create(client)
    status, [(pointer, detail)] = fault(client.patch(f"/webhooks/{webhook['id']}", json={"url": url}))
    assert (status, pointer) == (422, "#/url")
    assert client.get(f"/webhooks/{webhook['id']}").json["url"] == PUBLIC


def test_an_unknown_event_is_a_fault_that_names_the_others(client: FlaskClient) -> None:
    for events in ([], ["job.exploded"], ["webhook.test"], "job.failed"):
        response = client.post("/webhooks", json={"url": PUBLIC, "events": events})
        assert response.status_code == 422, response.text
        assert response.json["errors"][0]["pointer"].startswith("#/events")


def test_a_cancelled_job_arrives_signed_and_its_delivery_shows_the_answer(
    permissive: Flask, receiver: Receiver
) -> None:
    client = permissive.test_client()
    webhook = create(client, receiver.url, "job.cancelled")
    receiver.verify, receiver.respond = webhook["secret"], answer(200, "thank you")
    job = client.post("/jobs", json={"kind": "classifier", "name": "digits"}).json
    client.post(f"/jobs/{job['id']}/cancel")
    assert send(permissive) == 1
    content = receiver.received[0].verified(webhook["secret"])
    assert content["data"]["url"] == f"https://tapeline.example/jobs/{job['id']}"
    [delivery] = client.get(f"/webhooks/{webhook['id']}/deliveries").json["data"]
    assert delivery["payload"] == content
    assert (delivery["status"], delivery["next_attempt_at"]) == ("delivered", None)
    assert [(item["status"], item["response"], item["error"]) for item in delivery["attempts"]] == [
        (200, "thank you", None)
    ]
    address = f"/webhooks/{webhook['id']}/deliveries/{delivery['id']}"
    assert client.get(address).json == delivery
    again = client.post(f"{address}/redeliver")
    assert (again.status_code, again.json["status"]) == (202, "pending")
    assert send(permissive) == 1
    assert receiver.ids == [delivery["id"]] * 2
    assert len(client.get(address).json["attempts"]) == 2
    assert client.get(f"/webhooks/{webhook['id']}/deliveries?status=failed").json["data"] == []


def test_a_test_message_is_sent_and_shown(permissive: Flask, receiver: Receiver) -> None:
    client = permissive.test_client()
    webhook = create(client, receiver.url)
    sent = client.post(f"/webhooks/{webhook['id']}/test")
    assert (sent.status_code, sent.json["type"], sent.json["status"]) == (202, "webhook.test", "pending")
    assert send(permissive) == 1
    assert receiver.received[0].verified(webhook["secret"])["type"] == "webhook.test"


def test_only_a_key_with_the_scope_admin_hears_of_workers(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    body = {"url": PUBLIC, "events": ["worker.lost"]}
    status, [(pointer, detail)] = fault(client_of(app).post("/webhooks", json=body))
    assert (status, pointer) == (422, "#/events")
    assert "scope admin" in detail
    webhook = create(client_of(app, scope=Scope.ADMIN), PUBLIC, "worker.lost")
    moved = client_of(app).patch(f"/webhooks/{webhook['id']}", json={"url": "https://93.184.216.35/mine"})
    assert fault(moved)[0] == 422, "nobody else redirects them either"
    assert client_of(app).get(f"/webhooks/{webhook['id']}").json["url"] == PUBLIC


@pytest.mark.parametrize("position", [[{}, "evt_x"], ["a", "b"], [True, "evt_x"], [2**63, "evt_x"], [1, 2], [1]])
def test_a_cursor_of_other_types_is_refused(client: FlaskClient, position: list[Any]) -> None:
    refused = client.get(f"/webhooks/{create(client)['id']}/deliveries?cursor={cursors.write(position)}")
    assert (refused.status_code, refused.json["code"]) == (400, "invalid_cursor")


def test_every_change_is_in_the_audit_log_without_secrets(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    client = client_of(app)
    webhook = create(client)
    address = f"/webhooks/{webhook['id']}"
    assert client.patch(address, json={"enabled": True}).status_code == 200
    assert client.post(f"{address}/rotate").status_code == 202
    test = client.post(f"{address}/test").json
    assert client.post(f"{address}/deliveries/{test['id']}/redeliver").status_code == 202
    assert client.delete(address).status_code == 204
    with core_of(app).database.read() as session:
        entries = audit.read(session, subject=webhook["id"])
    assert [entry.action for entry in entries][::-1] == [
        "create_webhook", "change_webhook", "rotate_webhook", "test_webhook", "redeliver", "delete_webhook",
    ]  # fmt: skip
    assert "whsec_" not in str([entry.detail for entry in entries])


def fail(database: Database, times: int, error: str = "the response is 500") -> None:
    for _ in range(times):
        [claimed] = deliveries.claim(database, at_most=1)
        failed = Attempt(at_ms=1, seconds=0.2, status=500, error=error, response="<b>no</b>")
        deliveries.record(database, claimed, failed)


def test_the_pages_show_webhooks_messages_and_answers(permissive: Flask) -> None:
    client, database = permissive.test_client(), core_of(permissive).database
    assert "No webhooks yet" in client.get("/ui/webhooks").text
    webhook = create(client, "http://127.0.0.1:9/<hook>", "job.cancelled", description="the chat")
    page = client.get("/ui/webhooks").text
    assert "127.0.0.1:9/%3Chook%3E" in page
    assert "the chat" in page
    assert webhook["secret"] not in page
    for _ in range(6):
        job = client.post("/jobs", json={"kind": "classifier", "name": "<i>digits</i>"}).json
        client.post(f"/jobs/{job['id']}/cancel")
    fail(database, 5)
    page = client.get(f"/ui/webhooks/{webhook['id']}").text
    assert "5 attempts in a row have failed" in page
    assert "&lt;i&gt;digits&lt;/i&gt;" in page
    assert "the response is 500" in page
    assert "&lt;b&gt;no&lt;/b&gt;" in page
    assert f'href="/jobs/{job["id"]}"' in page
    redirected = client.get(f"/webhooks/{webhook['id']}", headers={"Accept": "text/html"})
    assert redirected.headers["Location"] == f"/ui/webhooks/{webhook['id']}"
    first = client.get(f"/ui/webhooks/{webhook['id']}?limit=2").text
    assert "Earlier messages" in first
    assert "No messages that are delivered" in client.get(f"/ui/webhooks/{webhook['id']}?status=delivered").text


def test_an_admin_lists_and_deletes_the_webhooks_of_others(make_app: MakeApp, migrated_url: str) -> None:
    app = keyed(make_app, migrated_url)
    webhook = create(client_of(app))
    admin = app.test_client()
    _, key = keys.create(core_of(app).database, name="root", owner="root", scope=Scope.ADMIN)
    admin.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
    assert admin.get("/webhooks").json["data"] == []
    [listed] = admin.get("/webhooks?owner=*").json["data"]
    assert listed["id"] == webhook["id"]
    for method, path in (("get", ""), ("patch", ""), ("post", "/rotate"), ("post", "/test")):
        options = {"json": {"enabled": False}} if method == "patch" else {}
        assert getattr(admin, method)(f"/webhooks/{webhook['id']}{path}", **options).status_code == 404
    assert admin.delete(f"/webhooks/{webhook['id']}").status_code == 204
    assert client_of(app).get("/webhooks").json["data"] == []


def test_an_owner_who_is_given_the_jobs_without_one_is_given_their_webhooks(database: Database) -> None:
    created = endpoints.create(database, PUBLIC, [MessageType.JOB_FAILED], AddressRules(), owner=None, is_admin=True)
    keys.create(database, name="laptop", owner="ann", scope=Scope.SUBMIT)
    adoption.adopt(database, "ann")
    with database.read() as session:
        assert endpoints.find(session, created.id, owner="ann").owner == "ann"
