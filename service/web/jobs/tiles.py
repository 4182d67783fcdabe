"""The tiles of a job's page: metrics and resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy.orm import Session

from service.jobs.queries import extremes, lookup
from service.spec import metric_info
from service.spec.metric_info import TEST_SCORES, TILES
from service.storage.tables import Epoch, Job
from service.web.http.schemas import finite
from service.web.jobs.schemas import IntervalItem, metric_intervals
from service.wording import listed

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
    """One metric: its value, and a note about its epoch and its best value."""

    name: str
    label: str
    description: str
    value: str
    note: str | None
    is_best: bool
    """Whether the value is the best one."""
    interval: str | None = None
    """The 95% interval of an accuracy, with its number of examples."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource that a job has used."""

    name: str
    label: str
    description: str
    amount: float
    value: str


def read(session: Session, job: Job, shown: Epoch | None) -> list[Tile]:
    """The metrics of an epoch, in a fixed order."""
    if shown is None:
        return []
    count = lookup.validation_counts(session, [job]).get(job.id)
    intervals = metric_intervals(shown.metrics, count, job.test_scores)
    return _metric_tiles(job, shown, _earlier_values(session, job, shown), intervals)


def _earlier_values(session: Session, job: Job, shown: Epoch) -> dict[str, tuple[float, int]]:
    """Of each metric that the epoch does not have, the last finite value before it and its epoch."""
    names = [name for name in TILES if name in job.extremes and name not in shown.metrics]
    values = {name: lookup.last_value(session, job.id, name, until=shown.epoch) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _metric_tiles(
    job: Job, shown: Epoch, earlier: Mapping[str, tuple[float, int]], intervals: Mapping[str, IntervalItem]
) -> list[Tile]:
    values = {name: (value, shown.epoch) for name, value in finite(shown.metrics).items()} | dict(earlier)
    tiles = []
    for name in [name for name in TILES if name in values]:
        (value, epoch), best = values[name], extremes.best(job, name)
        note, is_best = _note(name, epoch, best, is_earlier=epoch != shown.epoch), best is not None and best[1] == epoch
        tiles.append(_tile(job, name, value, note, is_best=is_best))
    scores = finite(job.test_scores or {})
    if scores.get("test_epoch") == shown.epoch:  # otherwise, another model was scored
        note = f"epoch {shown.epoch}, scored once"
        tiles = [_tile(job, name, scores[name], note) for name in TEST_SCORES if name in scores] + tiles
    return [replace(tile, interval=intervals[tile.name].text) if tile.name in intervals else tile for tile in tiles]


def _note(name: str, epoch: int, best: tuple[float, int] | None, *, is_earlier: bool) -> str | None:
    """``best 64 in epoch 1``, and for a value of an earlier epoch than the one that is shown, also its epoch."""
    if best is None:
        return f"epoch {epoch}" if is_earlier else None
    value, best_epoch = best
    if is_earlier and best_epoch == epoch:
        return f"epoch {epoch}, the best"
    text = f"best {metric_info.number(name, value)} in epoch {best_epoch}"
    return f"epoch {epoch}; {text}" if is_earlier else text


def _tile(job: Job, name: str, value: float | None, note: str | None, *, is_best: bool = False) -> Tile:
    info = metric_info.describe(name)
    description = info.description + (_training_loss(job.resolved) if name == "train_loss" else "")
    number = metric_info.number(name, value)
    return Tile(name=name, label=info.label, description=description, value=number, note=note, is_best=is_best)


def _training_loss(spec: Mapping[str, Any]) -> str:
    """What a classifier minimizes beside the plain loss, as a sentence with a leading space; empty: nothing."""
    loss = spec["loss"]
    parts = [
        f"label smoothing of {loss['label_smoothing']:g}" if loss.get("label_smoothing") else "",
        f"{loss['class_weights']} class weights" if loss.get("class_weights") else "",
        "augmented images" if any(spec.get("augmentation", {}).values()) else "",
    ]
    return f" In this job: {listed(parts)}." if any(parts) else ""


def resources(job: Job, trained_s: float) -> list[Resource]:
    """Time trained, processor time and memory, as far as they were measured."""
    tiles = []
    if trained_s:
        tiles.append(Resource("duration", "time trained", _TRAINED, trained_s, metric_info.duration(trained_s)))
    if job.cpu_seconds is not None:
        tiles.append(Resource("cpu", "CPU time", _CPU, job.cpu_seconds, metric_info.duration(job.cpu_seconds)))
    if job.peak_memory_bytes is not None:
        memory = metric_info.size(job.peak_memory_bytes)
        tiles.append(Resource("memory", "peak memory", _MEMORY, job.peak_memory_bytes, memory))
    return tiles
