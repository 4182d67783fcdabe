"""The networks of a spec, with the shapes of their layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, assert_never

from service.schema.layer_shapes import Network, Shape, picture_size, walk
from service.spec.schema import GanSpec, Size, Spec, SupervisedSpec

_PENALTY_PASSES: Final = 2.0
"""Passes that a penalty on the slope adds: forward and backward, and backward through both. Measured: two."""


def networks(spec: Spec, shape: Shape) -> list[Network]:
    """The networks of a spec for a dataset of this shape: one, or generator and discriminator."""
    match spec:
        case SupervisedSpec():
            return [walk("layers", spec.layers, picture_size(spec.layers, shape.picture))]
        case GanSpec():
            discriminator, generator_size = spec.discriminator, generator_input(spec, shape.classes)
            # The discriminator sees each pack of generated images and each pack of real ones once.
            penalties = _PENALTY_PASSES * ((discriminator.gradient_penalty > 0) + (discriminator.r1 > 0))
            return [
                walk("generator/layers", spec.generator.layers, generator_size),
                replace(
                    walk(
                        "discriminator/layers",
                        discriminator.layers,
                        discriminator_input_size(spec, shape.picture, shape.classes),
                    ),
                    passes=(2 + penalties) / discriminator.pack,
                ),
            ]
        case _:
            assert_never(spec)


def generator_input(spec: GanSpec, classes: int) -> Size:
    """Input size of a generator: the latent dimension, plus the one-hot class of a conditional GAN."""
    return (spec.latent.dim + (classes if spec.conditional else 0),)


def discriminator_input_size(spec: GanSpec, picture: Sequence[int], classes: int) -> Size:
    """Input size of a discriminator: the images of a pack as channels, plus the class channels of a conditional GAN."""
    discriminator = spec.discriminator
    size = picture_size(discriminator.layers, picture)
    class_channels = classes if spec.conditional else 0
    return (*size[:-1], discriminator.pack * (size[-1] + class_channels))
