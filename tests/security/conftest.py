"""The stack as `tapeline up` starts it, with keys required, and raw sockets for attackers."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.local import LocalStack
from service.runtime.settings import Settings

OPERATOR_KEY = "an-operator-chose-this-one"
OWNERS = ("ann", "bob")


@dataclass(frozen=True)
class Stack:
    """A running stack, and the keys of its owners."""

    url: str
    home: Path
    keys: dict[str, str]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, owner: str | None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.keys[owner]}"} if owner is not None else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)

    def tapeline(self, *arguments: str) -> str:
        """Run a ``tapeline`` command on the stack's machine, as its operator would; return the output."""
        return _tapeline(self.home, *arguments)

    def raw(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"") -> tuple[int, bytes]:
        """Send a request with exactly these headers, without even ``Host``; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            if body or method == "POST":
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _tapeline(home: Path, *arguments: str) -> str:
    command = [sys.executable, "-c", "from service.cli import main; main()", *arguments]
    environ = os.environ | {"TAPELINE_HOME": str(home)}
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("security") / "home"
    keys = {owner: _tapeline(home, "keys", "create", owner) for owner in OWNERS}
    keys["reader"] = _tapeline(home, "keys", "create", "reader", "--owner", "ann", "--scope", "read")
    keys["operator"] = OPERATOR_KEY
    environ = {
        "TAPELINE_HOME": str(home),
        "TAPELINE_PORT": "0",
        "TAPELINE_AUTH": "keys",
        "TAPELINE_API_KEYS": OPERATOR_KEY,
        "TAPELINE_WORKERS": "1",
    }
    with LocalStack(Settings.from_env(environ, cores=1)) as running:
        yield Stack(running.url, home, keys)
