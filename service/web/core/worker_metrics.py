"""Counters that workers keep, per name of a worker, from the totals in their rows.

A row ends with its process, and several processes may have the same name, so the sum of their totals may fall, which
Prometheus would take for a restart. Therefore only what each row has gained since the last scrape is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString
from pydantic import BaseModel, ValidationError

from service.jobs.worker_registry import COMMIT_BOUNDS_S, name_of
from service.storage.tables import Worker

_MAX_SILENT: Final = 200
"""How many workers that are not alive are remembered."""
_BOUNDS: Final = (*map(floatToGoString, COMMIT_BOUNDS_S), "+Inf")


class Totals(BaseModel):
    """What a worker has counted since its start, or all workers of a name since the first scrape."""

    commits: list[int] = [0] * len(_BOUNDS)
    commit_seconds: float = 0.0
    store_errors: int = 0

    def gain(self, earlier: Totals) -> Totals:
        """What was counted since."""
        return Totals(
            commits=[now - before for now, before in zip(self.commits, earlier.commits, strict=True)],
            commit_seconds=self.commit_seconds - earlier.commit_seconds,
            store_errors=self.store_errors - earlier.store_errors,
        )

    def add(self, gain: Totals) -> None:
        """Add what was counted elsewhere."""
        self.commits = [now + more for now, more in zip(self.commits, gain.commits, strict=True)]
        self.commit_seconds += gain.commit_seconds
        self.store_errors += gain.store_errors


class WorkerCounters(BaseModel):
    """The counters since the first scrape; as JSON, the processes of gunicorn share them."""

    has_begun: bool = False
    rows: dict[str, Totals] = {}
    """By id of the worker: its totals at the last scrape."""
    names: dict[str, Totals] = {}
    """By label."""

    def count(self, workers: Sequence[Worker], *, max_names: int) -> None:
        """Add what the live workers have counted since the last scrape. Beyond ``max_names``, they share ``other``."""
        rows = {worker.id: _totals(worker.totals) for worker in workers}
        for worker_id, now in rows.items():
            name = name_of(worker_id)
            label = name if name in self.names or len(self.names) < max_names else "other"
            # What was before the first scrape is not counted; a worker that has begun since was not seen before.
            before = self.rows.get(worker_id, Totals() if self.has_begun else now)
            self.names.setdefault(label, Totals()).add(now.gain(before))
        # A worker that is silent for a while, as in an outage of the database, must not be counted again.
        silent = [(worker_id, totals) for worker_id, totals in self.rows.items() if worker_id not in rows]
        self.rows, self.has_begun = dict(silent[-_MAX_SILENT:]) | rows, True

    def families(self) -> list[Metric]:
        """The counters for Prometheus."""
        commits = HistogramMetricFamily(
            "tapeline_commit_seconds",
            "Latency of the transaction that commits an epoch, retries in an outage included.",
            labels=["worker"],
        )
        errors = CounterMetricFamily(
            "tapeline_store_errors",
            "Times that a worker could not store or read a file, and released the job.",
            labels=["worker"],
        )
        for name, counted in sorted(self.names.items()):
            sums = [sum(counted.commits[: index + 1]) for index in range(len(_BOUNDS))]
            commits.add_metric([name], list(zip(_BOUNDS, sums, strict=True)), counted.commit_seconds)
            errors.add_metric([name], counted.store_errors)
        return [commits, errors]


def _totals(document: dict[str, Any] | None) -> Totals:
    """The totals in a worker's row; none, if it is of another version that counts otherwise."""
    try:
        totals = Totals.model_validate(document or {})
    except ValidationError:
        return Totals()
    return totals if len(totals.commits) == len(_BOUNDS) else Totals()
