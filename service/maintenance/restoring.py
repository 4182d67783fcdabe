"""Whether a restore is running: until its end, its files have no rows, and must not be taken for orphaned."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def folder(artifacts: Path) -> Path:
    """Where a restore into ``artifacts`` keeps its notes, and what it locks."""
    return artifacts / ".restoring"


@contextmanager
def lock(work: Path) -> Iterator[None]:
    """Hold the lock of a restore's ``folder``; it goes with the process.

    Raises:
        BlockingIOError: another restore holds it.
    """
    handle = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def is_running(artifacts: Path) -> bool:
    """Whether one holds the lock now; one that was killed does not."""
    try:
        with lock(folder(artifacts)):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
