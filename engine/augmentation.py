"""Data augmentation: random shifts, flips and cutouts of training images.

An :class:`Augmentation` draws random changes for a whole batch. The resulting :class:`Changes` are plain arrays, and
applying them draws no random numbers. So a step does not depend on how its images are split into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.autograd.graph import Array
from engine.errors import DataError, SettingError


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The random changes of an image, drawn each time it is used.

    Attributes:
        max_shift: shift by up to this many pixels in each direction; pixels that enter at the border are 0.
        flip: mirror half of the images, left to right.
        cutout: set a square with sides of this many pixels to 0, centred anywhere in the image (DeVries & Taylor 2017,
            arXiv:1708.04552).
    """

    max_shift: int = 0
    flip: bool = False
    cutout: int = 0

    def check(self, sides: Sequence[int]) -> None:
        """Check the settings for images of (height, width) or (height, width, channels).

        Raises:
            SettingError: a setting is negative, or could remove the whole image.
        """
        for name, value in (("max_shift", self.max_shift), ("cutout", self.cutout)):
            if value < 0 or (value and (len(sides) not in (2, 3) or value >= min(sides[:2]))):
                detail = f"must not be negative, and must be smaller than images of {tuple(sides)} pixels"
                raise SettingError(f"{name} {value} {detail}", setting=name)
        if self.flip and len(sides) not in (2, 3):
            raise SettingError(f"flip needs images of rows and columns, not {tuple(sides)}", setting="flip")

    def draw(self, rng: np.random.Generator, count: int, sides: Sequence[int]) -> Changes | None:
        """Draw changes for ``count`` images; None if all augmentations are off.

        An augmentation that is off draws no random numbers, so that it does not affect the others.
        """
        if not (self.max_shift or self.flip or self.cutout):
            return None
        return Changes(
            shifts=draw_shifts(rng, count, self.max_shift) if self.max_shift else None,
            flips=rng.integers(0, 2, count).astype(np.bool_) if self.flip else None,
            centres=rng.integers((0, 0), tuple(sides[:2]), (count, 2)) if self.cutout else None,
            cutout=self.cutout,
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of the images of a batch, applied in this order.

    Attributes:
        shifts: integers (n, 2): pixels down, pixels to the right.
        flips: booleans (n,).
        centres: integers (n, 2): row and column of the middle of each square.
        cutout: the side of the squares.
    """

    shifts: Array | None = None
    flips: Array | None = None
    centres: Array | None = None
    cutout: int = 0

    def apply(self, images: Array, positions: slice) -> Array:
        """The changed images; may write into ``images``.

        Args:
            images: (n, height, width) or (n, height, width, channels).
            positions: the positions of the images in the batch.
        """
        if self.shifts is not None:
            images = shifted(images, self.shifts[positions])
        if self.flips is not None:
            chosen = self.flips[positions]
            images[chosen] = images[chosen, :, ::-1]
        if self.centres is not None:
            images[_squares(self.centres[positions], self.cutout, images.shape[1:3])] = 0
        return images


def draw_shifts(rng: np.random.Generator, count: int, max_shift: int) -> Array:
    """Draw shifts for ``count`` images, for :func:`shifted`, uniformly from all (2 max_shift + 1)**2."""
    return rng.integers(-max_shift, max_shift, (count, 2), endpoint=True)


def shifted(images: Array, shifts: Array) -> Array:
    """Copies of images, each moved by whole pixels; pixels that enter at the border are 0.

    Args:
        images: (n, height, width) or (n, height, width, channels).
        shifts: integers (n, 2): pixels down, pixels to the right.

    Raises:
        DataError: images of another number of axes.
    """
    if images.ndim not in (3, 4):
        shapes = "(n, height, width) or (n, height, width, channels)"
        raise DataError(f"only images of shape {shapes} can be shifted, not {images.shape}")
    (n, height, width, *channels), margin = images.shape, int(np.max(np.abs(shifts), initial=0))
    padded = np.zeros((n, height + 2 * margin, width + 2 * margin, *channels), images.dtype)
    padded[:, margin : margin + height, margin : margin + width] = images
    axes = tuple(range(1, images.ndim))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:], axis=axes)
    moved: Array = windows[np.arange(n), margin - shifts[:, 0], margin - shifts[:, 1]]
    return moved.reshape(images.shape)  # a window spans all channels, so that axis has one position


def _squares(centres: Array, side: int, sides: Sequence[int]) -> Array:
    """A mask (n, height, width) of squares of ``side`` pixels, clipped at the border."""
    inside = []
    for axis, size in enumerate(sides):
        first = centres[:, axis] - side // 2
        positions = np.arange(size)
        inside.append((positions >= first[:, None]) & (positions < first[:, None] + side))
    mask: Array = inside[0][:, :, None] & inside[1][:, None, :]
    return mask
