"""The amount of work of a training, counted from its spec, and its duration on a machine.

The duration is a linear model: a sum of counts (such as products of dense layers), each times the time of one. It is
accurate within 15% for networks from a few units to deep convolutions. The times are those of a reference machine,
fitted to steps of all presets and other specs; a calibration scales them to another machine, by one factor for each of
``GROUPS``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from service.spec.estimation.costs import optimizer_slots, total_steps
from service.spec.estimation.layer_shapes import Network, Shape, networks
from service.spec.schema import ClassifierSpec, Conv2D, Conv2DTranspose, DType, GanSpec, Spec

GROUPS: Final = ("dense", "convolution", "elementwise", "overhead")
"""The groups of a calibration: each has a factor, 1 for the reference machine, 2 for a machine half as fast."""
CONTENTION: Final = "contention"
"""A further factor of a calibration: wall-clock time divided by CPU time, which grows with other load."""
_FORWARD_COST: Final = 0.3
"""Cost of a forward pass alone, as a fraction of a training step."""
_DIAGNOSED_IMAGES: Final = 628
"""Images evaluated per epoch for diagnostics and samples, besides the validation images."""
_AUGMENTATION_COST: Final = 0.6
"""Cost of a flip or a cutout, as a fraction of the cost of converting an image to floats."""
_VALIDATION_SHARE: Final = 1 / 6
"""Validation images per training image, if the dataset's are unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Counts of a whole run.

    Attributes:
        dense, convolution: multiplications of the forward pass, in training.
        patches: values that convolutions copy (im2col).
        outputs: values that layers output.
        weights: values that optimizers update.
        pixels: image bytes converted to floats.
        calls: layer calls: layers times steps.
        epochs: epochs, each with files, a commit and diagnostics.
        starts: 1 if the run starts from the beginning: reading data and building networks.
    """

    dense: float
    convolution: float
    patches: float
    outputs: float
    weights: float
    pixels: float
    calls: float
    epochs: float
    starts: float = 0.0


_REFERENCE: Final = Work(
    dense=1.7e-11,
    convolution=5.1e-11,
    patches=1.3e-10,
    outputs=2.8e-9,
    weights=9.1e-10,
    pixels=2.1e-9,
    calls=2.5e-5,
    epochs=0.06,
    starts=0.3,
)
"""Seconds per unit of each count, on an Intel Xeon of family 6, model 207, with one BLAS thread."""
_GROUP_OF: Final = {
    "dense": "dense",
    "convolution": "convolution",
    "patches": "convolution",
    "outputs": "elementwise",
    "weights": "elementwise",
    "pixels": "elementwise",
    "calls": "overhead",
    "epochs": "overhead",
    "starts": "overhead",
}


def count(spec: Spec, shape: Shape, *, epochs: int | None = None, steps: int | None = None) -> Work:
    """The work of a run, of its first ``epochs``, or of ``steps`` batches with the ends of ``epochs`` epochs."""
    epochs = spec.epochs if epochs is None else epochs
    images = shape.train_count * epochs if steps is None else steps * spec.batch_size
    steps = total_steps(spec, shape.train_count) // spec.epochs * epochs if steps is None else steps
    trained = float(images)
    all_networks = networks(spec, shape)
    match spec:
        case ClassifierSpec():
            validated = shape.validation_count or shape.train_count * _VALIDATION_SHARE
            evaluated = (validated + _DIAGNOSED_IMAGES) * epochs
            runs = [(all_networks[0], trained + _FORWARD_COST * evaluated)]
            augmented = _AUGMENTATION_COST * (spec.augmentation.flip + (spec.augmentation.cutout > 0))
            pixels = (1 + augmented) * trained + validated * epochs
        case GanSpec():
            scored = math.ceil(epochs / spec.health.every_epochs) * spec.health.samples
            generator, discriminator = all_networks
            runs = [
                (generator, trained + _FORWARD_COST * (scored + _DIAGNOSED_IMAGES * epochs)),
                (discriminator, trained),
            ]
            pixels = trained
    updates = sum(
        _weights(network) * (1 + slots) for network, slots in zip(all_networks, optimizer_slots(spec), strict=True)
    )
    scale = 2.0 if spec.dtype is DType.FLOAT64 else 1.0
    return Work(
        dense=scale * sum(images * _products(network, convolutions=False) for network, images in runs),
        convolution=scale * sum(images * _products(network, convolutions=True) for network, images in runs),
        patches=scale * sum(images * _patches(network) for network, images in runs),
        outputs=scale * sum(images * network.passes * _outputs(network) for network, images in runs),
        weights=scale * updates * steps / spec.accumulate,
        pixels=scale * pixels * shape.pixels,
        calls=steps * sum(network.passes * len(network.layer_shapes) for network in all_networks),
        epochs=float(epochs),
        starts=1.0 if epochs else 0.0,
    )


def seconds(work: Work, factors: Mapping[str, float]) -> dict[str, float]:
    """Seconds per group on a machine with these factors; missing factors are 1."""
    by_group = dict.fromkeys(GROUPS, 0.0)
    for field in fields(Work):
        group = _GROUP_OF[field.name]
        by_group[group] += getattr(work, field.name) * getattr(_REFERENCE, field.name) * factors.get(group, 1.0)
    return by_group


def overlap(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Similarity of two runs' time profiles, from 0 to 1: the sum of the smaller shares."""
    total_a, total_b = sum(a.values()), sum(b.values())
    if not total_a or not total_b:
        return 0.0
    return sum(min(a[group] / total_a, b[group] / total_b) for group in GROUPS)


def _weights(network: Network) -> int:
    return sum(layer_shape.weights for layer_shape in network.layer_shapes)


def _products(network: Network, *, convolutions: bool) -> float:
    layer_shapes = (
        layer_shape
        for layer_shape in network.layer_shapes
        if isinstance(layer_shape.layer, Conv2D | Conv2DTranspose) is convolutions
    )
    return network.passes * sum(layer_shape.products for layer_shape in layer_shapes)


def _patches(network: Network) -> float:
    return network.passes * sum(
        layer_shape.patches * layer_shape.size[0] for layer_shape in network.layer_shapes if layer_shape.patches
    )


def _outputs(network: Network) -> int:
    return sum(layer_shape.outputs for layer_shape in network.layer_shapes)
