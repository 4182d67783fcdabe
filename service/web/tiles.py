"""The metrics and resources that a job's page shows at a glance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from service.contract import extremes, metric_info
from service.contract.metric_info import Goal
from service.contract.tables import Epoch, Job
from service.web.filters import duration
from service.web.representations import finite

METRICS: Final = (
    "val_accuracy", "val_loss", "train_accuracy", "train_loss", "frechet_distance", "mode_coverage", "sample_diversity",
    "g_loss", "d_loss", "d_real", "d_fake",
)  # fmt: skip
"""The metrics that say most of a job."""


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
    """What a job has used."""

    name: str
    label: str
    description: str
    value: str


def metric_tiles(job: Job, epochs: Callable[[], Iterable[tuple[int, Mapping[str, Any]]]]) -> list[Tile]:
    """The tiles of a job, in a fixed order.

    Args:
        epochs: reads every epoch's number and metrics; called only for jobs whose extremes were never recorded.
    """
    recorded: extremes.Extremes = job.extremes
    if not recorded and job.epoch:
        for epoch, metrics in epochs():
            recorded = extremes.extended(recorded, finite(dict(metrics)), epoch)
    last = finite(job.metrics)
    return [_tile(name, last[name], recorded.get(name), job.epoch) for name in METRICS if name in last]


def _tile(name: str, last: float | None, extreme: Mapping[str, Any] | None, epoch: int) -> Tile:
    info = metric_info.describe(name)
    best = best_epoch = None
    if info.goal is not None and extreme is not None:
        side = "max" if info.goal is Goal.MAXIMIZE else "min"
        best, best_epoch = metric_info.number(name, extreme[side]), extreme[f"{side}_epoch"]
    return Tile(
        name=name,
        label=info.label,
        description=info.description,
        last=metric_info.number(name, last),
        best=best,
        best_epoch=best_epoch,
        is_best=best_epoch == epoch,
    )


def resource_tiles(job: Job, last: Epoch | None) -> list[Resource]:
    """Duration, processor time and memory, as far as they were measured."""
    tiles = []
    until_ms = job.finished_ms or (last.finished_ms if last is not None else None)
    if job.started_ms is not None and until_ms is not None and until_ms > job.started_ms:
        text = "From the start to the end, pauses included." if job.finished_ms else "From the start to the last epoch."
        tiles.append(Resource("duration", "duration", text, duration((until_ms - job.started_ms) / 1000)))
    if job.cpu_seconds is not None:
        text = "Processor time of the training process, all attempts together."
        tiles.append(Resource("cpu", "CPU time", text, duration(job.cpu_seconds)))
    if job.peak_memory_bytes is not None:
        text = "The most resident memory that the training process had."
        tiles.append(Resource("memory", "peak memory", text, metric_info.size(job.peak_memory_bytes)))
    return tiles
