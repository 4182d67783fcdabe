"""Commands in a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from typing import Final

_COMMAND: Final = "from service.cli import main; main()"


def run_in_terminal(
    *arguments: str, stdin: bytes = b"", typed: bytes = b"", environ: dict[str, str], program: str = _COMMAND
) -> tuple[int, str]:
    """Run a ``tapeline`` command in a new pseudo-terminal; return its exit code and everything it printed.

    Args:
        program: another one in Python.
        stdin: its input, from a pipe; with ``typed``, it is the terminal, in which this is typed.
    """
    controller, terminal = pty.openpty()
    command = [sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(
        command,
        stdin=terminal if typed else subprocess.PIPE,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | environ,
        close_fds=True,
    )
    os.close(terminal)
    output = bytearray()

    def read() -> None:
        while True:
            try:
                chunk = os.read(controller, 65536)
            except OSError:  # EIO: how Linux reports that the terminal side is closed
                return
            if not chunk:
                return
            output.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    if typed:
        os.write(controller, typed)
    process.communicate(stdin if not typed else None, timeout=60)
    reader.join()
    os.close(controller)
    return process.returncode, output.decode()


def strip_ansi(output: str) -> str:
    """Terminal output without colour codes and carriage returns."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output).replace("\r", "")
