"""The geometry of convolutions, and the three products of which they and their gradients are composed.

Images have the shape (batch, height, width, channels), but their memory layout is *planes*: (channels, height, width,
batch), the order of Krizhevsky's cuda-convnet. One row of a plane, with all images of the batch side by side, is
contiguous, and so is everything that a convolution copies, multiplies and adds up. NumPy's elementwise functions keep
that order; arrays in other layouts are accepted. The output has the dtype of the weights.

A convolution multiplies the patches under its kernel by the weights (im2col, Chellapilla et al. 2006, section 3).
Patches are built for a few rows at a time and never stored as a whole: otherwise nine times the image would have to be
written to memory and read back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from engine.autograd.graph import Array
from engine.errors import SettingError, ShapeError

Padding: TypeAlias = Literal["same", "valid"]
"""``same``: zeros around the image, so that stride 1 keeps its size; ``valid``: none."""

CACHE_BLOCK_BYTES = 2**20
"""Bytes of patches or planes that are processed at a time, so that they stay in the L2 cache between calls. Measured
with 1/16 to twice this size: steps differ by 3%; with small batches, this size is 10% faster."""


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
    for name, value in (("kernel", kernel), ("stride", stride)):
        if value < 1:
            raise SettingError(f"conv2d: {name} {value} must be positive", setting=name)
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


def to_planes(x: Array) -> Array:
    """(batch, height, width, channels) as (channels, height, width, batch), a view."""
    return x.transpose(3, 1, 2, 0)


def from_planes(planes: Array) -> Array:
    """The inverse of :func:`to_planes`."""
    return planes.transpose(3, 1, 2, 0)


def as_matrix(x: Array) -> Array:
    """Images as (channels, height * width * batch)."""
    return np.reshape(to_planes(x), (x.shape[3], -1))


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
        if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2]:
            raise ShapeError(
                f"conv2d: images {x.shape} and weight {w.shape}: they must be (batch, height, width, channels) and "
                "(kernel, kernel, channels, filters)",
                operation="conv2d",
                shapes=(x.shape, w.shape),
            )
        batch, height, width, channels = x.shape
        rows, columns = window(height, w.shape[0], stride, padding), window(width, w.shape[1], stride, padding)
        return cls(rows, columns, channels, w.shape[3], batch)

    def mirrored(self) -> Self:
        """The geometry from y to x, with :func:`mirror` of the weights and patches of y. Only for stride 1."""
        return type(self)(self.rows.mirrored(), self.columns.mirrored(), self.filters, self.channels, self.batch)

    def gather(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """y from x: each patch times the weights, and ``b`` (filters,) added."""
        padded, weights = self._padded(x), np.reshape(w, (-1, self.filters)).T
        y = np.empty_like(w, order="C", shape=(self.filters, self.rows.count, self.columns.count, self.batch))
        outputs = y.reshape(self.filters, -1)
        for pixels, patches, elements in self._blocks(w):
            for element, index in elements:
                element[...] = padded[index]
            block = outputs[:, pixels]
            np.matmul(weights, patches, out=block)
            if b is not None:
                np.add(block, np.reshape(b, (-1, 1)), out=block)
        return from_planes(y)

    def scatter(self, y: Array, w: Array, b: Array | None = None) -> Array:
        """The adjoint of :meth:`gather`, x from y: each pixel times the weights, added to its patch.

        ``b`` (channels,) is added once.
        """
        outputs, weights = as_matrix(y), np.reshape(w, (-1, self.filters))
        x = np.empty_like(w, order="C", shape=(self.channels, self.rows.padded, self.columns.padded, self.batch))
        x[...] = 0 if b is None else np.reshape(b, (-1, 1, 1, 1))
        for pixels, patches, elements in self._blocks(w):
            np.matmul(weights, outputs[:, pixels], out=patches)
            for element, index in elements:
                target = x[index]
                np.add(target, element, out=target)
        return from_planes(x[self._inner])

    def correlate(self, x: Array, y: Array) -> Array:
        """The gradient of the weights: the sum of each patch of x times its pixel of y."""
        padded, outputs = self._padded(x), as_matrix(y)
        width = self.rows.kernel * self.columns.kernel * self.channels * self.filters
        length = SMALL_PRODUCT // width if 0 < width < SMALL_WEIGHTS else max(1, outputs.shape[1])
        total: Any = None
        for pixels, patches, elements in self._blocks(y):
            for element, index in elements:
                element[...] = padded[index]
            block = outputs[:, pixels]
            for start in range(0, max(1, block.shape[1]), length):
                columns = slice(start, start + length)
                product = np.matmul(patches[:, columns], block[:, columns].T)
                total = product if total is None else np.add(total, product, out=total)
        gradient: Array = total.reshape(self.rows.kernel, self.columns.kernel, self.channels, self.filters)
        return gradient

    @property
    def _inner(self) -> tuple[slice, slice, slice]:
        return (slice(None), self.rows.inner, self.columns.inner)

    def _padded(self, x: Array) -> Array:
        """The images as planes with zeros around."""
        rows, columns = self.rows, self.columns
        planes = np.empty_like(x, order="C", shape=(self.channels, rows.padded, columns.padded, self.batch))
        if rows.padded > rows.size or columns.padded > columns.size:
            planes[...] = 0
        planes[self._inner] = to_planes(x)
        return planes

    def _blocks(self, like: Array) -> Iterator[tuple[slice, Array, list[tuple[Array, Any]]]]:
        """Memory for the patches of a few rows at a time, with the dtype of ``like``.

        Yields:
            The pixels of y, in the order (row, column, batch); their patches as a matrix (kernel * kernel * channels,
            pixels), one patch per column; and for each element of the kernel, its view of the patches with the
            corresponding index into the padded planes.
        """
        rows, columns = self.rows, self.columns
        patch, row = rows.kernel * columns.kernel * self.channels, columns.count * self.batch
        step = min(rows.count, max(1, CACHE_BLOCK_BYTES // max(patch * row * like.dtype.itemsize, 1)))
        memory = np.empty_like(like, order="C", shape=(patch * step * row,))
        for start in range(0, rows.count, step):
            stop = min(start + step, rows.count)
            matrix = memory[: patch * (stop - start) * row].reshape(patch, (stop - start) * row)
            shape = (rows.kernel, columns.kernel, self.channels, stop - start, columns.count, self.batch)
            patches = matrix.reshape(shape)
            elements = [
                (
                    patches[i, j],
                    (slice(None), rows.pixels_under(i, start, stop), columns.pixels_under(j, 0, columns.count)),
                )
                for i in range(rows.kernel)
                for j in range(columns.kernel)
            ]
            yield slice(start * row, stop * row), matrix, elements


def mirror(w: Array) -> Array:
    """The weights of the reverse convolution: rotated by 180 degrees, with channels and filters swapped."""
    return w[::-1, ::-1].transpose(0, 1, 3, 2)
