"""The geometry of convolutions, and the three products of which they and their gradients are composed.

Images have the shape (batch, height, width, channels), but their memory layout is *planes*: (height, channels, width,
batch). One row of a channel, with all images of the batch side by side, is contiguous, as in Krizhevsky's cuda-convnet,
and the rows that lie under a kernel follow each other. NumPy's elementwise functions keep that order; arrays in other
layouts are accepted. The output has the dtype of the weights.

A convolution multiplies the patches under its kernel by the weights (im2col, Chellapilla et al. 2006, section 3). In
this layout, a row of patches is a slice of *strips*, which have a copy of each image row for each column of the kernel:
the patches of a 3 x 3 kernel take three copies of the image instead of nine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from engine.autograd.graph import Array
from engine.errors import SettingError, ShapeError, check_positive

Padding: TypeAlias = Literal["same", "valid"]
"""``same``: zeros around the image, so that stride 1 keeps its size; ``valid``: none."""

CACHE_BLOCK_BYTES = 2**20
"""Bytes of images that pooling processes at a time, so that they stay in the L2 cache between calls."""
STRIPS_BYTES = 2**22
"""Bytes of strips that are built at a time."""

SMALL_PRODUCT, SMALL_WEIGHTS = 10**6, 1024
"""Up to this many multiplications, OpenBLAS does not copy its operands first. With fewer weights than the
second number, long products that are cut to this size take half the time."""


@dataclass(frozen=True, slots=True)
class Window:
    """The positions of a kernel along one axis.

    Attributes:
        kernel, stride: in pixels.
        before, size, after: number of zeros before the image, of its pixels, and of zeros after it.
        count: number of positions, which is the number of output pixels.
    """

    kernel: int
    stride: int
    before: int
    size: int
    after: int
    count: int

    def mirrored(self) -> Window:
        """The window of the reverse convolution: from each output pixel to the input pixels that it depends on."""
        return Window(
            self.kernel, 1, self.kernel - 1 - self.before, self.count, self.kernel - 1 - self.after, self.size
        )

    @property
    def padded(self) -> int:
        """Number of pixels including the zeros."""
        return self.before + self.size + self.after

    @property
    def inner(self) -> slice:
        """The slice of the image between the zeros."""
        return slice(self.before, self.before + self.size)

    def pixels_under(self, offset: int, start: int, stop: int) -> slice:
        """The pixels under element ``offset`` of the kernel at the positions ``start`` to ``stop`` - 1."""
        return slice(offset + start * self.stride, offset + (stop - 1) * self.stride + 1, self.stride)


def window(size: int, kernel: int, stride: int, padding: Padding) -> Window:
    """The window of a convolution along an axis of ``size`` pixels.

    ``same`` gives ceil(size / stride) positions. If the number of zeros is odd, there is one more after the image, as
    in TensorFlow.

    Raises:
        SettingError: kernel or stride below 1, or an unknown padding.
        ShapeError: a kernel that is larger than the image.
    """
    check_positive("conv2d: ", kernel=kernel, stride=stride)
    if padding not in ("same", "valid"):
        raise SettingError(f"conv2d: padding {padding!r} is neither same nor valid", setting="padding")
    if kernel > size:
        raise ShapeError(f"conv2d: a kernel of {kernel} does not fit into {size} pixels", operation="conv2d")
    if padding == "valid":
        return Window(kernel, stride, 0, size, 0, (size - kernel) // stride + 1)
    count = -(-size // stride)
    zeros = max((count - 1) * stride + kernel - size, 0)
    return Window(kernel, stride, zeros // 2, size, zeros - zeros // 2, count)


def transposed_size(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """The side of the image that a convolution maps to ``size`` pixels; with ``valid`` padding, the largest of which
    every pixel is used."""
    return size * stride if padding == "same" else (size - 1) * stride + kernel


def check_convolved(operation: str, x: Array, w: Array) -> None:
    """Raise ShapeError unless images and weights fit."""
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2]:
        expected = "they must be (batch, height, width, channels) and (kernel, kernel, channels, filters)"
        raise ShapeError.of(operation, f"images {x.shape} and weight {w.shape}: {expected}", x, w)


def to_planes(x: Array) -> Array:
    """(batch, height, width, channels) as (height, channels, width, batch), a view."""
    return x.transpose(1, 3, 2, 0)


def from_planes(planes: Array) -> Array:
    """The inverse of :func:`to_planes`."""
    return planes.transpose(3, 0, 2, 1)


def as_rows(x: Array) -> Array:
    """Images as (height, channels, width * batch), each row contiguous: a view of planes, a copy of other layouts."""
    batch, height, width, channels = x.shape
    rows = np.reshape(to_planes(x), (height, channels, width * batch))
    # NumPy copies only if it must. With one image, one column or repeated pixels, any layout can be a view.
    return rows if has_contiguous_rows(rows) else rows.copy()


def has_contiguous_rows(x: Array) -> bool:
    """Whether the elements along the last axis of ``x`` follow each other in memory."""
    return x.shape[-1] <= 1 or x.strides[-1] == x.itemsize


@dataclass(frozen=True, slots=True)
class Convolution:
    """The geometry of one convolution from x (batch, height, width, channels) to y (batch, rows, columns, filters).

    Weights are w (kernel, kernel, channels, filters). Patches are those of x: kernel * kernel * channels values for
    each pixel of y.
    """

    rows: Window
    columns: Window
    channels: int
    filters: int
    batch: int

    @classmethod
    def of(cls, x: Array, w: Array, stride: int, padding: Padding) -> Self:
        """The geometry for these images and weights.

        Raises:
            SettingError: see :func:`window`.
            ShapeError: images and weights do not fit.
        """
        check_convolved("conv2d", x, w)
        batch, height, width, channels = x.shape
        rows, columns = window(height, w.shape[0], stride, padding), window(width, w.shape[1], stride, padding)
        return cls(rows, columns, channels, w.shape[3], batch)

    def mirrored(self) -> Self:
        """The geometry from y to x, with :func:`mirror` of the weights and patches of y. Only for stride 1."""
        return type(self)(self.rows.mirrored(), self.columns.mirrored(), self.filters, self.channels, self.batch)

    def gather(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """y from x: each patch times the weights, and ``b`` (filters,) added."""
        weights, pixels = np.reshape(w, (-1, self.filters)).T, to_planes(x)
        y = np.empty_like(w, order="C", shape=(self.rows.count, self.filters, self.columns.count, self.batch))
        outputs = y.reshape(self.rows.count, self.filters, self.columns.count * self.batch)
        for start, strips, patches in self._blocks(w):
            self._fill(strips, pixels, start)
            for row, patch in enumerate(patches, start):
                np.matmul(weights, patch, out=outputs[row])
                if b is not None:
                    np.add(outputs[row], np.reshape(b, (-1, 1)), out=outputs[row])
        return from_planes(y)

    def scatter(self, y: Array, w: Array, b: Array | None = None) -> Array:
        """The adjoint of :meth:`gather`, x from y: each pixel times the weights, added to its patch.

        ``b`` (channels,) is added once.
        """
        outputs, weights = as_rows(y), np.reshape(w, (-1, self.filters))
        rows, columns = self.rows, self.columns
        x = np.empty_like(w, order="C", shape=(rows.padded, self.channels, columns.padded, self.batch))
        x[...] = 0 if b is None else np.reshape(b, (-1, 1, 1))
        product = np.empty_like(w, order="C", shape=(len(weights), outputs.shape[2]))
        for start, strips, patches in self._blocks(w):
            strips[...] = 0
            for row, patch in enumerate(patches, start):
                np.matmul(weights, outputs[row], out=product)
                np.add(patch, product, out=patch)
            first = start * rows.stride
            for j in range(columns.kernel):
                target = x[first : first + len(strips), :, columns.pixels_under(j, 0, columns.count)]
                np.add(target, strips[:, j], out=target)
        return from_planes(x[rows.inner, :, columns.inner])

    def correlate(self, x: Array, y: Array) -> Array:
        """The gradient of the weights: the sum of each patch of x times its pixel of y."""
        pixels, outputs = to_planes(x), as_rows(y)
        width = self.rows.kernel * self.columns.kernel * self.channels * self.filters
        length = SMALL_PRODUCT // width if 0 < width < SMALL_WEIGHTS else max(1, outputs.shape[2])
        total: Any = None
        for start, strips, patches in self._blocks(y):
            self._fill(strips, pixels, start)
            for row, patch in enumerate(patches, start):
                for first in range(0, max(1, outputs.shape[2]), length):
                    columns = slice(first, first + length)
                    product = np.matmul(patch[:, columns], outputs[row][:, columns].T)
                    total = product if total is None else np.add(total, product, out=total)
        gradient: Array = total.reshape(self.rows.kernel, self.columns.kernel, self.channels, self.filters)
        return gradient

    def _fill(self, strips: Array, pixels: Array, start: int) -> None:
        """Copy the pixels under each column of the kernel, and zeros around the image, for the rows from ``start``."""
        rows, columns = self.rows, self.columns
        first = start * rows.stride - rows.before  # row of the image
        top, bottom = min(max(-first, 0), len(strips)), min(max(rows.size - first, 0), len(strips))
        if top > 0:
            strips[:top] = 0
        if bottom < len(strips):
            strips[bottom:] = 0
        for j in range(columns.kernel):
            strip = strips[top:bottom, j]
            # The positions whose pixel is inside of the image.
            left = min(max(-(-(columns.before - j) // columns.stride), 0), columns.count)
            right = min(max(-(-(columns.before + columns.size - j) // columns.stride), left), columns.count)
            if left > 0:
                strip[:, :, :left] = 0
            if right < columns.count:
                strip[:, :, right:] = 0
            if left < right:
                inside = columns.pixels_under(j - columns.before, left, right)
                strip[:, :, left:right] = pixels[first + top : first + bottom, :, inside]

    def _blocks(self, like: Array) -> Iterator[tuple[int, Array, list[Array]]]:
        """Memory for the strips of a few rows at a time, with the dtype of ``like``.

        Yields:
            The first row of y; the strips of all rows of pixels under its kernels (rows, kernel, channels, columns,
            batch); and for each row of y a view of them, its patches as a matrix (kernel * kernel * channels, columns *
            batch), one patch per column.
        """
        rows, columns = self.rows, self.columns
        shape = (columns.kernel, self.channels, columns.count, self.batch)
        strip_bytes = max(1, math.prod(shape) * like.dtype.itemsize)
        step = min(rows.count, max(1, (STRIPS_BYTES // strip_bytes - rows.kernel) // rows.stride + 1))
        memory = np.empty_like(like, order="C", shape=((step - 1) * rows.stride + rows.kernel, *shape))
        for start in range(0, rows.count, step):
            count = min(step, rows.count - start)
            strips = memory[: (count - 1) * rows.stride + rows.kernel]
            width = columns.count * self.batch
            matrix = strips.reshape(len(strips), columns.kernel * self.channels, width)
            patches = [
                matrix[first : first + rows.kernel].reshape(rows.kernel * columns.kernel * self.channels, width)
                for first in range(0, count * rows.stride, rows.stride)
            ]
            yield start, strips, patches


def mirror(w: Array) -> Array:
    """The weights of the reverse convolution: rotated by 180 degrees, with channels and filters swapped."""
    return w[::-1, ::-1].transpose(0, 1, 3, 2)
