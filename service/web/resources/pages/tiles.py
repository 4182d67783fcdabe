"""The tiles of a job's page: metrics and resources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.jobs import extremes
from service.spec import metric_info
from service.storage.tables import Job
from service.web.schemas.base import finite

METRICS: Final = (
    "val_accuracy", "val_loss", "train_accuracy", "train_loss", "val_roc_auc", "frechet_distance", "mode_coverage",
    "sample_diversity", "g_loss", "d_loss", "d_real", "d_fake",
)  # fmt: skip
"""The most informative metrics."""
TESTS: Final = ("test_accuracy", "test_loss")
"""The scores on the test part, available when the job has ended."""
_TRAINED: Final = (
    "From the beginning to the end of each epoch, without waiting for a worker and pauses. Longer than the CPU time "
    "where other programs share the cores."
)
_CPU: Final = (
    "The time for which the training process had a core, in all attempts. More than the time trained where it uses "
    "several cores, less where it waits for one."
)
_MEMORY: Final = "The most resident memory that the training process had."


@dataclass(frozen=True, slots=True)
class Tile:
    """One metric: its value in the last epoch and its best so far."""

    name: str
    label: str
    description: str
    last: str
    best: str | None
    """``None``: neither direction of this metric is better."""
    best_epoch: int | None
    is_best: bool
    """Whether the last epoch is the best one."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource that a job has used."""

    name: str
    label: str
    description: str
    value: str


def metric_tiles(job: Job) -> list[Tile]:
    """The tiles of a job, in a fixed order."""
    last = finite(job.metrics)
    tiles = [_tile(name, last[name], extremes.best(job, name), job.epoch) for name in METRICS if name in last]
    scores = finite(job.test_scores or {})
    return [_tile(name, scores[name], None, 0) for name in TESTS if name in scores] + tiles


def _tile(name: str, last: float | None, best: tuple[float, int] | None, epoch: int) -> Tile:
    info = metric_info.describe(name)
    value, best_epoch = best if best is not None else (None, None)
    return Tile(
        name=name,
        label=info.label,
        description=info.description,
        last=metric_info.number(name, last),
        best=metric_info.number(name, value) if best is not None else None,
        best_epoch=best_epoch,
        is_best=best_epoch == epoch,
    )


def resource_tiles(job: Job, trained_s: float) -> list[Resource]:
    """Time trained, processor time and memory, as far as they were measured."""
    tiles = []
    if trained_s:
        tiles.append(Resource("duration", "time trained", _TRAINED, metric_info.duration(trained_s)))
    if job.cpu_seconds is not None:
        tiles.append(Resource("cpu", "CPU time", _CPU, metric_info.duration(job.cpu_seconds)))
    if job.peak_memory_bytes is not None:
        tiles.append(Resource("memory", "peak memory", _MEMORY, metric_info.size(job.peak_memory_bytes)))
    return tiles
