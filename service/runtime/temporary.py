"""Temporary folders of processes. A process removes those of killed ones when it starts."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil


def new_folder(purpose: str) -> Path:
    """Create a folder ``tapeline-<purpose>-<process id>-...`` for this process, and remove those of dead processes."""
    for folder in Path(tempfile.gettempdir()).glob(f"tapeline-{purpose}-*-*"):
        pid = folder.name.removeprefix(f"tapeline-{purpose}-").partition("-")[0]
        # In a container, the first process has the same id after each restart.
        if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"tapeline-{purpose}-{os.getpid()}-"))
