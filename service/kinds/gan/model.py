"""The networks of GANs, built with the engine; of a trained one, the generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

import engine
from engine.errors import ShapeError
from engine.nn.initializers import Initializer
from service.kinds.gan.networks import discriminator_input_size, generator_input
from service.kinds.gan.spec import Distribution, GanSpec
from service.models.kinds import Array, ModelOfKind
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


@dataclass(frozen=True, slots=True)
class _LatentSpace:
    spec: GanSpec

    @property
    def dim(self) -> int:
        return self.spec.latent.dim

    def sample(self, seed: int, count: int) -> Array:
        return latent(self.spec).draw(engine.generator_for(seed, "samples"), count, self.spec.dtype.value)

    def interpolate(self, points: Array, steps: int) -> Array:
        """For normal noise, along great circles (White 2016, arXiv:1609.04468): a straight line passes near the origin,
        where normal noise has almost no samples, so the generator was not trained there. Uniform noise has no such
        region.
        """
        fractions = np.arange(1, steps + 1) / steps
        path = [points[:1]]
        for start, end in pairwise(points):
            if self.spec.latent.distribution is Distribution.NORMAL:
                path.append(_slerp(start, end, fractions))
            else:
                path.append((1 - fractions[:, None]) * start + fractions[:, None] * end)
        return np.concatenate(path)


def _slerp(start: Array, end: Array, fractions: Array) -> Array:
    """Spherical interpolation of the direction, linear interpolation of the length."""
    from_length, to_length = float(np.linalg.norm(start)), float(np.linalg.norm(end))
    cosine = float(start @ end) / max(from_length * to_length, 1e-12)
    angle = math.acos(min(max(cosine, -1), 1))
    weights = fractions[:, None]
    if min(from_length, to_length, math.sin(angle)) < 1e-6:  # parallel or opposite: no unique great circle
        return np.asarray((1 - weights) * start + weights * end)
    directions = np.sin((1 - weights) * angle) * (start / from_length) + np.sin(weights * angle) * (end / to_length)
    lengths = (1 - weights) * from_length + weights * to_length
    return np.asarray(directions / math.sin(angle) * lengths)


def _torch_latent(spec: GanSpec) -> str:
    is_normal = spec.latent.distribution is Distribution.NORMAL
    return f"torch.randn(16, {spec.latent.dim})" if is_normal else f"torch.rand(16, {spec.latent.dim}) * 2 - 1"


MODEL: Final = ModelOfKind[GanSpec](
    network=_trained, prefix="generator.", latent_space=_LatentSpace, torch_latent=_torch_latent
)
