"""``make attack``: attack a separate web process, and measure the cost in memory and in the delay of others.

The memory goal applies to the peak of the process, the time goal to ``/healthz``, which another process
requests during the attack.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import multiprocessing
import os
import resource
import socket
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
import redis

from benchmarks.service.service_under_test import ServiceLauncher, ServiceUnderTest, wait_until
from service.runtime import task_names

MAX_PEAK_MB: Final = 400
MAX_P99_MS: Final = 200
PROBE_INTERVAL_S: Final = 0.02
ATTACK_DURATION_S: Final = 10.0
"""Duration of the attacks that do not end by themselves."""
KEY: Final = "an-operator-chose-this-one"
TRAINED_SPEC: Final = {
    "kind": "classifier",
    "epochs": 1,
    "layers": [{"units": 10, "activation": "softmax"}],
    "samples": {"count": 1},
}
SMALL_SPEC: Final = json.dumps({"kind": "classifier"}).encode()
OTHER_KEY: Final = "of-an-owner-who-attacks-nobody"
STORAGE_QUOTA: Final = 64_000_000


@dataclass
class Attack:
    """The target of an attack, and its outcome."""

    service: ServiceUnderTest
    job_id: str
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
        reuse: http.client.HTTPConnection | None,
    ) -> bytes:
        """Send a request, count its status or exception, and return the response body."""
        headers = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{self.service.port}"}
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
        longest_queue = max(longest_queue, int(broker.llen(task_names.TRAIN_QUEUE)))  # type: ignore[arg-type]
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
    )
}


def _probe(port: int, pipe: Connection) -> None:
    """Request ``/healthz`` as a monitor does, on a new connection each time, until told to stop.

    Sends the response times in seconds at the end; a failure counts as infinite.
    """
    pipe.send("ready")
    times = []
    while not pipe.poll(PROBE_INTERVAL_S):
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/healthz")
            succeeded = connection.getresponse().read() and True
        except (OSError, http.client.HTTPException):
            succeeded = False
        connection.close()
        times.append(time.perf_counter() - began if succeeded else float("inf"))
    pipe.send(times)


@contextmanager
def probed(port: int, times: list[float]) -> Iterator[None]:
    """Probe during the block, in a separate process: the attacker's threads must not slow down the probe."""
    spawn = multiprocessing.get_context("spawn")
    parent_end, child_end = spawn.Pipe()
    process = spawn.Process(target=_probe, args=(port, child_end), daemon=True)
    process.start()
    parent_end.recv()  # it is ready
    try:
        yield
    finally:
        parent_end.send("stop")
        times += parent_end.recv()
        process.join()


def peak_mb(service: ServiceUnderTest) -> float:
    """Peak resident memory of a web process, in MB; of several, the largest."""
    peaks = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"service.web.gunicorn_conf" in path.read_bytes() and str(service.home).encode() in (
                path.with_name("environ").read_bytes()
            ):
                lines = path.with_name("status").read_text().splitlines()
                peaks += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return max(peaks)


def measure(launcher: ServiceLauncher, name: str) -> dict[str, Any]:
    """Run one attack on a new service."""
    environ = {"TAPELINE_AUTH": "keys", "TAPELINE_API_KEYS": f"{KEY},{OTHER_KEY}"}
    limits = {f"TAPELINE_OWNER_{what}": "0" for what in ("REQUESTS", "QUEUED", "RUNNING")}
    if name == "much_storage":
        limits["TAPELINE_OWNER_ARTIFACTS"] = str(STORAGE_QUOTA)
    with launcher.open("sqlite", **environ, **limits) as service:
        service.http.headers["Authorization"] = f"Bearer {KEY}"
        service.serve(descriptors=1024 if name == "idle_connections" else None)
        job_id = ""
        if name in ("two_headers", "much_storage"):
            service.work()
        if name == "two_headers":
            job_id = service.submit(**TRAINED_SPEC)
            service.wait_until_ended(job_id)
            body = {"images": [np.zeros((28, 28)).tolist()]}
            # The engine must be loaded before the measurement.
            service.http.post(f"/jobs/{job_id}/predict", json=body).raise_for_status()
        attack, times = Attack(service, job_id), list[float]()
        before = peak_mb(service)
        with probed(service.port, times):
            began = time.monotonic()
            ATTACKS[name](attack)
            seconds = time.monotonic() - began
        wait_until(lambda: service.http.get("/healthz").status_code == 200, "an answer afterwards")
        return {
            "attack": ATTACKS[name].__doc__,
            "answers": ", ".join(f"{count} x {what}" for what, count in attack.outcomes.most_common()),
            "note": attack.note,
            "succeeded": attack.succeeded,
            "before_mb": before,
            "peak_mb": peak_mb(service),
            "p99_ms": 1000 * float(np.percentile(times, 99, method="higher")),
            "max_ms": 1000 * max(times),
            "probes": len(times),
            "seconds": seconds,
        }


def table_row(row: Mapping[str, Any]) -> str:
    """A row of the Markdown table, with missed goals in bold."""

    def format_value(value: float, limit: float) -> str:
        return f"{value:.0f}" if value < limit else f"**{value:.0f}**"

    note = f"**{row['note']}**" if row["succeeded"] else row["note"]
    answers = "; ".join(filter(None, (row["answers"], note)))
    peak, p99 = format_value(row["peak_mb"], MAX_PEAK_MB), format_value(row["p99_ms"], MAX_P99_MS)
    return (
        f"| {row['attack']} | {answers or '-'} | {row['before_mb']:.0f} | {peak} | {p99} | {row['max_ms']:.0f} "
        f"| {row['probes']} in {row['seconds']:.0f} s |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Attack a web process, and measure what it costs.")
    parser.add_argument("attacks", nargs="*", help=f"some of: {', '.join(ATTACKS)}; none: all")
    options = parser.parse_args()
    if unknown := sorted(set(options.attacks) - set(ATTACKS)):
        parser.error(f"no such attack: {', '.join(unknown)}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    missed = False
    sys.stdout.write("| attack | answers | MB before | peak MB | p99 of `/healthz`, ms | slowest, ms | probes |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory(prefix="tapeline-attack-") as folder:
        launcher = ServiceLauncher(Path(folder), None)
        for name in options.attacks or ATTACKS:
            row = measure(launcher, name)
            missed = missed or row["peak_mb"] >= MAX_PEAK_MB or row["p99_ms"] >= MAX_P99_MS or row["succeeded"]
            sys.stdout.write(table_row(row) + "\n")
            sys.stdout.flush()
        launcher.close()
    load = os.getloadavg()[0]
    sys.stdout.write(f"\n{os.cpu_count()} cores; load {load:.1f} at the end. Goals: below {MAX_PEAK_MB} MB and ")
    sys.stdout.write(f"{MAX_P99_MS} ms; missed goals are bold.\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
