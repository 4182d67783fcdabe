"""Temporary folders of running processes. Those of killed ones, which nobody removes, go when the next one starts."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def new_folder(purpose: str) -> Path:
    """A new folder of this process, ``tapeline-<purpose>-<process id>-...``. Those of processes that are gone go."""
    for left in Path(tempfile.gettempdir()).glob(f"tapeline-{purpose}-*-*"):
        owner = left.name.removeprefix(f"tapeline-{purpose}-").partition("-")[0]
        # A container's first process has the same id after each restart.
        if owner.isdigit() and (int(owner) == os.getpid() or not _is_alive(int(owner))):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"tapeline-{purpose}-{os.getpid()}-"))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
