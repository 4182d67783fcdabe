"""The presets of classifiers, and what each reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.schema.preset_info import PresetInfo, ReachedItem

PRESETS: Final[Mapping[str, dict[str, Any]]] = {
    # The historical baseline: 98.3% on full MNIST after about 470 epochs.
    "classic": {
        "dataset": {"name": "mnist-10k", "scale": [-1, 1]},
        "layers": [{"units": 392, "activation": "sigmoid"}, {"units": 10, "activation": "sigmoid"}],
        "initializer": {"name": "uniform", "scale": 0.01},
        "loss": {"name": "squared_error", "reduction": "sum"},
        "optimizer": {"name": "sgd", "learning_rate": 0.008},
        "schedule": {"name": "step", "at_epochs": [101], "factor": 0.7},
        "epochs": 470,
        "batch_size": 50,
        "shuffle": False,
        "seed": 0,
    },
    # The same architecture with current training methods: 98.5% on MNIST in four seconds. With shifts, three epochs
    # replace four; an update costs the same for any batch size, so large batches save time.
    "fast": {
        "dataset": {"name": "mnist-10k", "scale": [0, 1]},
        "layers": [{"units": 392, "activation": "relu"}, {"units": 10, "activation": "softmax"}],
        "initializer": {"name": "he"},
        "loss": {"name": "softmax_cross_entropy", "label_smoothing": 0.05},
        "optimizer": {"name": "sgd", "learning_rate": 0.4, "momentum": 0.9, "nesterov": True},
        "schedule": {"name": "one_cycle"},
        "augmentation": {"max_shift": 1},
        "epochs": 3,
        "batch_size": 200,
        "seed": 0,
    },
    # The highest accuracy with dense layers only. Batch normalization adds one point on Fashion-MNIST at the same
    # number of epochs; shifts help on digits.
    "best": {
        "dataset": {"name": "mnist-10k", "scale": [0, 1]},
        "layers": [
            {"units": 512, "activation": "linear"},
            {"type": "batch_norm", "activation": "relu"},
            {"type": "dropout", "rate": 0.1},
            {"units": 256, "activation": "linear"},
            {"type": "batch_norm", "activation": "relu"},
            {"type": "dropout", "rate": 0.1},
            {"units": 10, "activation": "softmax"},
        ],
        "initializer": {"name": "he"},
        "loss": {"name": "softmax_cross_entropy", "label_smoothing": 0.1},
        "optimizer": {"name": "adamw", "learning_rate": 0.002, "weight_decay": 0.02},
        "schedule": {"name": "one_cycle"},
        "augmentation": {"max_shift": 1},
        "epochs": 30,
        "batch_size": 100,
        "seed": 0,
    },
    # Convolutions: 99.43% on full MNIST (seed 0), and 92% on Fashion-MNIST, whose fine details suffer from larger
    # shifts or more dropout. Pooling precedes normalization, which then costs a quarter.
    "conv": {
        "dataset": {"name": "mnist-10k", "scale": [0, 1]},
        "layers": [
            {"type": "conv2d", "filters": 16, "kernel": 3, "activation": "linear"},
            {"type": "max_pool2d", "size": 2},
            {"type": "batch_norm", "activation": "relu"},
            {"type": "conv2d", "filters": 32, "kernel": 3, "activation": "linear"},
            {"type": "max_pool2d", "size": 2},
            {"type": "batch_norm", "activation": "relu"},
            {"type": "flatten"},
            {"type": "dropout", "rate": 0.2},
            {"units": 128, "activation": "relu"},
            {"type": "dropout", "rate": 0.2},
            {"units": 10, "activation": "softmax"},
        ],
        "initializer": {"name": "he"},
        "loss": {"name": "softmax_cross_entropy", "label_smoothing": 0.1},
        "optimizer": {"name": "adamw", "learning_rate": 0.003, "weight_decay": 0.02},
        "schedule": {"name": "one_cycle"},
        "augmentation": {"max_shift": 1},
        "epochs": 12,
        "batch_size": 100,
        "seed": 0,
    },
    # For tables. Batch size and epochs fit a few hundred rows; they are adapted to larger tables. The smaller
    # initial weights of glorot are better than those of he on small tables: 96.0% instead of 93.5% on iris.
    "table": {
        "dataset": {"name": "iris", "scale": [0, 1]},
        "layers": [
            {"units": 128, "activation": "relu"},
            {"units": 64, "activation": "relu"},
            {"units": 3, "activation": "softmax"},
        ],
        "initializer": {"name": "glorot"},
        "loss": {"name": "softmax_cross_entropy"},
        "optimizer": {"name": "adamw", "learning_rate": 0.002, "weight_decay": 0.02},
        "schedule": {"name": "one_cycle"},
        "epochs": 60,
        "batch_size": 32,
        "seed": 0,
    },
}
INFO: Final[Mapping[str, PresetInfo]] = {
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
}
