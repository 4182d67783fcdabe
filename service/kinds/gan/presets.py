"""The presets of GANs, and what each reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.schema.preset_info import PresetInfo, ReachedItem

_GENERATOR: Final = [
    {"units": 200, "activation": "tanh"},
    {"units": 400, "activation": "tanh"},
    {"units": 784, "activation": "tanh"},
]


PRESETS: Final[Mapping[str, dict[str, Any]]] = {
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
}
INFO: Final[Mapping[str, PresetInfo]] = {
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
}
