"""What a trainer yields while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.autograd.graph import Array


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A batch is done; the epoch is not.

    Attributes:
        epoch: 1-based number of the epoch under way.
        step: finished steps of the whole run.
        steps: steps of the whole run.
    """

    epoch: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class EpochDone:
    """An epoch is done; now ``state_dict()`` may be taken.

    Attributes:
        epoch: finished epochs.
        epochs: epochs of the whole run, unless it is stopped early.
        step: finished steps of the whole run.
        metrics: numbers by name.
        confusion: (classes, classes) counts on the validation images, rows are labels; None for a GAN.
        is_best: whether no earlier epoch was as good.
        is_last: whether the run ends with it, also by early stopping.
        scores: further numbers by name, which no digest of a run covers: they follow from its weights.
    """

    epoch: int
    epochs: int
    step: int
    metrics: dict[str, float]
    confusion: Array | None
    is_best: bool
    is_last: bool
    scores: dict[str, float] = field(default_factory=dict)
