"""The slots of a web process: how much expensive work of each kind it does at a time. Each process has its own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final, cast

from flask import g

from service.runtime.slots import SlotPool

UPLOADS: Final = SlotPool("uploads", 32, per_owner=4, waiting=0, code="too_many_uploads")
"""Being received or read: each occupies a thread, and slow ones do so for long."""
IMPORTS: Final = SlotPool("imports", 4, waiting=UPLOADS.size, code="too_many_uploads")
"""Each occupies a core. An upload that was received is never refused: ``UPLOADS`` limits those that wait."""
PARSING: Final = SlotPool("large bodies", 1)
"""Parsing holds the GIL: several large bodies at once would delay all other requests."""
PNG_DECODING: Final = SlotPool("requests with PNG files", 2)
"""The largest image needs up to 70 MB in this process."""
FILE_DECODING: Final = SlotPool("requests with JPEG, WebP, BMP or GIF files", 2)
"""Each starts a process, which may need 512 MB and compute for many seconds."""
COMPUTING: Final = SlotPool("computations with networks, checkpoints or tables", 4)
"""More would only share the cores, and each needs memory."""
DRAWING: Final = SlotPool("drawings", 2, per_owner=1, waiting=128)
"""Each occupies a core. With one per owner, simultaneous requests for a picture draw it once. Pages request many."""
GRIDS: Final = SlotPool("sample grids", 2, waiting=128)
"""Each takes some 40 ms, at the limits a second. A page that is scrubbed through the epochs of jobs requests many."""
EXPORTS: Final = SlotPool("exports", 2, per_owner=1)
"""Each uses a core and several times the memory of the model; one per owner, as for ``DRAWING``."""
SWEEP_CHECKS: Final = SlotPool("checks of sweeps", 2, per_owner=1)
"""The longest takes a large part of a second, and holds the GIL."""
LOOKUPS: Final = SlotPool("lookups of host names", 4, per_owner=1)
"""A name server that does not answer holds a thread for up to half a minute."""
SCRAPES: Final = SlotPool("scrapes of the metrics", 1, waiting=8)
"""They count events one after the other."""

POOLS: Final = tuple(pool for pool in list(globals().values()) if isinstance(pool, SlotPool))
"""All of the above."""
MAX_REQUESTS: Final = sum(pool.size + pool.waiting for pool in POOLS)
"""Maximum number of requests that occupy a slot or wait for one; each occupies a thread."""


def hold(pool: SlotPool) -> AbstractContextManager[None]:
    """Occupy a slot for whom the current request counts, once one is free.

    Raises:
        Busy: too many requests are waiting for one.
    """
    return pool.slot(cast("str | None", g.get("counted_for")))
