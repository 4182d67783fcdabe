"""What ``tapeline doctor`` says of object stores that lack what the service needs."""

from __future__ import annotations

import email.utils
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service.maintenance import store_probes
from service.storage.object_store import ObjectStore
from tests.object_servers import BUCKET, Exchange, FaultyProxy, credentials


@pytest.fixture(params=["moto", pytest.param("seaweedfs", marks=pytest.mark.nightly)])
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    for name, value in credentials().items():
        monkeypatch.setenv(name, value)
    with closing(FaultyProxy(request.getfixturevalue(request.param))) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultyProxy) -> ObjectStore:
    return ObjectStore(f"s3://{BUCKET}/probed/{secrets.token_hex(4)}", endpoint=proxy.url, lease_s=15)


def examine(store: ObjectStore, endpoint: str) -> str:
    return store_probes.examine(store, url=store.address, endpoint=endpoint)


def test_a_sound_store_has_its_latency_and_keeps_no_probe(store: ObjectStore, proxy: FaultyProxy) -> None:
    found = examine(store, proxy.url)
    assert "ms to store a small object" in found
    # moto has no lock: a race for a name may have several winners
    assert ";" not in re.sub(r"; it lets \d of 8 create one name \([^)]*\)", "", found)
    assert list(store.stored()) == []


@pytest.mark.parametrize("proxy", ["moto"], indirect=True)  # which checks no signature of changed headers
def test_a_store_that_replaces_objects_is_noted(store: ObjectStore, proxy: FaultyProxy) -> None:
    proxy.fault = lambda exchange: exchange.headers.pop("if-none-match", None) and None  # as some servers ignore it
    assert "it lets 8 of 8 create one name" in examine(store, proxy.url)


@pytest.mark.parametrize("proxy", ["moto"], indirect=True)
def test_a_store_that_cannot_list_keep_or_delete_is_reported(store: ObjectStore, proxy: FaultyProxy) -> None:
    refused = (403, b"<Error><Code>AccessDenied</Code></Error>")
    proxy.fault = lambda exchange: refused if "list-type" in exchange.path else None
    with pytest.raises(PermissionError, match="read, write, list and delete"):
        examine(store, proxy.url)
    proxy.fault = lambda exchange: "flip" if exchange.method == "GET" and "/probe/" in exchange.path else None
    with pytest.raises(OSError, match="other bytes than were stored"):
        examine(store, proxy.url)

    def ignore_range(exchange: Exchange) -> None:
        if exchange.headers.get("range", "").startswith("bytes=21"):
            del exchange.headers["range"]

    proxy.fault = ignore_range
    with pytest.raises(OSError, match="the store"):
        examine(store, proxy.url)
    proxy.fault = lambda exchange: (204, b"") if exchange.method == "DELETE" or "delete" in exchange.path else None
    with pytest.raises(OSError, match="store"):  # S3 answers with a list of what is deleted
        examine(store, proxy.url)


def test_a_silent_store_is_given_up(store: ObjectStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_probes, "MAX_SECONDS", 2.0)
    proxy.fault = lambda exchange: "hang" if exchange.method == "PUT" else None
    with pytest.raises(OSError, match="silent or too slow: storing an object"):
        examine(store, proxy.url)


@pytest.mark.parametrize(("offset_s", "side"), [(-3600, "ahead of"), (3600, "behind")])
def test_a_clock_that_is_an_hour_off_is_reported(offset_s: int, side: str) -> None:
    class Late(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(403)
            self.send_header("Date", email.utils.formatdate(time.time() + offset_s, usegmt=True))
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Late)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(OSError, match=f"clock is 3(600|599|601) s {side} the store's"):
            examine(ObjectStore(f"s3://{BUCKET}/probed", endpoint=url, lease_s=4), url)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
