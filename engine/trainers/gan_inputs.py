"""The inputs of the two networks of a GAN: noise, and images in the form that the discriminator receives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from engine import ops
from engine.autograd.graph import Array
from engine.autograd.tracing import computing
from engine.data import one_hot
from engine.errors import DataError, SettingError, ShapeError, check_positive

__all__ = ["Latent"]


@dataclass(frozen=True, slots=True)
class Latent:
    """The latent distribution of a generator.

    Attributes:
        dim: number of latent values per image.
        distribution: ``uniform`` in [-1, 1], or standard ``normal``.
    """

    dim: int
    distribution: Literal["uniform", "normal"] = "uniform"

    def __post_init__(self) -> None:
        check_positive("latent: ", dim=self.dim)
        if self.distribution not in ("uniform", "normal"):
            raise SettingError(
                f"latent: distribution {self.distribution!r} is neither uniform nor normal", setting="distribution"
            )

    def draw(self, rng: np.random.Generator, count: int, dtype: DTypeLike) -> Array:
        """Noise for ``count`` images: (count, dim), in memory as columns."""
        shape = (count, self.dim)
        noise = rng.uniform(-1, 1, shape) if self.distribution == "uniform" else rng.standard_normal(shape)
        return noise.astype(dtype, order="F")  # for the sake of products, see is_batch_innermost


def with_classes(noise: Array, labels: Array, classes: int) -> Array:
    """Noise followed by one-hot labels: the input of a conditional generator."""
    return np.concatenate([noise, one_hot(labels, classes, noise.dtype)], axis=1)


def as_labels(requested: Any, count: int, classes: int) -> Array:
    """Labels for ``count`` images: one for all, or one for each; None alternates between the classes.

    Raises:
        DataError: not integers in [0, classes), or a wrong number of labels.
    """
    if requested is None:
        return np.arange(count) % classes
    labels = np.asarray(requested)
    if labels.dtype.kind not in "ui" or labels.ndim > 1 or (labels.ndim == 1 and len(labels) != count):
        raise DataError(
            f"class must be an integer, or one for each of {count} images; it is {labels.dtype} {labels.shape}"
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise DataError(f"class must be in 0 to {classes - 1}; it is {requested}")
    return np.broadcast_to(labels, (count,))


class DiscriminatorInputs:
    """Builds the input of a discriminator: single images or packs of images, optionally with their classes.

    The images of a pack are concatenated as channels, or as one longer vector (Lin et al. 2018, "PacGAN", section 3). A
    class is one-hot: additional constant channels, or additional values of the vector (Mirza & Osindero 2014).

    Args:
        shape: of the discriminator's input, (numbers,) or (height, width, channels).
        features: number of values of one image.
        pack: number of images that the discriminator evaluates together.
        classes: number of classes; 0 for images without classes.

    Raises:
        SettingError: ``pack`` is not positive.
        ShapeError: the shape does not fit.
    """

    def __init__(self, shape: Sequence[int], features: int, pack: int = 1, classes: int = 0) -> None:
        check_positive(pack=pack)
        self.pack = pack
        self.classes = classes
        if len(shape) == 3:
            height, width, channels = shape
            image_channels = channels // pack - classes
            self._image: tuple[int, ...] = (height, width, image_channels)
            fits = channels % pack == 0 and height * width * image_channels == features
        else:
            self._image = (features,)
            fits = tuple(shape) == (pack * (features + classes),)
        if not fits:
            details = f", {pack} together" * (pack > 1) + f", with {classes} classes" * (classes > 0)
            raise ShapeError(
                f"a discriminator for inputs {tuple(shape)} does not fit images of {features} pixels{details}"
            )

    def whole_packs(self, batch: Array) -> Array:
        """A batch of indices, padded with indices from its beginning to a multiple of the pack size."""
        return batch if len(batch) % self.pack == 0 else np.resize(batch, -(-len(batch) // self.pack) * self.pack)

    def __call__(self, images: Any, one_hot_rows: Any = None) -> Any:
        """The discriminator's input for ``images`` (n, features) and their classes (n, classes)."""
        if self.pack == 1 and not self.classes:
            return images
        n, dtype = len(images), images.dtype
        if len(self._image) == 1:
            rows = ops.concatenate([images, one_hot_rows], axis=1) if self.classes else images
            return ops.reshape(rows, shape=(n // self.pack, self.pack * (self._image[0] + self.classes)))
        height, width, channels = self._image
        pictures = ops.reshape(images, shape=(n, *self._image))
        if self.classes:
            channels += self.classes
            ones = computing.constant(np.ones((1, height, width, 1), dtype))
            planes = ops.multiply(ops.reshape(one_hot_rows, shape=(n, 1, 1, self.classes)), ones)
            pictures = ops.concatenate([pictures, planes], axis=3)
        packs = ops.reshape(pictures, shape=(n // self.pack, self.pack, height, width, channels))
        side_by_side = ops.transpose(packs, axes=(0, 2, 3, 1, 4))
        return ops.reshape(side_by_side, shape=(n // self.pack, height * width * self.pack * channels))
