"""The rows of the table, and functions that turn trainers into contestants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine import BatchDone, ClassifierTrainer, GanTrainer, ImageData

Work = Callable[[], Any]


@dataclass
class Row:
    """One line of the table.

    Attributes:
        contestants: ``engine`` and any of ``tape``, ``floor``, ``handwritten``, ``torch``, ``torch_floor``, ``jax``:
            each does one piece of the same work.
        unit: number of pieces that belong together.
    """

    name: str
    contestants: dict[str, Work]
    unit: int = 1


def stepper(trainer: ClassifierTrainer | GanTrainer) -> Work:
    """A function that runs one training step per call."""
    reports = trainer.run()

    def step() -> None:
        while not isinstance(next(reports), BatchDone):
            pass

    return step


def whole_batches(data: ImageData, batch: int) -> ImageData:
    """The first images, as many as fill whole batches."""
    count = len(data) // batch * batch
    labels = None if data.labels is None else data.labels[:count]
    return ImageData(data.images[:count], labels, data.scale, classes=10)


def in_turn(works: list[Work]) -> Work:
    """A function whose calls run these functions in turn."""
    position = -1

    def run() -> None:
        nonlocal position
        position = (position + 1) % len(works)
        works[position]()

    return run
