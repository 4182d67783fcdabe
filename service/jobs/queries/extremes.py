"""The lowest and highest value of each metric of a job, stored in the job's row so that lists need not read epochs.

Only the job's own epochs count: forks and reproductions start with none, so the parent's best value is never shown as
theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.spec import metric_info
from service.storage.tables import Job

Extremes = dict[str, dict[str, Any]]
"""``{"val_loss": {"min": 0.11, "min_epoch": 7, "max": 0.52, "max_epoch": 1}}``"""


def extended(extremes: Extremes, metrics: Mapping[str, float | None], epoch: int) -> Extremes:
    """The extremes after one more epoch; of equal values, the first epoch is kept.

    Args:
        metrics: ``None`` stands for a value that is not finite, which is ignored.
    """
    updated = dict(extremes)
    for name, value in metrics.items():
        if value is None:
            continue
        current = updated.get(name, {"min": value, "min_epoch": epoch, "max": value, "max_epoch": epoch})
        if value < current["min"]:
            current = current | {"min": value, "min_epoch": epoch}
        if value > current["max"]:
            current = current | {"max": value, "max_epoch": epoch}
        updated[name] = current
    return updated


def best(job: Job, name: str) -> tuple[float, int] | None:
    """A metric's best value and its epoch; ``None`` if the metric has no direction or no value.

    Among equally accurate epochs, it is the one with the best checkpoint; for other metrics, the first.
    """
    better, values = metric_info.describe(name).better, job.extremes.get(name)
    if better is None or values is None:
        return None
    if name == "val_accuracy" and job.best_epoch is not None:
        return values[better], job.best_epoch
    return values[better], values[f"{better}_epoch"]
