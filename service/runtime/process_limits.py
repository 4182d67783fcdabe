"""Limits of a process: on its address space and other resources, and its rank when the machine runs out of memory."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress


def limit(which: int, value: int, *, is_final: bool = False) -> None:
    """Set a limit, at most the hard one.

    Args:
        which: ``resource.RLIMIT_...``.
        is_final: whether the hard limit falls, too, so that the process cannot lift it.
    """
    _, hard = resource.getrlimit(which)
    soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (soft, soft if is_final else hard))


def lift(which: int) -> None:
    """Raise a limit to the hard one."""
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (hard, hard))


def limit_memory(more_bytes: int, *, is_final: bool = False) -> None:
    """Limit the address space to its current size plus ``more_bytes``; beyond it, allocations raise ``MemoryError``.

    Only Linux enforces it; elsewhere the limit is ignored, or includes system mappings.
    """
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            mapped_bytes = int(file.read().split()[0]) * resource.getpagesize()
        limit(resource.RLIMIT_AS, mapped_bytes + more_bytes, is_final=is_final)


def offer_to_oom_killer(score: int) -> None:
    """Let the kernel rather kill this process than others when the machine runs out of memory.

    Args:
        score: from 0 (like others) to 1000 (first of all).
    """
    if sys.platform == "linux":
        # A container may forbid it.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
