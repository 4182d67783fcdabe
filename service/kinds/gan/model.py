"""The networks of GANs, built with the engine; of a trained one, the generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import engine
from engine.errors import ShapeError
from engine.nn.initializers import Initializer
from service.kinds.gan.networks import discriminator_input_size, generator_input
from service.kinds.gan.spec import Distribution, GanSpec
from service.models.kinds import ModelOfKind
from service.models.networks import build_network


def generator(spec: GanSpec, initializer: Initializer, classes: int) -> engine.Sequential:
    """The generator of a GAN: latent vectors (with the one-hot class, if conditional) to flat images."""
    size = generator_input(spec, classes)
    return build_network(spec.generator.layers, size, spec, initializer, purpose="generator")


def discriminator(
    spec: GanSpec, image_shape: Sequence[int], initializer: Initializer, classes: int
) -> engine.Sequential:
    """The discriminator of a GAN for images of (rows, columns) or (rows, columns, 3)."""
    settings = spec.discriminator
    size = discriminator_input_size(spec, image_shape, classes)
    spectral = settings.spectral_norm
    return build_network(settings.layers, size, spec, initializer, purpose="discriminator", spectral_norm=spectral)


def latent(spec: GanSpec) -> engine.Latent:
    """The latent distribution of a GAN."""
    return engine.Latent(spec.latent.dim, spec.latent.distribution.value)


def _trained(spec: GanSpec, image_shape: Sequence[int], initializer: Initializer, classes: int) -> engine.Sequential:
    network = generator(spec, initializer, classes)
    if network.units != math.prod(image_shape):
        raise ShapeError(f"it makes {network.units} pixels, not {image_shape}")
    return network


def _torch_latent(spec: GanSpec) -> str:
    is_normal = spec.latent.distribution is Distribution.NORMAL
    return f"torch.randn(16, {spec.latent.dim})" if is_normal else f"torch.rand(16, {spec.latent.dim}) * 2 - 1"


MODEL: Final = ModelOfKind[GanSpec](network=_trained, prefix="generator.", torch_latent=_torch_latent)
