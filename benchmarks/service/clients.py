"""The HTTP clients, in a separate process: ``python -m benchmarks.service.clients``. It prints JSON.

It uses one thread and a selector, and takes only about 60 µs per request, so that the server is what is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

SPEC = '{"kind": "classifier", "name": "load", "tags": ["bench"], "epochs": 3}'


def post(
    port: int, clients: int, seconds: float, *, fresh: bool, count: int | None = None, spec: str = SPEC
) -> dict[str, Any]:
    """Each client sends a job, waits for the response, and sends the next.

    Args:
        seconds: no request is begun later; with ``count``, that many are sent however long it takes.
        fresh: use a new connection for each request, like curl.
    """
    body = spec.encode()
    head = (
        "POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: {'close' if fresh else 'keep-alive'}\r\nIdempotency-Key: "
    ).encode()
    selector = selectors.DefaultSelector()
    times: list[float] = []
    sent = failures = 0

    def send(connection: socket.socket | None) -> None:
        nonlocal sent
        sent += 1
        sent_at = time.perf_counter()
        if connection is None:
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head + uuid4().hex.encode() + b"\r\n\r\n" + body)
        selector.register(connection, selectors.EVENT_READ, [sent_at, b""])

    started_at = time.perf_counter()
    for _ in range(clients):
        send(None)
    while selector.get_map():
        for key, _ in selector.select():
            connection, state = key.fileobj, key.data
            assert isinstance(connection, socket.socket)
            data = connection.recv(65536)
            state[1] += data
            if data and not _is_complete(state[1]):
                continue
            now = time.perf_counter()
            times.append(now - state[0])
            failures += not state[1].startswith(b"HTTP/1.1 201")
            selector.unregister(connection)
            is_reused = not fresh and bool(data)
            if not is_reused:
                connection.close()
            if now - started_at < seconds if count is None else sent < count:
                send(connection if is_reused else None)
    elapsed_s = time.perf_counter() - started_at
    times.sort()
    percentiles = {f"p{p}_ms": round(1000 * _percentile(times, p), 2) for p in (50, 99)}
    return {"per_s": round(len(times) / elapsed_s, 1), "count": len(times), "failures": failures} | percentiles


def _is_complete(response: bytes) -> bool:
    head, separator, body = response.partition(b"\r\n\r\n")
    if not separator:
        return False
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return len(body) >= int(length or 0)


def follow_job(port: int, clients: int, seconds: float, job_id: str) -> dict[str, Any]:
    """Open ``clients`` streams of one job and measure the delay of its events. Prints ``open`` when it is ready."""
    # Request only new events: no log has this many.
    request = f"GET /jobs/{job_id}/stream?after={10**12} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    for _ in range(clients):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(request)
        selector.register(connection, selectors.EVENT_READ, _Stream())
    streams: list[_Stream] = [key.data for key in selector.get_map().values()]
    deadline = time.monotonic() + 60
    while not all(stream.is_open or stream.refused for stream in streams) and time.monotonic() < deadline:
        _read(selector, 0.5)
    refused = sum(stream.refused for stream in streams)
    print("open", flush=True)
    end_at = time.monotonic() + seconds
    while time.monotonic() < end_at:
        _read(selector, 0.1)
    lags = sorted(lag for stream in streams for lag in stream.lags)
    holes = sum(
        stream.sequence_numbers != list(range(stream.sequence_numbers[0], stream.sequence_numbers[-1] + 1))
        for stream in streams
        if stream.sequence_numbers
    )
    fewest = min(len(stream.sequence_numbers) for stream in streams)
    percentiles = {f"p{p}_ms": round(1000 * _percentile(lags, p), 1) for p in (50, 99, 100)} if lags else {}
    return {"streams": clients, "refused": refused, "events": len(lags), "fewest": fewest, "holes": holes} | percentiles


class _Stream:
    """The data that one client has received."""

    def __init__(self) -> None:
        self.text = b""
        self.sequence_numbers: list[int] = []
        self.lags: list[float] = []
        self.is_open = self.refused = False

    def receive(self, data: bytes) -> None:
        now = time.time()
        self.text += data
        *events, self.text = self.text.split(b"\n\n")
        for event in events:
            if b"HTTP/1.1 " in event and b"HTTP/1.1 200" not in event:
                self.refused = True
            self.is_open |= b"event: snapshot" in event
            if b"id: " not in event:  # the snapshot, progress, a ping
                continue
            document = json.loads(event.partition(b"data: ")[2].splitlines()[0])
            self.sequence_numbers.append(document["seq"])
            self.lags.append(now - datetime.fromisoformat(document["at"]).timestamp())


def _read(selector: selectors.BaseSelector, timeout_s: float) -> None:
    for key, _ in selector.select(timeout_s):
        assert isinstance(key.fileobj, socket.socket)
        data = key.fileobj.recv(1 << 20)
        if not data:
            selector.unregister(key.fileobj)
            key.data.refused = True
        key.data.receive(data)


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["post", "stream"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--count", type=int)
    parser.add_argument("--spec", default=SPEC)
    parser.add_argument("--job", default="")
    options = parser.parse_args()
    if options.what == "post":
        result = post(
            options.port, options.clients, options.seconds, fresh=options.fresh, count=options.count, spec=options.spec
        )
    else:
        result = follow_job(options.port, options.clients, options.seconds, options.job)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
