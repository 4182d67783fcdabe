"""Data for trainers: images as bytes, table rows, labels, batches, and the random generators of a run.

All random numbers of a run come from :func:`generator_for`, keyed by (seed, purpose, epoch). No generator is used for
more than one epoch, so a run that resumes after any epoch draws the same numbers as one that never stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from engine.augmentation import Changes
from engine.autograd.graph import Array
from engine.errors import DataError, SettingError, ShapeError, check_positive

__all__ = ["ImageData", "TableData", "batches", "generator_for"]

_CONVERSION_BLOCK_IMAGES = 64
"""Number of images that are converted from bytes to floats at a time."""


def generator_for(seed: int, purpose: str, epoch: int = 0) -> np.random.Generator:
    """The random generator for one purpose in one epoch. Equal keys give equal numbers.

    SeedSequence derives independent streams from such keys. SFC64 draws a dropout mask in two thirds of the time that
    Philox takes.

    Args:
        seed: of the run, not negative.
        purpose: ``init``, ``shuffle``, ``dropout``, ``latent``, ...
        epoch: number of finished epochs.
    """
    if seed < 0:
        raise SettingError(f"seed {seed} must not be negative", setting="seed")
    word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, word, epoch])))


def batches(n: int, batch_size: int, *, seed: int, epoch: int, shuffle: bool) -> Iterator[Array]:
    """Indices 0 to n - 1, each once, in batches. The last batch is short if the size does not divide n.

    The short batch is kept, so that every example is used.

    Raises:
        SettingError: a batch size below 1.
    """
    order = np.arange(n)
    if shuffle:
        generator_for(seed, "shuffle", epoch).shuffle(order)
    for number in range(batch_count(n, batch_size)):
        yield order[number * batch_size : (number + 1) * batch_size]


def batch_count(n: int, batch_size: int) -> int:
    """Number of batches of :func:`batches`.

    Raises:
        SettingError: a batch size below 1.
    """
    check_positive(batch_size=batch_size)
    return -(-n // batch_size)


def one_hot(labels: Array, classes: int, dtype: Any) -> Array:
    """One-hot rows: (batch,) integers to (batch, classes)."""
    rows: Array = np.zeros((len(labels), classes), dtype)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def check_labels(labels: Array, count: int, classes: int) -> None:
    """Raise unless ``labels`` are ``count`` integers in [0, classes), at least one.

    Raises:
        DataError: empty, not integers, or out of range.
        ShapeError: not of shape (count,).
    """
    labels = np.asarray(labels)
    if labels.shape != (count,):
        problem = f"labels of shape {labels.shape} for a batch of {count}"
        raise ShapeError(problem, operation="labels", shapes=(labels.shape, (count,)))
    if count == 0:
        raise DataError("an empty batch has no loss")
    if labels.dtype.kind not in "ui":
        raise DataError(f"labels must be integers, not {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(f"labels range from {low} to {high}, but there are {classes} classes: 0 to {classes - 1}")


def scale_levels(levels: Array, scale: Sequence[float]) -> None:
    """Map levels from 0 to 255, stored as floats, to ``scale``, in place."""
    low, high = scale
    levels *= (high - low) / 255
    if low:
        levels += low


def unscale_levels(values: Array, scale: Sequence[float]) -> Array:
    """The inverse of :func:`scale_levels`, not in place, neither clipped nor rounded."""
    low, high = scale
    levels: Array = (values - low) * (255 / (high - low))
    return levels


class ImageData:
    """Images as bytes, optionally with labels.

    The images stay bytes, possibly memory-mapped, and each batch is converted when it is used. Measured with 784 pixels
    and batches of 50, this costs about as much as gathering floats (10 µs), with a quarter of the memory.

    Args:
        images: uint8 (n, ...), n at least 1.
        labels: integers (n,), or None.
        scale: the values to which the bytes 0 and 255 are mapped.
        classes: labels are in [0, classes); by default, up to the largest label.

    Raises:
        DataError: no images, another dtype, or invalid labels.
    """

    def __init__(
        self,
        images: Array,
        labels: Array | None,
        scale: tuple[float, float] = (0.0, 1.0),
        classes: int | None = None,
    ) -> None:
        images = np.asanyarray(images)
        if images.dtype != np.uint8 or images.ndim < 2:
            raise DataError(f"images must be uint8 of shape (n, ...), not {images.dtype} {images.shape}")
        if images.size == 0:
            raise DataError(f"no images: their shape is {images.shape}")
        if not (np.isfinite(scale).all() and scale[0] < scale[1]):
            raise DataError(f"scale {scale} must be two finite numbers, the lower first")
        self.images = np.asarray(images)  # a plain array, so that results are not memory maps
        self.scale = scale
        self.labels: Array | None = None
        self.classes = 0
        if labels is not None:
            labels = np.asarray(labels)
            if classes is None and labels.dtype.kind in "ui":  # otherwise the check below reports the error
                classes = int(np.max(labels, initial=0)) + 1
            check_labels(labels, len(images), classes or 0)
            self.labels = np.array(labels, np.int64)
            self.classes = classes or 0
        self._rows = self.images.reshape(len(images), -1)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sides(self) -> tuple[int, ...]:
        """Height and width of one image, and channels if it has several."""
        return self.images.shape[1:]

    @property
    def features(self) -> int:
        """Number of values of one image."""
        return int(self._rows.shape[1])

    def inputs(
        self, indices: Array | slice, dtype: DTypeLike, out: Array | None = None, changes: Changes | None = None
    ) -> Array:
        """The selected images as floats (batch, features), mapped to ``scale``, in ``out`` or a new array.

        Args:
            changes: augmentations to apply, or None.
        """
        chosen = np.arange(len(self))[indices] if isinstance(indices, slice) else indices
        floats: Array = np.empty((len(chosen), self.features), dtype) if out is None else out
        # In blocks whose bytes and floats fit into the cache.
        for start in range(0, len(chosen), _CONVERSION_BLOCK_IMAGES):
            rows = floats[start : start + _CONVERSION_BLOCK_IMAGES]
            block = chosen[start : start + _CONVERSION_BLOCK_IMAGES]
            if changes is None:
                np.copyto(rows, self._rows[block])
            else:
                changed = changes.apply(self.images[block], slice(start, start + _CONVERSION_BLOCK_IMAGES))
                np.copyto(rows, changed.reshape(len(block), -1))
            scale_levels(rows, self.scale)
        return floats

    def to_bytes(self, values: Any) -> Array:
        """The inverse of :meth:`inputs`: (n, features) back to uint8 images, clipped and rounded."""
        levels = unscale_levels(np.asarray(values), self.scale)
        return np.clip(np.rint(levels), 0, 255).astype(np.uint8).reshape(-1, *self.images.shape[1:])


class TableData:
    """Preprocessed table rows with labels or targets; the counterpart of :class:`ImageData`.

    Args:
        rows: floats (n, features), n at least 1.
        labels: integers (n,), to train a classifier.
        classes: labels are in [0, classes).
        targets: numbers (n,) instead of labels, to train a regressor.

    Raises:
        DataError: no rows, another dtype, values that are not finite, or invalid labels or targets.
    """

    def __init__(
        self, rows: Array, labels: Array | None = None, classes: int = 0, *, targets: Array | None = None
    ) -> None:
        rows = np.asarray(rows)
        if rows.dtype.kind != "f" or rows.ndim != 2 or rows.size == 0:
            raise DataError(f"rows must be floats of shape (n, features), not {rows.dtype} {rows.shape}")
        if not np.isfinite(rows).all():
            raise DataError("rows hold numbers that are not finite")
        if (labels is None) == (targets is None):
            raise DataError("rows have either labels or targets")
        self.rows = rows
        self.labels: Array | None = None
        self.targets: Array | None = None
        if labels is not None:
            check_labels(labels, len(rows), classes)
            self.labels = np.array(labels, np.int64)
        if targets is not None:
            self.targets = np.array(targets, np.float64)
            if self.targets.shape != (len(rows),) or not np.isfinite(self.targets).all():
                problem = f"of shape {self.targets.shape} for {len(rows)} rows, or not finite"
                raise DataError(f"targets must be one finite number for each row; they are {problem}")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sides(self) -> tuple[int, ...]:
        """Empty, because a row is not an image."""
        return ()

    @property
    def features(self) -> int:
        """Number of values of one row."""
        return int(self.rows.shape[1])

    def inputs(
        self, indices: Array | slice, dtype: DTypeLike, out: Array | None = None, changes: Changes | None = None
    ) -> Array:
        """The selected rows as floats (batch, features), in ``out`` or a new array.

        Raises:
            DataError: ``changes`` are given, but rows cannot be augmented.
        """
        if changes is not None:
            raise DataError("rows of a table cannot be shifted, mirrored or cut out")
        chosen = self.rows[indices]
        if out is None:
            return chosen.astype(dtype)
        np.copyto(out, chosen)
        return out


Examples: TypeAlias = ImageData | TableData
"""The data that a classifier can be trained on; a regressor takes a table."""
