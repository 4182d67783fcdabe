"""Summary and measured results of each preset, to help users select one.

This is the only place for the measured numbers that the page shows. Update them after new measurements:

- ``mnist``, ``fashion-mnist`` and GANs: medians of ``benchmarks/results/presets.json`` (a test compares them);
- classifiers on ``mnist-10k``: ``python -m benchmarks.presets.training``, median of seeds 0 to 2 (``classic``: seed 0);
- ``table``: ``benchmarks/results/tabular.json``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import ConfigDict

from service.spec.schema import Kind


@dataclass(frozen=True, slots=True)
class ReachedItem:
    """What a preset reaches at its last epoch."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    dataset: str
    metric: str
    value: float
    """Median of several seeds."""
    seconds: float
    """Training time on one core."""


@dataclass(frozen=True, slots=True)
class PresetInfo:
    """Summary and results of a preset."""

    summary: str
    reaches: tuple[ReachedItem, ...]


PRESET_INFO: Final[dict[Kind, dict[str, PresetInfo]]] = {
    Kind.CLASSIFIER: {
        "fast": PresetInfo(
            "One hidden layer, trained with momentum and a one-cycle schedule. Gives a first result in seconds.",
            (
                ReachedItem("mnist-10k", "val_accuracy", 0.961, 0.4),
                ReachedItem("mnist", "val_accuracy", 0.986, 3.5),
                ReachedItem("fashion-mnist", "val_accuracy", 0.851, 3.7),
            ),
        ),
        "best": PresetInfo(
            "Two hidden layers with batch normalization and dropout. The highest accuracy with dense layers only.",
            (
                ReachedItem("mnist-10k", "val_accuracy", 0.984, 11.8),
                ReachedItem("mnist", "val_accuracy", 0.993, 109),
                ReachedItem("fashion-mnist", "val_accuracy", 0.908, 113),
            ),
        ),
        "conv": PresetInfo(
            "A small convolutional network. The highest accuracy, with the fewest parameters. Photos use it unless a "
            "spec names another.",
            (
                ReachedItem("mnist-10k", "val_accuracy", 0.989, 22),
                ReachedItem("mnist", "val_accuracy", 0.994, 80),
                ReachedItem("fashion-mnist", "val_accuracy", 0.923, 76),
            ),
        ),
        "table": PresetInfo(
            "Two small hidden layers; tables use it unless a spec names another. Batches and epochs follow the rows.",
            (
                ReachedItem("iris", "val_accuracy", 0.951, 0.11),
                ReachedItem("breast-cancer", "val_accuracy", 0.97, 0.29),
            ),
        ),
        "classic": PresetInfo(
            "The historical baseline, for comparison: sigmoid units, squared error and plain gradient descent.",
            (ReachedItem("mnist-10k", "val_accuracy", 0.961, 68),),
        ),
    },
    Kind.REGRESSOR: {
        "table": PresetInfo(
            "Two small hidden layers; batches and epochs follow the number of rows.",
            (ReachedItem("diabetes", "val_rmse", 59.5, 0.22),),
        ),
    },
    Kind.GAN: {
        "stable": PresetInfo(
            "Dense networks, tuned to avoid mode collapse. The samples include all ten digits.",
            (ReachedItem("mnist-10k", "frechet_distance", 51, 55),),
        ),
        "best": PresetInfo(
            "Convolutional networks. The sharpest and most varied samples, in almost three times the training time "
            "of stable.",
            (ReachedItem("mnist-10k", "frechet_distance", 22, 143),),
        ),
        "classic": PresetInfo(
            "The historical baseline, for comparison: its tiny first weights hardly change. For 40 epochs all samples "
            "are the same grey square, then the same digit.",
            (ReachedItem("mnist-10k", "frechet_distance", 1200, 32),),
        ),
    },
}
