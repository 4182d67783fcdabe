"""Train the reference classifier of digits: ``make reference-classifier DATA=FOLDER``.

It is trained with Tapeline on all of MNIST. The file also contains the statistics of its last hidden layer's outputs on
the training images. The same machine gives the same bytes; ``--check`` compares them with the shipped file, from which
another type of processor may differ in the last digits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final, cast

from engine import BatchDone, ClassifierTrainer, EpochDone, FeatureStatistics, checkpoint
from engine.checkpoint import State
from engine.evaluation.gan_metrics import classify
from service.datasets import cache
from service.datasets.builtins import BUILT_IN
from service.datasets.cache import Dataset
from service.datasets.formats.array_folders import ArrayCache
from service.spec.validation import resolve
from workers.training import build

SPEC: Final[dict[str, Any]] = {
    "kind": "classifier",
    "name": "judge of digits",
    "dataset": {"name": "mnist", "scale": [0, 1]},
    # Small and dense: it evaluates a thousand samples in about 20 ms.
    "layers": [
        {"units": 256, "activation": "relu"},
        {"type": "dropout", "rate": 0.1},
        {"units": 128, "activation": "relu"},
        {"type": "dropout", "rate": 0.1},
        {"units": 10, "activation": "softmax"},
    ],
    "initializer": {"name": "he"},
    # No label smoothing, which would distort its confidence.
    "loss": {"name": "softmax_cross_entropy", "label_smoothing": 0.0},
    "optimizer": {"name": "adam", "learning_rate": 0.003},
    "schedule": {"name": "one_cycle"},
    "augmentation": {"max_shift": 2},
    "epochs": 40,
    "batch_size": 100,
    "seed": 0,
}


def main() -> None:
    """Read the command line, train, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", type=Path, help="folder of datasets, as TAPELINE_DATA; mnist is downloaded into it if missing"
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="folder for unpacked arrays")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file would differ")
    options = parser.parse_args()
    target = BUILT_IN["mnist"].reference_classifier
    if target is None:
        raise SystemExit("the dataset mnist has no reference classifier")
    content = checkpoint.dumps(make(cache.load("mnist", options.data, cache=ArrayCache(options.cache))))
    if not options.check:
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
        _print_line(f"{target}: {len(content):,} bytes")
    elif content != target.read_bytes():
        raise SystemExit(f"{target} differs from the result on this machine")


def make(dataset: Dataset) -> State:
    """Train the classifier and compute the statistics of the training images."""
    resolved = resolve(SPEC)
    trainer = cast(ClassifierTrainer, build.trainer(resolved, dataset))
    accuracy = 0.0
    for report in trainer.run():
        match report:
            case EpochDone():
                accuracy = report.metrics["val_accuracy"]
                _print_line(f"epoch {report.epoch} of {report.epochs}: {accuracy:.2%} of the test images")
            case BatchDone():
                pass
    low, high = resolved.dataset.scale
    real = FeatureStatistics.of(classify(trainer.model, dataset.train.inputs, (low, high)).features)
    tensors = trainer.model.state_dict() | {"real.mean": real.mean, "real.covariance": real.covariance}
    return State(tensors, {"val_accuracy": accuracy}, resolved.model_dump(mode="json"))


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
