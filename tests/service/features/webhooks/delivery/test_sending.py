from __future__ import annotations

import base64
import ipaddress
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook

from service.features.webhooks.delivery.deliveries import Attempt
from service.features.webhooks.delivery.sending import MAX_ANSWER_BYTES, send
from service.features.webhooks.protocol import signing
from service.features.webhooks.protocol.addresses import AddressRules
from tests.service.features.webhooks.receivers import Receiver, answer, make_certificate, receive

LOOPBACK = AddressRules(networks=[ipaddress.ip_network("127.0.0.0/8")], http=True)
BODY = b'{"type": "job.failed", "data": {"name": "\xc3\xa4"}}'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as running:
        yield running


def post(url: str, rules: AddressRules = LOOPBACK, **options: object) -> Attempt:
    secret, key = signing.new_secret(), signing.new_signing_key()
    headers = signing.headers("evt_1", int(time.time()), BODY, secrets=[secret], signing_keys=[key])
    return send(url, BODY, headers, rules, **options)  # type: ignore[arg-type]


def test_a_message_arrives_with_its_bytes_and_the_name_of_its_host(receiver: Receiver) -> None:
    receiver.respond = answer(200, "thanks")
    url = f"http://hooks.example:{receiver.port}/a/b?c=d%20e"
    attempt = post(url, resolver=lambda host, port: ["127.0.0.1"])
    assert (attempt.status, attempt.error, attempt.response) == (200, None, "thanks")
    [message] = receiver.received
    assert (message.body, message.path) == (BODY, "/a/b?c=d%20e")
    assert message.headers["host"] == f"hooks.example:{receiver.port}"
    assert message.headers["content-type"] == "application/json"


@pytest.mark.parametrize("status", [301, 307, 308])
def test_a_redirect_is_a_failure_and_is_not_followed(receiver: Receiver, status: int) -> None:
    with receive() as other:
        receiver.respond = answer(status, Location=other.url)
        attempt = post(receiver.url)
        assert attempt.status == status
        assert "redirects are not followed" in (attempt.error or "")
        assert other.received == []


@pytest.mark.parametrize("status", [400, 404, 410, 429, 500, 503])
def test_any_status_but_success_is_a_failure(receiver: Receiver, status: int) -> None:
    receiver.respond = answer(status, "no", Retry_After="17")
    attempt = post(receiver.url)
    assert (attempt.status, attempt.error) == (status, f"the response is {status}")
    assert (attempt.response, attempt.retry_after_s) == ("no", 17.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("soon", None),
        ("-5", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (f"Wed, 21 Oct {10**20} 07:28:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00 +9999999999", None),
    ],
)
def test_a_strange_retry_after_does_no_harm(receiver: Receiver, text: str, expected: float | None) -> None:
    receiver.respond = answer(503, Retry_After=text)
    assert post(receiver.url).retry_after_s == expected


def test_of_what_is_no_http_the_error_repeats_only_the_beginning(receiver: Receiver) -> None:
    receiver.respond = lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"\1" * 60_000 + b": x\r\n\r\n")
    attempt = post(receiver.url)
    assert attempt.status is None
    assert (attempt.error or "").startswith("the receiver does not speak HTTP: illegal header line")
    assert len(attempt.error or "") <= 500


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        handler.wfile.write(b".")
        time.sleep(0.01)  # the endless answer is the scenario


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in itertools.count():
        handler.wfile.write(b"x-%d: 1\r\n" % number)
        time.sleep(0.05)  # likewise


