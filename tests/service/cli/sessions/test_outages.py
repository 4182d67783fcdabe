"""What watching a job or sweep reports during an outage: the connection to the real stack is cut and restored."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.local import LocalStack
from tapeline import Client
from tests.terminals import run_in_terminal, strip_ansi

pytestmark = pytest.mark.nightly

LOST, RESTORED = "connection lost, reconnecting ...", "connection restored"
LONG: dict[str, Any] = {"kind": "classifier", "epochs": 5000, "layers": [{"units": 10, "activation": "softmax"}]}


class Proxy:
    """A TCP proxy to the service that can be disconnected and connected again."""

    def __init__(self, url: str) -> None:
        self._service = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._sockets: list[socket.socket] = []
        self._port = 0
        self.has_forwarded_events = threading.Event()
        self.connect()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def connect(self) -> None:
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        self._sockets = [listener]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def disconnect(self) -> None:
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                downstream, _ = listener.accept()
                upstream = socket.create_connection(self._service)
                self._sockets += [downstream, upstream]
                for source, target in ((downstream, upstream), (upstream, downstream)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                if b"event: " in data:
                    self.has_forwarded_events.set()
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(stack: LocalStack) -> Iterator[Proxy]:
    proxy = Proxy(stack.url)
    yield proxy
    proxy.disconnect()


@contextmanager
def outage(proxy: Proxy, stop: Callable[[], Any], *, seconds: float) -> Iterator[None]:
    """Disconnect for ``seconds``, one second after the first event was forwarded; then stop what is watched."""

    def run_outage() -> None:
        proxy.has_forwarded_events.wait(60)
        time.sleep(1)  # the outage begins while events flow
        proxy.disconnect()
        time.sleep(seconds)  # the duration of the outage
        proxy.connect()
        time.sleep(6)  # the client reconnects within five seconds
        stop()

    thread = threading.Thread(target=run_outage)
    thread.start()
    yield
    thread.join()


def run_command(proxy: Proxy, *arguments: str) -> tuple[list[str], list[str]]:
    command = [sys.executable, "-c", "from service.cli import main; main()", *arguments, "--server", proxy.url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    return result.stdout.splitlines(), result.stderr.splitlines()


@pytest.mark.parametrize("seconds", [4, 0.5])
def test_an_outage_and_its_end_are_reported_once_if_it_lasts_seconds(
    proxy: Proxy, client: Client, stack: LocalStack, seconds: float
) -> None:
    job = client.submit(LONG)
    with (
        closing(Client(stack.url)) as second_client,
        outage(proxy, lambda: second_client.job(job.id).cancel(), seconds=seconds),
    ):
        out, err = run_command(proxy, "watch", job.id)
    messages = [LOST, RESTORED] if seconds > 2 else []
    assert err == [*messages, f"tapeline: job {job.id} cancelled"]
    epochs = [int(line.split()[1].partition("/")[0]) for line in out if line.startswith("epoch")]
    assert epochs == list(range(1, len(epochs) + 1)), "nothing is lost or repeated"


def test_a_terminal_shows_an_outage_until_the_connection_is_restored(
    proxy: Proxy, client: Client, stack: LocalStack
) -> None:
    job = client.submit(LONG)
    environ = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    with (
        closing(Client(stack.url)) as second_client,
        outage(proxy, lambda: second_client.job(job.id).cancel(), seconds=4),
    ):
        _, output = run_in_terminal("watch", job.id, "--server", proxy.url, environ=environ)
    before, restored, after = strip_ansi(output).partition(f"{RESTORED}\n")
    assert LOST in before
    assert restored
    assert not any(text in after for text in (LOST, RESTORED))


def test_watching_a_sweep_reports_an_outage_too(proxy: Proxy, client: Client, stack: LocalStack) -> None:
    space = {"/optimizer/learning_rate": {"choice": [0.001, 0.05]}}
    sweep = client.sweep({"name": "cut", "base": LONG, "seeds": [0], "space": space})
    with closing(Client(stack.url)) as second_client:
        handle = second_client.find_sweep(sweep.id)
        with outage(proxy, handle.cancel, seconds=4):
            out, err = run_command(proxy, "sweeps", "cut", "--watch")
    assert err[:2] == [LOST, RESTORED]
    assert len(err) == 3
    assert out[0].startswith(sweep.id)
