"""When an owner has room for another running job: one rule, for the database and for Python.

The column ``owner_queue.ready`` and the view ``tapeline_demand`` have the texts; what counts rows that it has read, or
simulates claims, calls the functions. A change of a text needs a migration.
"""

from __future__ import annotations

from typing import Final

READY: Final = "queued > 0 AND blocked IS NULL AND (cap IS NULL OR running < cap)"
"""That an owner has a queued job and room for it: an expression on a row of ``owner_queue``."""
DEMAND: Final = (
    "SELECT COALESCE(SUM(running + CASE WHEN NOT ready THEN 0 "
    "WHEN cap IS NULL OR running + queued < cap THEN queued ELSE cap - running END), 0) AS slots FROM owner_queue"
)
"""The slots that the running jobs hold and those that may start now would, under the caps and quotas of their owners:
one row with one number. The view ``tapeline_demand`` has this text. A paused job, or a trial that its sweep's budget
does not permit, is not queued. A job on a folder that no worker has is counted."""


def startable(jobs: int, *, cap: int | None, running: int, blocked: str | None = None) -> int:
    """How many of an owner's queued jobs, from 0 on, may start now; the other arguments are columns of its row."""
    if blocked is not None:
        return 0
    return jobs if cap is None else min(jobs, max(0, cap - running))


def has_room(*, cap: int | None, running: int) -> bool:
    """Whether another job of an owner that is not blocked may start now."""
    return startable(1, cap=cap, running=running) == 1
