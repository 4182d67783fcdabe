"""What keeps one training from starving the machine: less priority, and a bound on memory."""

from __future__ import annotations

import os
import resource
import sys
from typing import Final

import numpy as np

NICENESS: Final = 5
OOM_SCORE: Final = 500
"""Where the machine runs out of memory, a child is to go, and not the database or a supervisor."""
_FILES: Final = 256
_SPARE_BYTES: Final = 512 * 2**20
"""Allowance beyond the estimated memory of a job: BLAS buffers, sample grids, the reference classifier."""


def lower_priority() -> None:
    """Let everything else on the machine go first; for good, and before the job is known."""
    os.nice(NICENESS)
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_NOFILE, _FILES)
    if sys.platform == "linux":
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write(str(OOM_SCORE))
        except OSError:  # a container may forbid it
            pass


def limit_memory(estimated_bytes: int) -> None:
    """Let this process map twice the estimated memory of its job beyond what it has mapped now, plus an allowance.

    What goes beyond gets a MemoryError, here, instead of the machine's memory. Only Linux keeps such a limit.
    """
    if sys.platform != "linux":
        return
    np.ones((64, 64), np.float32) @ np.ones((64, 64), np.float32)  # BLAS maps its buffers now, under no limit
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    _bound(resource.RLIMIT_AS, mapped + 2 * estimated_bytes + _SPARE_BYTES)


def lift_memory_limit() -> None:
    """Lift the bound on memory: what is left to do is to say what happened."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _bound(which: int, value: int) -> None:
    """Set a soft limit, as far as the hard one allows."""
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
