"""The limit on file descriptors of this process."""

from __future__ import annotations

import resource
from typing import Final

_RESERVED: Final = 160
"""Descriptors for database connections, files, and modules that are imported later."""
_TARGET_LIMIT: Final = 4096


def raise_limit() -> None:
    """Raise the limit to ``_TARGET_LIMIT``, as far as the system allows; the default of 1,024 is meant for
    ``select``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _TARGET_LIMIT if hard == resource.RLIM_INFINITY else min(_TARGET_LIMIT, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def max_connections(requested: int) -> int:
    """``requested``, or the number of connections that leaves descriptors for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return requested if soft == resource.RLIM_INFINITY else max(16, min(requested, soft - _RESERVED))
