"""The attacks of ``make attack``."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from benchmarks.service.service_under_test import ServiceUnderTest, wait_until
from service.jobs import leases
from service.runtime.broker import TRAIN_QUEUE
from tests.security.probes import FORM_TYPE, form_of
from tests.security.slow_inputs import gzipped_rows, jpeg, large_sweep, zip_of_jpegs

ATTACK_DURATION_S: Final = 10.0
"""Duration of the attacks that do not end by themselves."""
KEY: Final = "an-operator-chose-this-one"
OTHER_KEY: Final = "this-one-is-of-another-owner"
SMALL_SPEC: Final = json.dumps({"kind": "classifier"}).encode()
STORAGE_QUOTA: Final = 64_000_000
LEASE_S: Final = 5.0
MAX_RESCUE_S: Final = 4 * LEASE_S
"""A scheduler that starts gives each lease its duration once more; its parts and Python take a few seconds to load."""


@dataclass
class Attack:
    """The target of an attack, and its outcome."""

    service: ServiceUnderTest
    job_id: str = ""
    """Of the attacker."""
    outcomes: Counter[str] = field(default_factory=Counter)
    note: str = ""
    succeeded: bool = False
    """Whether the attacker got what the service must refuse."""

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        key: str | None = KEY,
        content_type: str = "application/json",
        reuse: http.client.HTTPConnection | None,
    ) -> bytes:
        """Send a request, count its status or exception, and return the response body."""
        headers = {"Content-Type": content_type, "Origin": f"http://127.0.0.1:{self.service.port}"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        connection = reuse or self.connect()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.outcomes[type(error).__name__] += 1
            return b""
        if reuse is None:
            connection.close()
        self.outcomes[str(response.status)] += 1
        return data

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=60)

    def run_clients(self, clients: int, work: Callable[[int], None]) -> None:
        """Run ``work`` in this many clients at once."""
        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def repeat(self, clients: int, send: Callable[[], object]) -> None:
        """Send repeatedly from this many clients, for ``ATTACK_DURATION_S``."""
        deadline = time.monotonic() + ATTACK_DURATION_S

        def work(_: int) -> None:
            while time.monotonic() < deadline:
                send()

        self.run_clients(clients, work)


def nothing(attack: Attack) -> None:
    """no attack"""
    time.sleep(ATTACK_DURATION_S)


def two_headers(attack: Attack) -> None:
    """PNG with two headers to /predict, 8 clients"""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    headers = [chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) for side in (28, 30_000)]
    rows = zlib.compress(bytes(10**6))
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(headers) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    body = json.dumps({"images": [base64.b64encode(bomb).decode()] * 16}).encode()
    attack.repeat(8, lambda: attack.send("POST", f"/jobs/{attack.job_id}/predict", body, reuse=None))


def duplicate_keys(attack: Attack) -> None:
    """480 KB of keys, one of them twice, to POST /session, with and without a key, 8 clients"""
    names = ",".join(f'"k{number}":1' for number in range(44_600))
    body = f'{{{names},"k44599":2}}'.encode()

    def send() -> None:
        attack.send("POST", "/session", body, key=None, reuse=None)
        attack.send("POST", "/session", body, reuse=None)

    attack.repeat(8, send)


def unknown_fields(attack: Attack) -> None:
    """75,000 unknown fields to POST /jobs, 12 at once"""
    body = json.dumps({"kind": "classifier", **{f"f{number}": 1 for number in range(75_000)}}).encode()
    attack.repeat(12, lambda: attack.send("POST", "/jobs", body, reuse=None))


def broker_errors(attack: Attack) -> None:
    """1,500 jobs submitted and cancelled, 8 clients, while the broker answers READONLY, then out of memory"""
    broker = redis.Redis(unix_socket_path=str(attack.service.broker.socket))
    failures: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: broker.replicaof("127.0.0.1", "1"), lambda: broker.replicaof("NO", "ONE")),
        (lambda: broker.config_set("maxmemory", "1"), lambda: broker.config_set("maxmemory", "0")),
    ]
    longest_queue = 0

    def work(_: int) -> None:
        connection = attack.connect()
        for _ in range(94):
            created = attack.send("POST", "/jobs", SMALL_SPEC, reuse=connection)
            with suppress(ValueError):
                attack.send("POST", f"/jobs/{json.loads(created)['id']}/cancel", reuse=connection)
        connection.close()

    for fail, repair in failures:
        fail()
        attack.run_clients(8, work)
        repair()
        time.sleep(2)
        length: Any = broker.llen(TRAIN_QUEUE)  # typed for the asynchronous client, too
        longest_queue = max(longest_queue, int(length))
    broker.close()
    attack.note = f"{longest_queue} messages in the queue afterwards"


def idle_connections(attack: Attack) -> None:
    """1,000 idle connections, under ulimit -n 1024"""
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(socket.create_connection(("127.0.0.1", attack.service.port), timeout=30))
        attack.outcomes["opened"] = 1000
        time.sleep(ATTACK_DURATION_S)


def slow_bodies(attack: Attack) -> None:
    """700 bodies that never arrive, without a key"""
    request = (
        b"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"
    )
    with ExitStack() as stack:
        for _ in range(700):
            connection = socket.create_connection(("127.0.0.1", attack.service.port), timeout=30)
            stack.enter_context(connection).sendall(request)
        attack.outcomes["opened"] = 700
        time.sleep(ATTACK_DURATION_S)


def much_storage(attack: Attack) -> None:
    """jobs that keep every checkpoint, 8 clients, with a quota of 64 MB of files per owner, until all have ended"""
    spec = {"kind": "classifier", "epochs": 8, "checkpoint": {"keep_last": 8}, "samples": {"count": 1}}
    body = json.dumps(spec | {"reuse": "never"}).encode()
    attack.repeat(8, lambda: attack.send("POST", "/jobs", body, reuse=None))

    as_other = {"Authorization": f"Bearer {OTHER_KEY}", "Content-Type": "application/json"}
    other = attack.service.http.post("/jobs", content=SMALL_SPEC, headers=as_other)

    def usage() -> list[dict[str, Any]]:
        return list(attack.service.http.get("/usage").json()["data"])

    wait_until(
        lambda: not any(item["expected_bytes"] for item in usage()), "the end of all jobs", timeout_s=600, pause_s=0.5
    )
    stored = max(item["artifact_bytes"] for item in usage())
    attack.succeeded = stored > STORAGE_QUOTA or other.status_code != 201
    attack.note = f"{stored / 1e6:.0f} MB stored; a job of another owner: {other.status_code}"


def jpeg_scans(attack: Attack) -> None:
    """JPEG of 45 KB with 4,500 scans, and of the most scans that are read, to /predict, 8 clients"""
    bodies = [
        json.dumps({"images": [base64.b64encode(jpeg(scans, side=4096)).decode()]}).encode() for scans in (4500, 100)
    ]

    def send() -> None:
        for body in bodies:
            attack.send("POST", f"/jobs/{attack.job_id}/predict", body, reuse=None)

    attack.repeat(8, send)


def zips_of_jpegs(attack: Attack) -> None:
    """zip of 1.3 KB with two JPEGs of 20,000 scans, and of the most scans that are read, 4 uploads at a time"""
    upload_repeatedly(attack, [form_of("archive", zip_of_jpegs(n), name="evil", size="32") for n in (20_000, 100)])


def short_rows(attack: Attack) -> None:
    """gzip of 0.2 MB with 50 million short rows, and of 50 million empty ones, 4 uploads at a time"""
    upload_repeatedly(
        attack, [form_of("table", gzipped_rows(50_000_000, row), name="evil") for row in (b"1,2\n", b"\n")]
    )


def upload_repeatedly(attack: Attack, forms: Sequence[bytes]) -> None:
    def send() -> None:
        for body in forms:
            attack.send("POST", "/datasets", body, content_type=FORM_TYPE, reuse=None)

    attack.repeat(4, send)


def large_sweeps(attack: Attack) -> None:
    """sweep of 100 KB with 20,000 values, 12 at once"""
    body = json.dumps(large_sweep()).encode()
    attack.repeat(12, lambda: attack.send("POST", "/sweeps?dry_run=true", body, reuse=None))


def many_proposals(attack: Attack) -> None:
    """19 sweeps by TPE over 20 settings with 1,000 values, while the worker of another owner's job is lost"""
    as_other = {"Authorization": f"Bearer {OTHER_KEY}", "Content-Type": "application/json"}
    job_id = attack.service.http.post("/jobs", content=SMALL_SPEC, headers=as_other).json()["id"]
    lost = leases.claim(attack.service.database, "a-worker-that-is-lost", LEASE_S)
    assert lost is not None
    assert lost.job_id == job_id
    sweep = large_sweep() | {"search": {"name": "tpe", "trials": 100}, "parallel": 100}
    for _ in range(19):
        attack.send("POST", "/sweeps", json.dumps(sweep).encode(), reuse=None)
    attack.service.start("-m", "workers.scheduler")
    began = time.monotonic()

    def job() -> dict[str, Any]:
        return dict(attack.service.http.get(f"/jobs/{job_id}", headers=as_other).json())

    wait_until(lambda: job()["status"] == "queued", "the lost job", timeout_s=300, pause_s=0.1)
    seconds = time.monotonic() - began
    attack.succeeded = seconds > MAX_RESCUE_S
    attack.note = f"the lost job was queued {seconds:.1f} s after the start of the scheduler"
    time.sleep(ATTACK_DURATION_S)  # proposals continue


ATTACKS: Final[Mapping[str, Callable[[Attack], None]]] = {
    attack.__name__: attack
    for attack in (
        nothing,
        two_headers,
        duplicate_keys,
        unknown_fields,
        broker_errors,
        idle_connections,
        slow_bodies,
        much_storage,
        jpeg_scans,
        zips_of_jpegs,
        short_rows,
        large_sweeps,
        many_proposals,
    )
}
