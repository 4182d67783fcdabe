"""``make attack``: attacks on a web process of its own, and what each costs it in memory and others in time.

A goal for memory holds for the process's peak, one for time for ``/healthz``, which another process asks meanwhile.
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

from benchmarks.service.place import Place, Places, wait_until
from service.runtime import task_names

MAX_PEAK_MB: Final = 400
MAX_P99_MS: Final = 200
PROBE_EVERY_S: Final = 0.02
LASTS_S: Final = 10.0
"""How long the attacks last that have no end of their own."""
KEY: Final = "an-operator-chose-this-one"
TRAINED: Final = {
    "kind": "classifier",
    "epochs": 1,
    "layers": [{"units": 10, "activation": "softmax"}],
    "samples": {"count": 1},
}
SMALL: Final = json.dumps({"kind": "classifier"}).encode()


@dataclass
class Attack:
    """What an attack needs to know, and what came of it."""

    place: Place
    job_id: str
    answers: Counter[str] = field(default_factory=Counter)
    note: str = ""

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        key: str | None = KEY,
        again: http.client.HTTPConnection | None,
    ) -> bytes:
        """One request; what comes back is counted."""
        headers = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{self.place.port}"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        connection = again or self.connect()
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self.answers[type(error).__name__] += 1
            return b""
        if again is None:
            connection.close()
        self.answers[str(answer.status)] += 1
        return data

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.place.port, timeout=60)

    def many(self, clients: int, work: Callable[[int], None]) -> None:
        """Do this with so many clients at once."""
        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def repeat(self, clients: int, send: Callable[[], object]) -> None:
        """Send with so many clients, over and over."""
        deadline = time.monotonic() + LASTS_S

        def work(_: int) -> None:
            while time.monotonic() < deadline:
                send()

        self.many(clients, work)


def nothing(attack: Attack) -> None:
    """no attack"""
    time.sleep(LASTS_S)


def two_headers(attack: Attack) -> None:
    """PNG with two headers to /predict, 8 clients"""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    headers = [chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) for side in (28, 30_000)]
    rows = zlib.compress(bytes(10**6))
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(headers) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    body = json.dumps({"images": [base64.b64encode(bomb).decode()] * 16}).encode()
    attack.repeat(8, lambda: attack.send("POST", f"/jobs/{attack.job_id}/predict", body, again=None))


def duplicate_keys(attack: Attack) -> None:
    """480 KB of keys, one of them twice, to POST /session, with and without a key, 8 clients"""
    names = ",".join(f'"k{number}":1' for number in range(44_600))
    body = f'{{{names},"k44599":2}}'.encode()

    def send() -> None:
        attack.send("POST", "/session", body, key=None, again=None)
        attack.send("POST", "/session", body, again=None)

    attack.repeat(8, send)


def unknown_fields(attack: Attack) -> None:
    """75,000 unknown fields to POST /jobs, 12 at once"""
    body = json.dumps({"kind": "classifier", **{f"f{number}": 1 for number in range(75_000)}}).encode()
    attack.repeat(12, lambda: attack.send("POST", "/jobs", body, again=None))


def broker_errors(attack: Attack) -> None:
    """1,500 jobs submitted and cancelled, 8 clients, while the broker answers READONLY, then out of memory"""
    broker = redis.Redis(unix_socket_path=str(attack.place.broker.socket))
    ways: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: broker.replicaof("127.0.0.1", "1"), lambda: broker.replicaof("NO", "ONE")),
        (lambda: broker.config_set("maxmemory", "1"), lambda: broker.config_set("maxmemory", "0")),
    ]
    longest = 0

    def work(_: int) -> None:
        connection = attack.connect()
        for _ in range(94):
            made = attack.send("POST", "/jobs", SMALL, again=connection)
            with suppress(ValueError):
                attack.send("POST", f"/jobs/{json.loads(made)['id']}/cancel", again=connection)
        connection.close()

    for fail, mend in ways:
        fail()
        attack.many(8, work)
        mend()
        time.sleep(2)
        longest = max(longest, int(broker.llen(task_names.TRAIN_QUEUE)))  # type: ignore[arg-type]
    broker.close()
    attack.note = f"{longest} messages in the queue afterwards"


def idle_connections(attack: Attack) -> None:
    """1,000 idle connections, under ulimit -n 1024"""
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(socket.create_connection(("127.0.0.1", attack.place.port), timeout=30))
        attack.answers["opened"] = 1000
        time.sleep(LASTS_S)


def slow_bodies(attack: Attack) -> None:
    """700 bodies that never arrive, without a key"""
    sent = (
        b"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"
    )
    with ExitStack() as stack:
        for _ in range(700):
            connection = socket.create_connection(("127.0.0.1", attack.place.port), timeout=30)
            stack.enter_context(connection).sendall(sent)
        attack.answers["opened"] = 700
        time.sleep(LASTS_S)


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
    )
}


def _probe(port: int, told: Connection) -> None:
    """Ask ``/healthz`` as a monitor does, each time on a new connection, until told to stop; tell how long it took."""
    told.send("ready")
    took = []
    while not told.poll(PROBE_EVERY_S):
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/healthz")
            good = connection.getresponse().read() and True
        except (OSError, http.client.HTTPException):
            good = False
        connection.close()
        took.append(time.perf_counter() - began if good else float("inf"))
    told.send(took)


@contextmanager
def probed(port: int, took: list[float]) -> Iterator[None]:
    """Ask meanwhile, in a process of its own: an attacker's threads must not be what is slow."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_probe, args=(port, there), daemon=True)
    process.start()
    here.recv()  # it has loaded
    try:
        yield
    finally:
        here.send("stop")
        took += here.recv()
        process.join()


