"""Why the embedded stack does not start. Each text says what to do."""

from __future__ import annotations

import os
from pathlib import Path


def _another(port: int) -> int:
    return port + 1 if port < 65535 else 8000


def _again() -> str:
    """How the person who reads this has started us."""
    return "make up" if "MAKELEVEL" in os.environ else "tapeline up"


class StackError(Exception):
    """The stack does not start; the text says what to do."""


class PortTaken(StackError):
    """Another program listens on the port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"port {port} on {host} is taken; use another one:\n  TAPELINE_PORT={_another(port)} {_again()}"
        )
        self.host, self.port = host, port


class HomeInUse(StackError):
    """Another stack runs on the same state folder."""

    def __init__(self, home: Path, pid: int | None, url: str | None) -> None:
        port = _another(int(url.rpartition(":")[2])) if url else 8001
        where = f" at {url}" if url else ""
        who = f" (process {pid})" if pid else ""
        super().__init__(
            f"Tapeline already runs on {home}{where}{who}; use it, stop it, or start a second one:\n"
            f"  TAPELINE_HOME=/another/folder TAPELINE_PORT={port} {_again()}"
        )
        self.home, self.pid, self.url = home, pid, url
