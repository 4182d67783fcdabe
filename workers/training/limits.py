"""Limits that keep a training from starving the machine: lower priority, and a memory limit for each job."""

from __future__ import annotations

import os
import resource
from typing import Final

import numpy as np
import psutil

from service.runtime import machine_limits, process_limits

NICENESS: Final = 5
OOM_SCORE: Final = 500
"""When the machine runs out of memory, the kernel should kill a child, not the database or a supervisor."""
_MAX_OPEN_FILES: Final = 256
_ALLOWANCE_BYTES: Final = 512 * 2**20
"""Allowance beyond the estimated memory of a job: BLAS buffers, sample grids, the reference classifier, the thread that
commits epochs (its stack, and the memory that its allocator reserves)."""


def lower_priority() -> None:
    """Lower the priority of this process. Irreversible; called before the job is known."""
    os.nice(NICENESS)
    process_limits.limit(resource.RLIMIT_CORE, 0)
    process_limits.limit(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES)
    process_limits.offer_to_oom_killer(OOM_SCORE)


def limit_memory(estimated_bytes: int) -> None:
    """Limit the address space to the current size, plus twice the estimated memory of the job, plus an allowance.

    Beyond the limit, allocations raise ``MemoryError``. Only Linux enforces it.
    """
    np.ones((64, 64), np.float32) @ np.ones((64, 64), np.float32)  # BLAS maps its buffers now, before the limit
    process_limits.limit_memory(2 * estimated_bytes + _ALLOWANCE_BYTES)


def missing_memory_bytes(estimated_bytes: int) -> int | None:
    """The memory that a job needs, if other processes use it; ``None`` if it is available, or if this machine never has
    that much."""
    needed_bytes = estimated_bytes + _ALLOWANCE_BYTES
    total_bytes, available_bytes = machine_limits.memory_bytes()
    return needed_bytes if available_bytes + resident_bytes() < needed_bytes <= total_bytes else None


def lift_memory_limit() -> None:
    """Lift the memory limit, so that an error can be reported, or the next job can set its own limit."""
    process_limits.lift(resource.RLIMIT_AS)


def resident_bytes() -> int:
    """The resident memory of this process."""
    return int(psutil.Process().memory_info().rss)
