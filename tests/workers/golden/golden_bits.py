"""Digests of small trainings: ``python -m tests.workers.golden.golden_bits`` prints them, ``--update`` stores them.

The bits of a training depend on its spec, the NumPy build, the BLAS kernels and the CPU. So the trainings run
with ``TAPELINE_PORTABLE_BITS`` and one BLAS thread, and the file describes its machine next to the digests: they
cannot be compared on a machine that differs. ``--native`` uses the kernels for this CPU instead.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from workers.supervisor import child_process

GOLDEN_FILE = Path(__file__).parent / "bits.json"

DENSE = [{"units": 12, "activation": "tanh"}, {"units": 3, "activation": "softmax"}]
SMALL_CLASSIFIER: dict[str, Any] = {
    "kind": "classifier",
    "dataset": {"name": "small", "scale": [-1, 1]},
    "layers": DENSE,
}
SMALL_GAN: dict[str, Any] = {
    "kind": "gan",
    "preset": "classic",
    "dataset": {"name": "small", "scale": [-1, 1]},
    "latent": {"dim": 5},
    "generator": {"layers": [{"units": 9, "activation": "relu"}, {"units": 64, "activation": "tanh"}]},
    "discriminator": {
        "layers": [{"units": 8, "activation": "leaky_relu"}, {"units": 1, "activation": "sigmoid"}],
        "skip_every": None,
    },
    "initializer": {"name": "glorot"},
    "optimizer": {"name": "adam", "learning_rate": 0.01, "beta1": 0.5},
}
CONVOLUTIONS: list[dict[str, Any]] = [
    {"type": "conv2d", "filters": 4, "activation": "linear"},
    {"type": "batch_norm", "activation": "leaky_relu", "momentum": 0.8, "negative_slope": 0.1},
    {"type": "max_pool2d"},
    {"type": "dropout", "rate": 0.1},
    {"type": "conv2d", "filters": 2, "kernel": 2, "activation": "tanh"},  # computed from patches of its output
    {"type": "upsample2d"},
    {"type": "conv2d", "filters": 5, "kernel": 3, "stride": 2, "padding": "valid", "activation": "sigmoid"},
    {"type": "flatten"},
    {"units": 8, "activation": "linear"},
    {"type": "batch_norm", "activation": "relu"},
    {"units": 3, "activation": "softmax"},
]
CONVOLUTIONAL_GAN: dict[str, Any] = {
    **SMALL_GAN,
    "generator": {
        "layers": [
            {"units": 12, "activation": "linear"},
            {"type": "batch_norm", "activation": "relu"},
            {"type": "reshape", "shape": [2, 2, 3]},
            {"type": "upsample2d", "size": 4},
            {"type": "conv2d", "filters": 1, "activation": "tanh"},
        ],
        "average_decay": 0.9,
    },
    "discriminator": {
        "layers": [
            {"type": "conv2d", "filters": 4, "stride": 2, "activation": "leaky_relu"},
            {"type": "conv2d", "filters": 3, "kernel": 2, "activation": "linear"},
            {"type": "batch_norm", "activation": "leaky_relu"},
            {"type": "flatten"},
            {"type": "dropout", "rate": 0.2},
            {"units": 1, "activation": "sigmoid"},
        ],
        "skip_every": None,
        "label_smoothing": 0.1,
    },
    "schedule": {"name": "cosine"},
}
DISCRIMINATOR: dict[str, Any] = {
    "layers": [{"units": 8, "activation": "leaky_relu"}, {"units": 1, "activation": "linear"}],
    "skip_every": None,
}
SPECS: dict[str, dict[str, Any]] = {
    **{f"classifier {name}": {"kind": "classifier", "preset": name} for name in ("classic", "fast", "best", "conv")},
    "classifier table": {"kind": "classifier", "preset": "table", "dataset": {"name": "iris"}},
    **{f"gan {name}": {"kind": "gan", "preset": name} for name in ("classic", "stable", "best")},
    "squared error": SMALL_CLASSIFIER
    | {
        "loss": {"name": "squared_error", "label_smoothing": 0.1},
        "initializer": {"name": "uniform", "scale": 0.3},
        "optimizer": {"name": "sgd", "learning_rate": 0.05},
        "schedule": {"name": "constant"},
        "shuffle": False,
    },
    "binary cross-entropy": SMALL_CLASSIFIER
    | {
        "layers": [{"units": 12, "activation": "sigmoid"}, {"units": 3, "activation": "sigmoid"}],
        "loss": {"name": "binary_cross_entropy", "reduction": "sum", "label_smoothing": 0.1},
        "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9},
        "schedule": {"name": "step", "at_epochs": [1], "factor": 0.5},
    },
    "nesterov, decay, clipping": SMALL_CLASSIFIER
    | {
        "loss": {"name": "softmax_cross_entropy", "label_smoothing": 0.1},
        "optimizer": {
            "name": "sgd",
            "learning_rate": 0.1,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 0.01,
            "decay_biases": False,
            "clip_norm": 0.5,
        },
        "schedule": {"name": "one_cycle"},
    },
    "adam": SMALL_CLASSIFIER
    | {
        "layers": [{"units": 12, "activation": "leaky_relu"}, {"type": "dropout", "rate": 0.3}, DENSE[-1]],
        "optimizer": {"name": "adam", "learning_rate": 0.01, "clip_norm": 1.0},
        "schedule": {"name": "cosine", "warmup_fraction": 0.3},
    },
    "adamw, averaging, early stopping": SMALL_CLASSIFIER
    | {
        "optimizer": {"name": "adamw", "learning_rate": 0.01, "decay_biases": False},
        "initializer": {"name": "he"},
        "average_decay": 0.9,
        "early_stopping": {"patience": 1, "metric": "val_accuracy"},
        "epochs": 6,
    },
    "shifts": SMALL_CLASSIFIER | {"augmentation": {"max_shift": 2}},
    "float64": SMALL_CLASSIFIER | {"dtype": "float64", "loss": {"name": "softmax_cross_entropy", "reduction": "sum"}},
    "convolutions": SMALL_CLASSIFIER | {"layers": CONVOLUTIONS},
    "convolutions, float64": SMALL_CLASSIFIER | {"layers": CONVOLUTIONS, "dtype": "float64"},
    "small gan": SMALL_GAN,
    "gan, sum, skipping": SMALL_GAN
    | {
        "discriminator": SMALL_GAN["discriminator"] | {"skip_every": 3},
        "loss": {"name": "binary_cross_entropy", "reduction": "sum"},
        "optimizer": {"name": "sgd", "learning_rate": 0.01, "momentum": 0.5, "clip_norm": 2.0},
    },
    "gan, two optimizers, float64": SMALL_GAN
    | {
        "latent": {"dim": 5, "distribution": "normal"},
        "generator": SMALL_GAN["generator"]
        | {"optimizer": {"name": "adamw", "learning_rate": 0.01}, "schedule": {"name": "one_cycle"}},
        "dtype": "float64",
    },
    "convolutional gan": CONVOLUTIONAL_GAN,
    "convolutional gan, float64": CONVOLUTIONAL_GAN | {"dtype": "float64"},
    "residual, layer norm, accumulated": SMALL_CLASSIFIER
    | {
        "layers": [
            {"type": "conv2d", "filters": 4, "stride": 2, "activation": "silu"},
            {
                "type": "residual",
                "layers": [
                    {"type": "conv2d", "filters": 4, "activation": "linear"},
                    {"type": "layer_norm", "activation": "gelu"},
                ],
                "activation": "elu",
            },
            {"type": "avg_pool2d"},
            {"type": "global_avg_pool2d"},
            {"units": 3, "activation": "softmax"},
        ],
        "accumulate": 2,
    },
    "wasserstein, gradient penalty, packs": SMALL_GAN
    | {"loss": {"name": "wasserstein"}, "discriminator": DISCRIMINATOR | {"gradient_penalty": 10.0, "pack": 2}},
    "hinge, spectral norm, classes, critic steps": SMALL_GAN
    | {
        "loss": {"name": "hinge"},
        "discriminator": DISCRIMINATOR | {"spectral_norm": True, "critic_steps": 2},
        "conditional": True,
    },
    "least squares, r1, transposed": CONVOLUTIONAL_GAN
    | {
        "loss": {"name": "least_squares"},
        "generator": {
            "layers": [
                {"units": 16, "activation": "softplus"},
                {"type": "reshape", "shape": [2, 2, 4]},
                {"type": "conv2d_transpose", "filters": 3, "activation": "relu"},
                {"type": "conv2d_transpose", "filters": 1, "activation": "tanh"},
            ]
        },
        "discriminator": DISCRIMINATOR | {"r1": 1.0},
        "accumulate": 2,
    },
}


FORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "fork": ("adam", {"epochs": 4, "schedule": {"name": "constant"}}),
    "fork, another optimizer": ("nesterov, decay, clipping", {"epochs": 4, "optimizer": {"name": "adam"}}),
    "fork of a gan": ("small gan", {"epochs": 4, "batch_size": 11}),
}
"""Fork name -> its parent in ``SPECS``, whose last checkpoint it continues, and its changes to the spec."""


def digests() -> dict[str, dict[str, str]]:
    """For each spec and fork, the digests of its last checkpoint and of its metrics, weights and samples."""
    import numpy as np  # imported late, like those below: importing NumPy selects the kernels

    from engine import EpochDone, checkpoint
    from engine.checkpoint import State
    from service.datasets import cache
    from service.datasets.cache import Dataset, Examples
    from service.datasets.formats.array_folders import ArrayCache
    from service.datasets.info import DatasetInfo, DatasetKind
    from service.datasets.tables.preprocessing import Preprocessing
    from service.spec.validation import resolve
    from workers.training import build, fork_state
    from workers.training.epochs.snapshot import weights_digest

    def images(side: int, classes: int) -> Dataset:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (60, side, side), np.uint8)
        labels = (np.arange(60) % classes).astype(np.uint8)
        info = DatasetInfo(
            name="small",
            title="small",
            image_shape=(side, side),
            classes=classes,
            train_count=44,
            validation_count=16,
            class_names=tuple(map(str, range(classes))),
            source="",
            licence="",
            sha256=None,
            available=True,
        )
        return Dataset(info, Examples(images[:44], labels[:44]), Examples(images[44:], labels[44:]), "")

    with tempfile.TemporaryDirectory() as folder:
        iris = cache.load("iris", Path(folder), cache=ArrayCache(Path(folder)))
    datasets = {"small": images(8, 3), "iris": iris}
    states: dict[str, State] = {}

    def digest(name: str, spec: dict[str, Any], parent: str | None = None) -> dict[str, str]:
        resolved = resolve({"seed": 7, "epochs": 2, "batch_size": 8, **spec})
        dataset = datasets.get(resolved.dataset.name) or images(28, 10)
        is_table = dataset.info.kind is DatasetKind.TABLE
        fitted = Preprocessing.fit(dataset.info.columns, dataset.train.inputs) if is_table else None
        trainer = build.trainer(resolved, dataset, fitted)
        if parent:
            trainer.load_state_dict(fork_state.adapt(states[parent], resolved)[0])
        metrics = [report.metrics for report in trainer.run() if isinstance(report, EpochDone)]
        samples = np.zeros(0) if is_table else trainer.samples(9)
        sample_array = samples if isinstance(samples, np.ndarray) else samples.confidences
        state = trainer.state_dict()
        states[name] = State(state.tensors, state.state, resolved.model_dump(mode="json"))
        results = json.dumps([metrics, weights_digest(state), hashlib.sha256(sample_array.tobytes()).hexdigest()])
        return {
            "checkpoint": hashlib.sha256(checkpoint.dumps(state)).hexdigest(),
            "results": hashlib.sha256(results.encode()).hexdigest(),
        }

    results = {name: digest(name, spec) for name, spec in SPECS.items()}
    return results | {
        name: digest(name, {**SPECS[parent], **changes}, parent) for name, (parent, changes) in FORKS.items()
    }


def main() -> None:
    """Train, and print or store the digests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--native", action="store_true", help="use the kernels of this CPU")
    parser.add_argument("--update", action="store_true", help=f"store them in {GOLDEN_FILE.name}")
    options = parser.parse_args()
    child_process.prepare(portable_bits=not options.native)
    current = digests()
    from workers.training.provenance import machine

    text = json.dumps({"facts": dict(machine()), "digests": current}, indent=1) + "\n"
    if options.update:
        GOLDEN_FILE.parent.mkdir(exist_ok=True)
        GOLDEN_FILE.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
