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
_FORWARD: Final = 0.3
"""Cost of a forward pass alone, as a fraction of a training step."""
_DIAGNOSED_IMAGES: Final = 628
"""Images evaluated per epoch for diagnostics and samples, besides the validation images."""
_AUGMENTED: Final = 0.6
"""Cost of a flip or a cutout, as a fraction of the cost of converting an image to floats."""
_VALIDATED: Final = 1 / 6
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
    found = networks(spec, shape)
    match spec:
        case ClassifierSpec():
            validated = shape.validation_count or shape.train_count * _VALIDATED
            looked_at = (validated + _DIAGNOSED_IMAGES) * epochs
            seen = [(found[0], trained + _FORWARD * looked_at)]
            augmented = _AUGMENTED * (spec.augmentation.flip + (spec.augmentation.cutout > 0))
            pixels = (1 + augmented) * trained + validated * epochs
        case GanSpec():
            scored = math.ceil(epochs / spec.health.every_epochs) * spec.health.samples
            generator, discriminator = found
            seen = [(generator, trained + _FORWARD * (scored + _DIAGNOSED_IMAGES * epochs)), (discriminator, trained)]
            pixels = trained
    updates = sum(_weights(network) * (1 + slots) for network, slots in zip(found, optimizer_slots(spec), strict=True))
    twice = 2.0 if spec.dtype is DType.FLOAT64 else 1.0
    return Work(
        dense=twice * sum(images * _products(network, convolutions=False) for network, images in seen),
        convolution=twice * sum(images * _products(network, convolutions=True) for network, images in seen),
        patches=twice * sum(images * _patches(network) for network, images in seen),
        outputs=twice * sum(images * network.passes * _outputs(network) for network, images in seen),
        weights=twice * updates * steps / spec.accumulate,
        pixels=twice * pixels * shape.pixels,
        calls=steps * sum(network.passes * len(network.layer_shapes) for network in found),
        epochs=float(epochs),
        starts=1.0 if epochs else 0.0,
    )


def seconds(work: Work, factors: Mapping[str, float]) -> dict[str, float]:
    """Seconds per group on a machine with these factors; missing factors are 1."""
    found = dict.fromkeys(GROUPS, 0.0)
    for field in fields(Work):
        group = _GROUP_OF[field.name]
        found[group] += getattr(work, field.name) * getattr(_REFERENCE, field.name) * factors.get(group, 1.0)
    return found


def overlap(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Similarity of two runs' time profiles, from 0 to 1: the sum of the smaller shares."""
    all_a, all_b = sum(a.values()), sum(b.values())
    if not all_a or not all_b:
        return 0.0
    return sum(min(a[group] / all_a, b[group] / all_b) for group in GROUPS)


def _weights(network: Network) -> int:
    return sum(one.weights for one in network.layer_shapes)


def _products(network: Network, *, convolutions: bool) -> float:
    chosen = (one for one in network.layer_shapes if isinstance(one.layer, Conv2D | Conv2DTranspose) is convolutions)
    return network.passes * sum(one.products for one in chosen)


def _patches(network: Network) -> float:
    return network.passes * sum(one.patches * one.size[0] for one in network.layer_shapes if one.patches)


def _outputs(network: Network) -> int:
    return sum(one.outputs for one in network.layer_shapes)
