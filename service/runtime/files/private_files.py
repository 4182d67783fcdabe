"""Files that only their owner may read: they are created so, since a later ``chmod`` leaves a moment for others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Final

FILE_MODE: Final = 0o600
_UMASK: Final = 0o077


@contextmanager
def private_umask() -> Iterator[None]:
    """Create all files and folders in this block for the owner alone. The umask is that of the whole process: only for
    commands, which do nothing else."""
    previous = os.umask(_UMASK)
    try:
        yield
    finally:
        os.umask(previous)


def create_private(path: str) -> None:
    """Create an empty file for the owner alone, unless it exists or cannot be created: who opens it next says why.

    An existing file is not opened: closing it would release the locks of SQLite that this process holds on it.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))


def protect_redirected(output: IO[Any]) -> None:
    """Take an output that a shell has redirected into a file from others before the first byte is written.

    What has been created by the shell with its umask is still empty here. Pipes, terminals and files of others stay.
    """
    with suppress(OSError):  # io.UnsupportedOperation, too: a test's output is no file
        descriptor = output.fileno()
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, FILE_MODE)
