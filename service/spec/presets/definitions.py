"""The presets. A field of a spec overrides that of its preset."""

from __future__ import annotations

from typing import Any, Final

from service.spec.schema import Kind

DEFAULT_PRESET: Final = {Kind.CLASSIFIER: "fast", Kind.REGRESSOR: "table", Kind.GAN: "stable"}

FORMER_NAMES: Final = {"seed": "classic"}

_GENERATOR: Final = [
    {"units": 200, "activation": "tanh"},
    {"units": 400, "activation": "tanh"},
    {"units": 784, "activation": "tanh"},
]

PRESETS: Final[dict[Kind, dict[str, dict[str, Any]]]] = {
    Kind.CLASSIFIER: {
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
    },
    Kind.REGRESSOR: {
        # As for classes, with more weight decay: with 0.02, the error on a few hundred rows (diabetes) is a tenth
        # higher, and on larger tables it is the same.
        "table": {
            "dataset": {"name": "diabetes", "scale": [0, 1]},
            "layers": [
                {"units": 128, "activation": "relu"},
                {"units": 64, "activation": "relu"},
                {"units": 1, "activation": "linear"},
            ],
            "initializer": {"name": "glorot"},
            "loss": {"name": "squared_error"},
            "optimizer": {"name": "adamw", "learning_rate": 0.002, "weight_decay": 0.4},
            "schedule": {"name": "one_cycle"},
            "epochs": 60,
            "batch_size": 32,
            "seed": 0,
        },
    },
    Kind.GAN: {
        "classic": {
            "dataset": {"name": "mnist-10k", "scale": [-1, 1]},
            "latent": {"dim": 100, "distribution": "uniform"},
            "generator": {"layers": _GENERATOR},
            "discriminator": {
                "layers": [
                    {"units": 400, "activation": "leaky_relu", "negative_slope": 0.2},
                    {"units": 50, "activation": "leaky_relu", "negative_slope": 0.2},
                    {"units": 1, "activation": "sigmoid"},
                ],
                "skip_every": 3,
                "schedule": {"name": "step", "at_epochs": [3], "factor": 0.5},
            },
            "initializer": {"name": "uniform", "scale": 0.001},
            "loss": {"name": "binary_cross_entropy", "reduction": "sum"},
            "optimizer": {"name": "sgd", "learning_rate": 0.0003},
            "epochs": 75,
            "batch_size": 100,
            "shuffle": False,
            "seed": 0,
        },
        # The networks of the baseline, trained so that they do not collapse. The discriminator is updated in every
        # step: skipping every third makes rare digits rarer. Samples use averaged weights, so that the learning rate
        # can stay high to the end. R1 halves the Fréchet distance that dropout and label smoothing reach in the same
        # time; a falling learning rate doubles it.
        "stable": {
            "dataset": {"name": "mnist-10k", "scale": [-1, 1]},
            "latent": {"dim": 100, "distribution": "normal"},
            "generator": {"layers": _GENERATOR, "average_decay": 0.999},
            "discriminator": {
                "layers": [
                    {"units": 400, "activation": "leaky_relu", "negative_slope": 0.2},
                    {"units": 50, "activation": "leaky_relu", "negative_slope": 0.2},
                    {"units": 1, "activation": "sigmoid"},
                ],
                "r1": 0.5,
            },
            "initializer": {"name": "glorot"},
            "loss": {"name": "binary_cross_entropy"},
            "optimizer": {"name": "adam", "learning_rate": 0.001, "beta1": 0.5},
            "epochs": 90,
            "batch_size": 100,
            "seed": 0,
        },
        # Convolutions. The generator's follow two dense layers that lay out the digit. The discriminator's precede a
        # dense layer that sees the whole digit; without it, samples are clear strokes that do not form digits. R1, a
        # high learning rate and averaged weights reach in 17 epochs what dropout and a falling rate do in 20.
        "best": {
            "dataset": {"name": "mnist-10k", "scale": [-1, 1]},
            "latent": {"dim": 64, "distribution": "normal"},
            "generator": {
                "layers": [
                    {"units": 256, "activation": "linear"},
                    {"type": "batch_norm", "activation": "relu"},
                    {"units": 2352, "activation": "linear"},
                    {"type": "batch_norm", "activation": "relu"},
                    {"type": "reshape", "shape": [7, 7, 48]},
                    {"type": "upsample2d", "size": 2},
                    {"type": "conv2d", "filters": 32, "kernel": 3, "activation": "linear"},
                    {"type": "batch_norm", "activation": "relu"},
                    {"type": "upsample2d", "size": 2},
                    {"type": "conv2d", "filters": 1, "kernel": 5, "activation": "tanh"},
                ],
                "average_decay": 0.999,
            },
            "discriminator": {
                "layers": [
                    {"type": "conv2d", "filters": 24, "kernel": 5, "stride": 2, "activation": "leaky_relu"},
                    {"type": "conv2d", "filters": 48, "kernel": 3, "stride": 2, "activation": "leaky_relu"},
                    {"type": "flatten"},
                    {"units": 256, "activation": "leaky_relu"},
                    {"units": 1, "activation": "sigmoid"},
                ],
                "r1": 1.0,
            },
            "initializer": {"name": "glorot"},
            "loss": {"name": "binary_cross_entropy"},
            "optimizer": {"name": "adam", "learning_rate": 0.001, "beta1": 0.5},
            "epochs": 34,
            "batch_size": 64,
            "seed": 0,
        },
    },
}


def current_name(preset: str) -> str:
    """The name of a preset, whose former name is accepted, too."""
    return FORMER_NAMES.get(preset, preset)


def first_name(preset: str) -> str:
    """The name by which a preset was introduced, which digests of sweeps hold."""
    return next((former for former, current in FORMER_NAMES.items() if current == preset), preset)
