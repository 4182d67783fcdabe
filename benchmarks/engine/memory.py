"""Memory of a training step, measured by tracemalloc, to which NumPy reports all arrays."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

from benchmarks.engine import cases, digits
from benchmarks.engine.digits import CLASSIFIER, DISCRIMINATOR, GENERATOR, Sizes
from benchmarks.engine.rows import stepper, whole_batches
from engine import SGD, ClassifierTrainer, GanTrainer


def needed_bytes(passes: list[tuple[Sizes, int]], networks: list[Sizes]) -> dict[str, int]:
    """Minimum number of bytes that a step requires, in float32.

    Args:
        passes: (layers, batch) of each forward pass: its input and the output of every layer are activations.
    """
    parameters = 4 * sum((inputs + 1) * units for sizes in networks for inputs, units, _ in sizes)
    activations = 4 * sum(batch * (sizes[0][0] + sum(units for _, units, _ in sizes)) for sizes, batch in passes)
    return {"parameters": parameters, "gradients": parameters, "activations": activations}


def measure(make: Callable[[], ClassifierTrainer | GanTrainer], steps: int = 9) -> dict[str, int]:
    """Bytes of a run: ``first_peak`` of the first steps, ``peak`` of later ones, ``allocated`` by one of them at most.

    Includes parameters, but not images. All steps are in the first epoch, which has 16 of batch 512: the first step of
    an epoch is also run on the tape, like the first ones here.
    """
    tracemalloc.start()
    try:
        trainer = make()
        step = stepper(trainer)
        before = tracemalloc.get_traced_memory()[0]
        before -= sum(tensor.nbytes for tensor in _parameters(trainer))
        tracemalloc.reset_peak()
        for _ in range(6):  # a GAN has two kinds of steps; each is traced, compared with the tape, and bound to memory
            step()
        first_peak = tracemalloc.get_traced_memory()[1]
        allocated = peak = 0
        for _ in range(steps):
            tracemalloc.reset_peak()
            current_bytes = tracemalloc.get_traced_memory()[0]
            step()
            peak_bytes = tracemalloc.get_traced_memory()[1]
            allocated, peak = max(allocated, peak_bytes - current_bytes), max(peak, peak_bytes)
        return {"first_peak": first_peak - before, "peak": peak - before, "allocated": allocated}
    finally:
        tracemalloc.stop()


def _parameters(trainer: ClassifierTrainer | GanTrainer) -> list[Any]:
    if isinstance(trainer, ClassifierTrainer):
        return trainer.model.parameters
    return trainer.generator.parameters + trainer.discriminator.parameters


def report() -> list[dict[str, Any]]:
    """The memory of the steps in the table: the required memory, and that allocated with and without replay."""
    data = digits.training()
    rows = []
    for batch in (50, 512):
        images = whole_batches(data, batch)
        rows.append(
            {"name": f"classifier step, batch {batch}"}
            | needed_bytes([(CLASSIFIER, batch)], [CLASSIFIER])
            | _measure_both(
                lambda replay, images=images, batch=batch: cases.classifier(images, CLASSIFIER, batch, replay=replay)
            )
        )
    passes = [(GENERATOR, 100), (DISCRIMINATOR, 100), (DISCRIMINATOR, 100)]
    rows.append(
        {"name": "GAN step, batch 100"}
        | needed_bytes(passes, [GENERATOR, DISCRIMINATOR])
        | _measure_both(lambda replay: cases.gan(data, 100, 3, lambda: SGD(cases.RATE), replay))
    )
    return rows


def _measure_both(make: Callable[..., ClassifierTrainer | GanTrainer]) -> dict[str, int]:
    replayed, plain = measure(lambda: make(replay=True)), measure(lambda: make(replay=False))
    return replayed | {f"tape_{name}": value for name, value in plain.items()}
