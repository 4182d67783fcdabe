"""Errors that keep the embedded stack from starting. Each message says what to do."""

from __future__ import annotations

import os
from pathlib import Path


def _next_port(port: int) -> int:
    return port + 1 if port < 65535 else 8000


def _start_command() -> str:
    """The command that started this process."""
    return "make up" if "MAKELEVEL" in os.environ else "tapeline up"


class StackError(Exception):
    """The stack cannot start; the message says what to do."""


class PortTaken(StackError):
    """Another program listens on the port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"port {port} on {host} is in use; use another one:\n  TAPELINE_PORT={_next_port(port)} {_start_command()}"
        )
        self.host, self.port = host, port


class HomeInUse(StackError):
    """Another stack runs on the same state folder."""

    def __init__(self, home: Path, pid: int | None, url: str | None, *, is_demo: bool = False) -> None:
        port = _next_port(int(url.rpartition(":")[2])) if url else 8001
        location = f" at {url}" if url else ""
        process = f" (process {pid})" if pid else ""
        alternative = f"start a second one:\n  TAPELINE_HOME=/another/folder TAPELINE_PORT={port} {_start_command()}"
        if is_demo:
            message = (
                f"a demo runs on {home}{location}{process}, and ends in a few minutes; wait for it, or {alternative}"
            )
        else:
            message = f"Tapeline already runs on {home}{location}{process}; use it, stop it, or {alternative}"
        super().__init__(message)
        self.home, self.pid, self.url = home, pid, url
