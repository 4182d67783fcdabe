"""What a followed job or sweep says while the service is away: a connection that is cut, to the real stack."""

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

from service.client import Client
from service.local import LocalStack
from tests.terminals import in_terminal, plain

pytestmark = pytest.mark.slow  # an outage is reported after two seconds

LOST, RESTORED = "connection lost, reconnecting ...", "connection restored"
LONG: dict[str, Any] = {"kind": "classifier", "epochs": 5000, "layers": [{"units": 10, "activation": "softmax"}]}


class Cable:
    """A port that is connected to the service until it is cut."""

    def __init__(self, url: str) -> None:
        self._service = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._open: list[socket.socket] = []
        self._port = 0
        self.has_carried_events = threading.Event()
        self.plug()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def plug(self) -> None:
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        self._open = [listener]
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                ours, _ = listener.accept()
                theirs = socket.create_connection(self._service)
                self._open += [ours, theirs]
                for source, target in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                if b"event: " in data:
                    self.has_carried_events.set()
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def cable(stack: LocalStack) -> Iterator[Cable]:
    made = Cable(stack.url)
    yield made
    made.cut()


@contextmanager
def outage(cable: Cable, stop: Callable[[], Any], *, seconds: float) -> Iterator[None]:
    """Cuts the cable a second after the first event went through it, for some seconds; then stops what is followed."""

    def play() -> None:
        cable.has_carried_events.wait(60)
        time.sleep(1)
        cable.cut()
        time.sleep(seconds)
        cable.plug()
        time.sleep(6)
        stop()

    player = threading.Thread(target=play)
    player.start()
    yield
    player.join()


def followed(cable: Cable, *arguments: str) -> tuple[list[str], list[str]]:
    command = [sys.executable, "-c", "from service.cli import main; main()", *arguments, "--server", cable.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    return done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.parametrize("seconds", [4, 0.5])
def test_an_outage_of_seconds_is_said_once_and_so_is_its_end(
    cable: Cable, client: Client, stack: LocalStack, seconds: float
) -> None:
    job = client.submit(LONG)
    with closing(Client(stack.url)) as other, outage(cable, lambda: other.cancel(job.id), seconds=seconds):
        out, err = followed(cable, "watch", job.id)
    told = [LOST, RESTORED] if seconds > 2 else []
    assert err == [*told, f"tapeline: job {job.id} cancelled"]
    epochs = [int(line.split()[1].partition("/")[0]) for line in out if line.startswith("epoch")]
    assert epochs == list(range(1, len(epochs) + 1)), "nothing is lost or repeated"


def test_a_terminal_shows_the_outage_below_the_bars(cable: Cable, client: Client, stack: LocalStack) -> None:
    job = client.submit(LONG)
    environ = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    with closing(Client(stack.url)) as other, outage(cable, lambda: other.cancel(job.id), seconds=4):
        _, shown = in_terminal("watch", job.id, "--server", cable.url, environ=environ)
    before, restored, after = plain(shown).partition(f"{RESTORED}\n")
    assert LOST in before
    assert restored
    assert not any(text in after for text in (LOST, RESTORED))


def test_a_followed_sweep_says_it_too(cable: Cable, client: Client, stack: LocalStack) -> None:
    space = {"/optimizer/learning_rate": {"choice": [0.001, 0.05]}}
    sweep = client.sweep({"name": "cut", "base": LONG, "seeds": [0], "space": space})
    with closing(Client(stack.url)) as other:
        same = other.find_sweep(sweep.id)
        with outage(cable, same.cancel, seconds=4):
            out, err = followed(cable, "sweeps", "cut", "--watch")
    assert err[:2] == [LOST, RESTORED]
    assert len(err) == 3
    assert out[0].startswith(sweep.id)