def peak_mb(place: Place) -> float:
    """The most memory that a process of the web service ever had resident."""
    peaks = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"service.web.gunicorn_conf" in path.read_bytes() and str(place.home).encode() in (
                path.with_name("environ").read_bytes()
            ):
                lines = path.with_name("status").read_text().splitlines()
                peaks += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return max(peaks)


def measure(places: Places, name: str) -> dict[str, Any]:
    """One attack on a service of its own."""
    environ = {"TAPELINE_AUTH": "keys", "TAPELINE_API_KEYS": KEY}
    limits = {f"TAPELINE_OWNER_{what}": "0" for what in ("REQUESTS", "QUEUED", "RUNNING")}
    with places.open("sqlite", **environ, **limits) as place:
        place.http.headers["Authorization"] = f"Bearer {KEY}"
        place.serve(descriptors=1024 if name == "idle_connections" else None)
        job_id = ""
        if name == "two_headers":
            place.work()
            job_id = place.submit(**TRAINED)
            place.until_end(job_id)
            body = {"images": [np.zeros((28, 28)).tolist()]}
            place.http.post(f"/jobs/{job_id}/predict", json=body).raise_for_status()  # the engine is loaded by now
        attack, took = Attack(place, job_id), list[float]()
        before = peak_mb(place)
        with probed(place.port, took):
            began = time.monotonic()
            ATTACKS[name](attack)
            seconds = time.monotonic() - began
        wait_until(lambda: place.http.get("/healthz").status_code == 200, "an answer afterwards")
        return {
            "attack": ATTACKS[name].__doc__,
            "answers": ", ".join(f"{count} x {what}" for what, count in attack.answers.most_common()),
            "note": attack.note,
            "before_mb": before,
            "peak_mb": peak_mb(place),
            "p99_ms": 1000 * float(np.percentile(took, 99, method="higher")),
            "max_ms": 1000 * max(took),
            "probes": len(took),
            "seconds": seconds,
        }


def row(found: Mapping[str, Any]) -> str:
    """A line of the table, for Markdown; what misses its goal is bold."""

    def figure(value: float, most: float) -> str:
        return f"{value:.0f}" if value < most else f"**{value:.0f}**"

    answers = "; ".join(filter(None, (found["answers"], found["note"])))
    peak, p99 = figure(found["peak_mb"], MAX_PEAK_MB), figure(found["p99_ms"], MAX_P99_MS)
    return (
        f"| {found['attack']} | {answers or '-'} | {found['before_mb']:.0f} | {peak} | {p99} | {found['max_ms']:.0f} "
        f"| {found['probes']} in {found['seconds']:.0f} s |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Attack a web process, and measure what it costs.")
    parser.add_argument("attacks", nargs="*", help=f"some of: {', '.join(ATTACKS)}; none: all")
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.attacks) - set(ATTACKS)):
        parser.error(f"no such attack: {', '.join(unknown)}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    missed = False
    sys.stdout.write("| attack | answers | MB before | peak MB | p99 of `/healthz`, ms | slowest, ms | asked |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory(prefix="tapeline-attack-") as folder:
        places = Places(Path(folder), None)
        for name in chosen.attacks or ATTACKS:
            found = measure(places, name)
            missed = missed or found["peak_mb"] >= MAX_PEAK_MB or found["p99_ms"] >= MAX_P99_MS
            sys.stdout.write(row(found) + "\n")
            sys.stdout.flush()
        places.close()
    load = os.getloadavg()[0]
    sys.stdout.write(f"\n{os.cpu_count()} cores; load {load:.1f} at the end. Goals: below {MAX_PEAK_MB} MB and ")
    sys.stdout.write(f"{MAX_P99_MS} ms; what misses one is bold.\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
