"""What a worker counts since its start, for the metrics that the web processes export."""

from __future__ import annotations

import bisect
import threading
from typing import Any

from service.jobs.worker_registry import COMMIT_BOUNDS_S


class WorkerTotals:
    """Counts of one worker process: the latency of commits of epochs, and errors of the store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._commits = [0] * (len(COMMIT_BOUNDS_S) + 1)
        self._commit_seconds = 0.0
        self._store_errors = 0

    def count_commit(self, seconds: float) -> None:
        """Count the commit of an epoch, which took this long, retries in an outage included."""
        with self._lock:
            self._commits[bisect.bisect_left(COMMIT_BOUNDS_S, seconds)] += 1
            self._commit_seconds += seconds

    def count_store_error(self) -> None:
        """Count a failed access to the store, which made a job wait."""
        with self._lock:
            self._store_errors += 1

    def document(self) -> dict[str, Any]:
        """The counts, for the worker's row."""
        with self._lock:
            return {
                "commits": list(self._commits),
                "commit_seconds": round(self._commit_seconds, 6),
                "store_errors": self._store_errors,
            }
