"""How many files and connections this process may have open."""

from __future__ import annotations

import resource
from typing import Final

_RESERVED: Final = 160
"""For what is no client's connection: the database's, files that are read, modules that are loaded later."""
_WANTED: Final = 4096


def raise_limit() -> None:
    """Ask for as many as are useful, up to what the system allows: the default of 1,024 is meant for ``select``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def max_connections(wanted: int) -> int:
    """So many connections, or as many as leave descriptors for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(16, min(wanted, soft - _RESERVED))
