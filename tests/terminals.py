"""Commands in a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading


def in_terminal(*arguments: str, stdin: bytes = b"", environ: dict[str, str]) -> tuple[int, str]:
    """Run a command on a terminal of its own; gives its exit code and everything it showed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from service.cli import main; main()", *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, env=os.environ | environ, close_fds=True
    )
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # how Linux says that the other side is closed
                return
            if not chunk:
                return
            shown.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    process.communicate(stdin, timeout=60)
    reader.join()
    os.close(ours)
    return process.returncode, shown.decode()


def plain(shown: str) -> str:
    """What a terminal shows, without colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")
