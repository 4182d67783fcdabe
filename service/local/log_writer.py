"""Writes what the stack's processes print into log files, and rotates these while the processes run.

Each process prints into a pipe, which its children inherit; the log writer, a process of its own, reads the pipes and
writes the files. So no process has a file open that is renamed, and what is printed during a rotation waits in the
pipe. The stack keeps both ends of each pipe: a log writer that was killed is replaced, and the next one reads on. It
outlives a stack that was killed, until the last process has exited.

Run as a script, this file is the log writer and imports only the standard library; imported, it is the stack's end.

Cost: one process of 12 MB, and what it had read but not written if it is killed.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 10 * 1024**2
KEPT: Final = 2
"""Files of each process besides the current one, as in ``docker-compose.yml``."""
_CHUNK_BYTES: Final = 65_536
_TAIL_BYTES: Final = 8192
_TIMEOUT_S: Final = 2.0
"""How long the stack waits for the log writer."""


class LogWriter:
    """The stack's end of the pipes.

    Args:
        folder: for the files, ``NAME.log``.
        names: of the processes.
        max_bytes: size from which a file is rotated.
        kept: number of older files of each process.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._pipes = {name: os.pipe() for name in names}
        files = [f"{reader}={folder / name}.log" for name, (reader, _) in self._pipes.items()]
        self._command = [sys.executable, "-I", "-S", __file__, str(max_bytes), str(kept), *files]
        self._process = self._start()

    @property
    def pid(self) -> int:
        """The process id of the log writer."""
        return self._process.pid

    def descriptor(self, name: str) -> int:
        """The descriptor to which a process prints."""
        return self._pipes[name][1]

    def keep_running(self) -> None:
        """Replace a log writer that has exited."""
        if self._process.poll() is not None:
            self._process = self._start()

    def close(self) -> None:
        """Wait until everything is written; call it when all processes have exited."""
        for _, descriptor in self._pipes.values():
            os.close(descriptor)
        try:
            self._process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # something that outlived its process group still prints
            self._process.kill()
            self._process.wait()
        for descriptor, _ in self._pipes.values():
            os.close(descriptor)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[reader for reader, _ in self._pipes.values()],
            start_new_session=True,
        )


def mark(descriptor: int, event: str) -> str:
    """Print a line about a process into its log; returns the line."""
    line = json.dumps({"event": event, "process": "stack", "timestamp": datetime.now(UTC).isoformat()})
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    if poller.poll(1000 * _TIMEOUT_S):  # not full: then a line fits, too
        with suppress(OSError):
            os.write(descriptor, f"{line}\n".encode())
    return line


def read_between(log: Path, begin: str, end: str) -> list[str]:
    """The last lines in a log between two marks, the second of which was just printed."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        lines = _last_lines(log)
        if end in lines or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    lines = lines[: lines.index(end)] if end in lines else lines
    return lines[lines.index(begin) + 1 :] if begin in lines else lines


def _last_lines(log: Path) -> list[str]:
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()
    return []


class _LogFile(logging.handlers.RotatingFileHandler):
    """A file that gets bytes as they come; it is rotated between two lines, unless one never ends."""

    terminator = ""

    def __init__(self, path: str, *, max_bytes: int, kept: int) -> None:
        # Bytes that are not UTF-8, or a part of a character, are written as they are.
        super().__init__(
            path, maxBytes=max_bytes, backupCount=kept, encoding="utf-8", errors="surrogateescape", delay=True
        )
        self._is_within_line = False

    def add(self, chunk: bytes) -> None:
        """Write some bytes; they are dropped if the disk is full."""
        for part in chunk.splitlines(keepends=True):
            self.emit(logging.makeLogRecord({"msg": part.decode("utf-8", "surrogateescape")}))
            self._is_within_line = not part.endswith(b"\n")

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - the name of the base class
        """Whether to continue in a new file."""
        is_too_long = self.stream is not None and self.stream.tell() > 2 * self.maxBytes
        return (is_too_long or not self._is_within_line) and bool(super().shouldRollover(record))


def _write(files: Mapping[int, _LogFile]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.raiseExceptions = False
    with selectors.DefaultSelector() as selector:
        for descriptor, file in files.items():
            selector.register(descriptor, selectors.EVENT_READ, file)
        while selector.get_map():
            for key, _ in selector.select():
                if chunk := os.read(key.fd, _CHUNK_BYTES):
                    key.data.add(chunk)
                else:
                    selector.unregister(key.fd)


if __name__ == "__main__":
    _max_bytes, _kept = map(int, sys.argv[1:3])
    _paths = {int(number): path for number, _, path in (text.partition("=") for text in sys.argv[3:])}
    _write({number: _LogFile(path, max_bytes=_max_bytes, kept=_kept) for number, path in _paths.items()})
