"""The reports that a running trainer yields."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.autograd.graph import Array

__all__ = ["BatchDone", "EpochDone"]


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A batch is done, and the epoch is not.

    Attributes:
        epoch: 1-based number of the current epoch.
        step: finished steps of the whole run.
        steps: steps of the whole run.
    """

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class EpochDone:
    """An epoch is done; ``state_dict()`` is available now.

    Attributes:
        epoch: number of finished epochs.
        epochs: number of epochs of the whole run, unless it stops early.
        step: finished steps of the whole run.
        metrics: metrics by name.
        confusion: counts on the validation data (classes, classes), with labels as rows; None for a GAN.
        is_best: whether it is better than all earlier epochs.
        is_last: whether the run ends with it, also by early stopping.
        scores: further metrics by name that follow from the weights; result digests do not cover them.
    """

    epoch: int
    epochs: int
    step: int
    metrics: dict[str, float]
    confusion: Array | None
    is_best: bool
    is_last: bool
    scores: dict[str, float] = field(default_factory=dict)
