"""What this process may use of its machine: processors and memory, within the limits of its container, and temporary
folders."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")


def processors() -> int:
    """The number of processors on which this process may run, at most what its container may use."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_numbers(folder / "cpu.max") for folder in _folders("")]
    quotas += [_numbers(folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us") for folder in _folders("cpu")]
    shares = [quota / period for quota, period in filter(None, quotas) if quota > 0 and period > 0]
    return max(1, min([affinity, *map(math.ceil, shares)]))


def memory_bytes() -> tuple[int, int]:
    """The memory of the machine or container, and how much of it can still be allocated without swapping."""
    usages = [_numbers(folder / "memory.max", folder / "memory.current") for folder in _folders("")]
    usages += [
        _numbers(folder / "memory.limit_in_bytes", folder / "memory.usage_in_bytes") for folder in _folders("memory")
    ]
    limits = [limit for limit, _ in filter(None, usages)]
    free = [max(0.0, limit - used) for limit, used in filter(None, usages)]
    machine = psutil.virtual_memory()
    return int(min([machine.total, *limits])), int(min([machine.available, *free]))


def _folders(controller: str) -> Iterator[Path]:
    """The control groups of this process, from its own to the root: of version 2, or of a controller of version 1."""
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            root = _CGROUPS / controller
            folder = root / path.lstrip("/")
            yield folder
            while folder != root and root in folder.parents:
                folder = folder.parent
                yield folder


def _numbers(*paths: Path) -> tuple[float, float] | None:
    """Two numbers, in one file or in two; ``None`` if there is no such file, or no limit."""
    try:
        first, second = " ".join(path.read_text() for path in paths).split()
        return float(first), float(second)
    except (OSError, ValueError):  # "max"
        return None


def new_folder(purpose: str) -> Path:
    """Create a folder ``tapeline-<purpose>-<process id>-...`` for this process, and remove those of dead processes."""
    for folder in Path(tempfile.gettempdir()).glob(f"tapeline-{purpose}-*-*"):
        pid = folder.name.removeprefix(f"tapeline-{purpose}-").partition("-")[0]
        # In a container, the first process has the same id after each restart.
        if pid.isdigit() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"tapeline-{purpose}-{os.getpid()}-"))
