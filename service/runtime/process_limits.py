"""Limits of a process: on its address space and other resources, what it keeps, and its score for the OOM killer."""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress
from typing import Final

_M_MMAP_THRESHOLD: Final = -3
_LARGE_BLOCK_BYTES: Final = 2**20


def limit(kind: int, value: int, *, is_final: bool = False) -> None:
    """Set a limit, at most the hard one.

    Args:
        kind: ``resource.RLIMIT_...``.
        is_final: whether the hard limit is lowered, too, so that the process cannot lift it.
    """
    _, hard = resource.getrlimit(kind)
    soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (soft, soft if is_final else hard))


def lift(kind: int) -> None:
    """Raise a limit to the hard one."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (hard, hard))


def limit_memory(additional_bytes: int, *, is_final: bool = False) -> None:
    """Limit the address space to its current size plus ``additional_bytes``. Allocations beyond raise ``MemoryError``.

    Only Linux enforces it; elsewhere the limit is ignored, or includes system mappings.
    """
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            mapped_bytes = int(file.read().split()[0]) * resource.getpagesize()
        limit(resource.RLIMIT_AS, mapped_bytes + additional_bytes, is_final=is_final)


def return_large_blocks() -> None:
    """Let the C library return each freed block of 1 MiB or more to the system.

    By default, glibc soon keeps freed blocks of up to 32 MiB, for each of many threads: the memory of a large request,
    times the number of threads that have served one.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # other C libraries have no such option
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)


def offer_to_oom_killer(score: int) -> None:
    """Make the kernel prefer to kill this process over others when the machine runs out of memory.

    Args:
        score: from 0 (like others) to 1000 (first of all).
    """
    if sys.platform == "linux":
        # A container may forbid it.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
