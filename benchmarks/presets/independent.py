"""The outside judge: a small CNN that no preset has ever seen, so that its distances are nobody's target.

The judge that ships with the package picks a GAN's best checkpoint, and was looked at while presets were made; it
should not mark them too. This one is the preset ``conv`` with a seed of its own, trained on the whole of MNIST; its
features are the 128 numbers that go into its last layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine import ClassifierTrainer, EpochDone, FeatureStatistics, Judge, checkpoint, initializers
from engine.checkpoint import State
from engine.judge import look
from service import networks
from service.contract.spec import ClassifierSpec
from service.contract.validation import resolve, spec_hash
from service.datasets import Dataset
from workers import build

SPEC: dict[str, Any] = {"kind": "classifier", "preset": "conv", "dataset": {"name": "mnist"}, "seed": 1000}


def fingerprint() -> str:
    return spec_hash(resolve(SPEC))


def make(mnist: Dataset, say: Callable[[dict[str, Any]], None]) -> State:
    """Train the judge, and let it see the training images."""
    resolved = resolve(SPEC)
    trainer = build.trainer(resolved, mnist)
    assert isinstance(trainer, ClassifierTrainer)
    accuracy = 0.0
    for report in trainer.run():
        if isinstance(report, EpochDone):
            accuracy = report.metrics["val_accuracy"]
            say({"epoch": report.epoch, "epochs": report.epochs})
    low, high = resolved.dataset.scale
    real = FeatureStatistics.of(look(trainer.model, mnist.train_images, (low, high)).features)
    tensors = trainer.model.state_dict() | {"real.mean": real.mean, "real.covariance": real.covariance}
    return State(tensors, {"accuracy": accuracy}, resolved.model_dump(mode="json"))


def load(path: Path, digits: Dataset) -> Judge:
    """The judge, for images of the size of ``digits``."""
    kept, resolved = checkpoint.load(path), resolve(SPEC)
    assert isinstance(resolved, ClassifierSpec)
    model = networks.classifier(resolved, digits.info.image_shape, initializers.he_normal)
    model.load_state_dict(kept.tensors)
    low, high = resolved.dataset.scale
    return Judge(model, FeatureStatistics(kept.tensors["real.mean"], kept.tensors["real.covariance"]), (low, high))


def score(judge: Judge, images: np.ndarray[Any, Any]) -> dict[str, float]:
    """The judge's scores of images, with the divergence of the classes' shares from equal ones."""
    scores = judge.score(images)
    return scores | {"kl_to_uniform": (1 - scores["class_entropy"]) * math.log(judge.model.units)}


def calibrate(path: Path, mnist: Dataset, count: int) -> dict[str, Any]:
    """What the judge says of real digits that it was not trained on: as many as it sees of a GAN, and all."""
    judge, real = load(path, mnist), mnist.validation_images
    return {
        "judge": fingerprint(),
        "accuracy": checkpoint.load(path).state["accuracy"],
        "test digits": {
            str(n): {name: round(value, 5) for name, value in score(judge, real[:n]).items()}
            for n in (count, len(real))
        },
    }