def flood(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
    while True:
        handler.wfile.write(b"\x00" * 65536)


@pytest.mark.parametrize("respond", [drip, drip_headers])
def test_an_answer_without_end_is_cut_off(receiver: Receiver, respond: object) -> None:
    receiver.respond = respond  # type: ignore[assignment]
    attempt = post(receiver.url, timeout_s=0.5)
    assert attempt.error == "no complete answer within 0.5 s"
    assert attempt.seconds < 15


def test_no_more_of_an_answer_is_read_than_64_kib(receiver: Receiver) -> None:
    receiver.respond = flood
    attempt = post(receiver.url)
    assert (attempt.status, attempt.error) == (200, None)
    assert len(attempt.response) == MAX_ANSWER_BYTES


def test_a_receiver_that_is_not_there_is_a_failure() -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        attempt = post(f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert (attempt.status, (attempt.error or "")[:14]) == (None, "no connection:")


def test_a_server_of_another_protocol_is_a_failure() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                while not connection.recv(65536).endswith(BODY[-5:]):
                    pass
                connection.sendall(b"220 mail.example ESMTP\r\n")

        threading.Thread(target=speak, daemon=True).start()
        attempt = post(f"http://127.0.0.1:{server.getsockname()[1]}/")
    assert "does not speak HTTP" in (attempt.error or "")


def test_the_second_address_is_tried_if_nobody_listens_at_the_first(receiver: Receiver) -> None:
    attempt = post(f"http://hooks.example:{receiver.port}/", resolver=lambda host, port: ["127.0.0.2", "127.0.0.1"])
    assert attempt.error is None
    assert len(receiver.received) == 1


def test_a_name_that_resolves_to_another_address_the_next_time_reaches_only_the_checked_one(receiver: Receiver) -> None:
    rules = AddressRules(networks=[ipaddress.ip_network("127.0.0.1/32")], http=True)
    asked: list[str] = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    url = f"http://rebind.example:{receiver.port}/"
    assert post(url, rules, resolver=rebinding).error is None
    assert asked == ["rebind.example"]  # once: nothing resolves the name again to connect
    attempt = post(url, rules, resolver=rebinding)
    assert "leads to an address that is not public: rebind.example, which is 127.0.0.2" in (attempt.error or "")
    assert len(receiver.received) == 1


def test_a_url_that_was_stored_before_the_rules_changed_is_checked_again(receiver: Receiver) -> None:
    assert "not public" in (post(receiver.url, AddressRules(http=True)).error or "")
    assert "begin with https://" in (post(receiver.url, AddressRules()).error or "")
    assert receiver.received == []


def test_a_proxy_of_the_environment_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with receive() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert post(receiver.url).error is None
        assert proxy.received == []
    assert len(receiver.received) == 1


def test_over_tls_the_certificate_must_be_that_of_the_name_though_an_address_is_dialled(tmp_path: Path) -> None:
    tls, authority = make_certificate(tmp_path / "a", "hooks.example")
    rules = AddressRules(networks=[ipaddress.ip_network("127.0.0.0/8")])
    with receive(tls) as receiver:

        def dial(host: str, authorities: str) -> str | None:
            url = f"https://{host}:{receiver.port}/"
            return post(url, rules, authorities=authorities, resolver=lambda *_: ["127.0.0.1"]).error

        assert dial("hooks.example", str(authority)) is None
        assert receiver.received[0].server_name == "hooks.example"
        assert receiver.received[0].headers["host"] == f"hooks.example:{receiver.port}"
        assert "the certificate is not valid" in (dial("other.example", str(authority)) or "")
        assert "the certificate is not valid" in (dial("127.0.0.1", str(authority)) or "")
        assert "the certificate is not valid" in (dial("hooks.example", "") or "")
        assert len(receiver.received) == 1


def test_over_tls_an_address_may_have_a_certificate_of_its_own(tmp_path: Path) -> None:
    tls, authority = make_certificate(tmp_path / "a", "127.0.0.1")
    with receive(tls) as receiver:
        assert post(receiver.url, authorities=str(authority)).error is None


def test_a_message_has_a_signature_for_each_secret_and_key() -> None:
    secrets, keys = [signing.new_secret() for _ in "ab"], [signing.new_signing_key() for _ in "ab"]
    headers = signing.headers("evt_1", int(time.time()), BODY, secrets=secrets, signing_keys=keys)
    for secret in secrets:
        assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)
    content = f"evt_1.{headers['webhook-timestamp']}.".encode() + BODY
    signatures = [part.partition(",") for part in headers["webhook-signature"].split(" ")]
    assert [version for version, _, _ in signatures] == ["v1", "v1", "v1a", "v1a"]
    for key, (_, _, signature) in zip(keys, signatures[2:], strict=True):
        public = signing.public_key_of(key)
        assert public.startswith("whpk_")
        verifier = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
        verifier.verify(base64.b64decode(signature), content)
        with pytest.raises(InvalidSignature):
            verifier.verify(base64.b64decode(signature), content + b" ")


def test_a_timestamp_is_in_utc_whatever_the_time_zone(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    try:
        post(receiver.url)
        sent_s = int(receiver.received[0].headers["webhook-timestamp"])
        assert abs(sent_s - time.time()) < 60
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.stack
def test_the_url_is_not_logged(receiver: Receiver) -> None:
    """Those of some services have a secret."""
    code = f"""
import ipaddress
from service.runtime import logs
from service.features.webhooks.protocol.addresses import AddressRules
from service.features.webhooks.delivery.sending import send
logs.configure("scheduler")
rules = AddressRules(networks=[ipaddress.ip_network("127.0.0.0/8")], http=True)
print(send("{receiver.url}/TOKEN", b"", {{"webhook-id": "evt_1"}}, rules).status)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ended.stdout, "TOKEN" in ended.stderr) == ("204\n", False), ended.stderr
