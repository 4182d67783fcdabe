"""The limit on file descriptors of this process."""

from __future__ import annotations

import resource
from typing import Final

_RESERVED: Final = 160
"""Descriptors for database connections, files, and modules that are imported later."""
_WANTED: Final = 4096


def raise_limit() -> None:
    """Raise the limit up to ``_WANTED``, as far as the system allows; the default of 1,024 is meant for ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def max_connections(wanted: int) -> int:
    """``wanted``, or the number of connections that leaves descriptors for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(16, min(wanted, soft - _RESERVED))
