"""The independent reference classifier: a small CNN that was not used to tune any preset.

The bundled reference classifier selects a GAN's best checkpoint, and its distances guided the tuning of the presets.
This one is the preset ``conv`` with another seed, trained on the full MNIST dataset; its features are the 128 inputs of
its last layer. Its metric has a separate name, ``independent_frechet_distance``, because distances of different
classifiers are not comparable.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine import ClassifierTrainer, EpochDone, FeatureStatistics, ReferenceClassifier, checkpoint, initializers
from engine.checkpoint import State
from engine.evaluation.gan_metrics import classify
from service.datasets.cache import Dataset
from service.kinds.supervised.model import network as supervised
from service.spec.schema import ClassifierSpec
from service.spec.validation import resolve, spec_hash
from workers.training import build

SPEC: dict[str, Any] = {"kind": "classifier", "preset": "conv", "dataset": {"name": "mnist"}, "seed": 1000}
METRIC: Final = "independent_frechet_distance"
IMAGE_SHAPE: Final = (28, 28)


def fingerprint() -> str:
    return spec_hash(resolve(SPEC))


def make(mnist: Dataset, emit: Callable[[dict[str, Any]], None]) -> State:
    """Train the classifier, and compute the statistics of its features on the training images."""
    resolved = resolve(SPEC)
    trainer = build.trainer(resolved, mnist)
    assert isinstance(trainer, ClassifierTrainer)
    accuracy = 0.0
    for report in trainer.run():
        if isinstance(report, EpochDone):
            accuracy = report.metrics["val_accuracy"]
            emit({"epoch": report.epoch, "epochs": report.epochs})
    low, high = resolved.dataset.scale
    real = FeatureStatistics.of(classify(trainer.model, mnist.train.inputs, (low, high)).features)
    tensors = trainer.model.state_dict() | {"real.mean": real.mean, "real.covariance": real.covariance}
    return State(tensors, {"accuracy": accuracy}, resolved.model_dump(mode="json"))


def load(path: Path) -> ReferenceClassifier:
    """The classifier with the statistics of real digits."""
    state, resolved = checkpoint.load(path), resolve(SPEC)
    assert isinstance(resolved, ClassifierSpec)
    model = supervised(resolved, IMAGE_SHAPE, initializers.he_normal)
    model.load_state_dict(state.tensors)
    low, high = resolved.dataset.scale
    return ReferenceClassifier(
        model, FeatureStatistics(state.tensors["real.mean"], state.tensors["real.covariance"]), (low, high)
    )


def score(reference: ReferenceClassifier, images: np.ndarray[Any, Any]) -> float:
    """The independent Fréchet distance of uint8 images."""
    return round(reference.score(images)["frechet_distance"], 5)


def calibrate(path: Path, mnist: Dataset, count: int) -> dict[str, Any]:
    """The scores of real test digits: of the first ``count``, as many as the samples of a GAN, and of all."""
    reference, real = load(path), mnist.validation.inputs
    return {
        "fingerprint": fingerprint(),
        "accuracy": checkpoint.load(path).state["accuracy"],
        "test digits": {str(n): score(reference, real[:n]) for n in (count, len(real))},
    }
