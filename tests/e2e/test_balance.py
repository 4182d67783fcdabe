"""The web processes share the connections of a burst."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CONNECTIONS = 40
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def port_and_master(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """gunicorn with its production configuration, and a database that is not used."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAPELINE_")}
    settings = {
        "TAPELINE_HOME": str(tmp_path),
        "TAPELINE_PORT": str(port),
        "TAPELINE_DATABASE_URL": "postgresql+psycopg://nobody@127.0.0.1:1/nothing",
        "TAPELINE_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "python:service.web.gunicorn_conf", "service.web.wsgi:app"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=inherited | settings, stdout=log, stderr=log)
    try:
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(30)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def count_sockets(pid: int) -> int:
    count = 0
    for name in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            count += os.readlink(name).startswith("socket:")
    return count


def cpu_ticks(master: int) -> dict[int, int]:
    """The CPU time of each web process, in hundredths of a second."""
    stats = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in children(master)}
    return {pid: int(fields[11]) + int(fields[12]) for pid, fields in stats.items()}


def responds(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        return client.recv(100).startswith(b"HTTP/1.1 200")
    return False


@pytest.mark.nightly  # tests/service/web/server has the decisions of one process
@pytest.mark.skipif(sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="one web process per core, /proc")
def test_a_burst_of_connections_is_shared_by_the_web_processes(port_and_master: tuple[int, int]) -> None:
    port, master = port_and_master
    deadline = time.monotonic() + 60
    while not responds(port) or len(children(master)) < 2:
        assert time.monotonic() < deadline, "the processes do not come to rest"
        time.sleep(0.1)
    while ticks_before := cpu_ticks(master):  # until all processes have loaded the app and are idle
        time.sleep(1)
        if all(count - ticks_before.get(pid, 0) < 5 for pid, count in cpu_ticks(master).items()):
            break
        assert time.monotonic() < deadline, "the processes do not come to rest"
    sockets_before = {pid: count_sockets(pid) for pid in children(master)}
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CONNECTIONS)]
        for client in clients:
            client.sendall(REQUEST)
        for client in clients:
            client.settimeout(10)
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        shares = {pid: count_sockets(pid) - count for pid, count in sockets_before.items()}
    fair_share = CONNECTIONS / len(shares)
    assert all(0.5 * fair_share <= opened <= 1.5 * fair_share for opened in shares.values()), shares
