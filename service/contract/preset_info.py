"""What each preset is, and what it reaches: the words and numbers that a person chooses by.

All measured numbers that the page shows are here and nowhere else. Those on ``mnist``, ``fashion-mnist`` and of GANs
are the medians of ``benchmarks/results/presets.json``, which a test compares; those of classifiers on ``mnist-10k``
are of ``python -m benchmarks.presets.training``, the median of seeds 0 to 2 (``seed``: of seed 0). After new
measurements, change them here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.contract.spec import Kind


@dataclass(frozen=True, slots=True)
class Reached:
    """What a preset reaches at its last epoch."""

    dataset: str
    metric: str
    value: float
    seconds: float
    """Training time on one core."""


@dataclass(frozen=True, slots=True)
class PresetInfo:
    """What to know of a preset before choosing it."""

    summary: str
    reaches: tuple[Reached, ...]


PRESET_INFO: Final[dict[Kind, dict[str, PresetInfo]]] = {
    Kind.CLASSIFIER: {
        "fast": PresetInfo(
            "One hidden layer, trained with momentum and a one-cycle schedule. A first result in seconds.",
            (
                Reached("mnist-10k", "val_accuracy", 0.961, 0.4),
                Reached("mnist", "val_accuracy", 0.986, 3.5),
                Reached("fashion-mnist", "val_accuracy", 0.851, 3.7),
            ),
        ),
        "best": PresetInfo(
            "Two hidden layers with batch normalization and dropout: the most that dense layers reach.",
            (
                Reached("mnist-10k", "val_accuracy", 0.984, 11.8),
                Reached("mnist", "val_accuracy", 0.993, 109),
                Reached("fashion-mnist", "val_accuracy", 0.908, 113),
            ),
        ),
        "conv": PresetInfo(
            "A small convolutional network: the highest accuracy, and the fewest parameters.",
            (
                Reached("mnist-10k", "val_accuracy", 0.989, 22),
                Reached("mnist", "val_accuracy", 0.994, 150),
                Reached("fashion-mnist", "val_accuracy", 0.924, 161),
            ),
        ),
        "seed": PresetInfo(
            "The historical baseline: sigmoid units, squared error and plain gradient descent. Use it to compare.",
            (Reached("mnist-10k", "val_accuracy", 0.961, 68),),
        ),
    },
    Kind.GAN: {
        "stable": PresetInfo(
            "Dense networks, trained so that they do not collapse. All ten digits appear among the samples.",
            (Reached("mnist-10k", "frechet_distance", 92, 82),),
        ),
        "best": PresetInfo(
            "Convolutional networks: the sharpest and most varied samples, at four times the time.",
            (Reached("mnist-10k", "frechet_distance", 38, 316),),
        ),
        "seed": PresetInfo(
            "The historical baseline. It collapses: all samples soon show the same digit. Use it to compare.",
            (Reached("mnist-10k", "frechet_distance", 1200, 32),),
        ),
    },
}
