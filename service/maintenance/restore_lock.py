"""The lock of a running restore. Its files have no rows until the end, and must not be removed as orphans."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def folder(artifacts: Path) -> Path:
    """The folder for journal and lock of a restore into ``artifacts``."""
    return artifacts / ".restoring"


@contextmanager
def lock(work: Path) -> Iterator[None]:
    """Hold the lock on a restore's ``folder``; the system releases it when the process ends.

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
    """Whether a restore is running; one that was killed is not."""
    try:
        with lock(folder(artifacts)):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
