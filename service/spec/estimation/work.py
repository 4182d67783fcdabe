"""What a training has to do, counted from its spec, and how long machines take for it.

Seconds of a run are a sum: so many products of dense layers times what one takes, and so on. Within 15% that holds for
networks from a few units to deep convolutions. What one takes is known of a reference machine, from a fit to steps of
all presets and others; a calibration scales it to another machine, in the four groups of ``GROUPS``.
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
"""What a calibration tells machines apart by: each is a factor, 1 for the reference machine, 2 for half as fast."""
CONTENTION: Final = "contention"
"""Another factor of a calibration: the time on the clock as a multiple of processor time, beside others' work."""
_FORWARD: Final = 0.3
"""The share of a step's work that a look without training takes."""
_LOOKED_AT: Final = 628
"""Images that are looked at once an epoch besides the validation images: health and samples."""
_AUGMENTED: Final = 0.6
"""The share of the conversion of an image to floats that mirroring it takes, or a cutout."""
_VALIDATED: Final = 1 / 6
"""Validation images for each training image, where the dataset's are not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Counts of a whole run.

    Attributes:
        dense, convolution: multiplications of the forward pass, in training.
        patches: numbers that convolutions copy side by side.
        outputs: numbers that layers make.
        weights: numbers that optimizers touch.
        pixels: bytes of images turned into floating point.
        calls: layers, once for each step.
        epochs: each with files, a commit and a look at health.
        starts: 1, for a run that begins: its data are read, its networks made.
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
"""Seconds for one of each, on an Intel Xeon of family 6, model 207, with one BLAS thread."""
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
    """The work of a run, or of its first ``epochs``, or of some ``steps`` with so many epochs' ends."""
    epochs = spec.epochs if epochs is None else epochs
    images = shape.train_count * epochs if steps is None else steps * spec.batch_size
    steps = total_steps(spec, shape.train_count) // spec.epochs * epochs if steps is None else steps
    trained = float(images)
    found = networks(spec, shape)
    match spec:
        case ClassifierSpec():
            validated = shape.validation_count or shape.train_count * _VALIDATED
            looked_at = (validated + _LOOKED_AT) * epochs
            seen = [(found[0], trained + _FORWARD * looked_at)]
            augmented = _AUGMENTED * (spec.augmentation.flip + (spec.augmentation.cutout > 0))
            pixels = (1 + augmented) * trained + validated * epochs
        case GanSpec():
            judged = math.ceil(epochs / spec.health.every_epochs) * spec.health.samples
            made, told = found
            seen = [(made, trained + _FORWARD * (judged + _LOOKED_AT * epochs)), (told, trained)]
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
    """How long a machine with these factors takes, by group; missing factors are 1."""
    found = dict.fromkeys(GROUPS, 0.0)
    for field in fields(Work):
        group = _GROUP_OF[field.name]
        found[group] += getattr(work, field.name) * getattr(_REFERENCE, field.name) * factors.get(group, 1.0)
    return found


def overlap(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """How alike two runs spend their time, from 0 to 1: the shares that they have in common."""
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
