"""Primitives on images: convolution, pooling, upsampling, flattening.

Images have the shape (batch, height, width, channels), but what these primitives make lies in memory as *planes*:
(channels, height, width, batch), the order of Krizhevsky's cuda-convnet. One row of a plane, all images of the batch
side by side, is one run of memory, and so is all that a convolution copies, multiplies and adds up. NumPy's
elementwise functions keep that order; arrays in any other are taken too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from engine.errors import SettingError, ShapeError
from engine.primitives import Primitive
from engine.recording import Array, Vjp

Padding: TypeAlias = Literal["same", "valid"]
"""``same``: zeros around the image, such that stride 1 keeps its size; ``valid``: none."""

_CACHED = 2**20
"""Bytes of patches or planes worked on at a time: from one call to the next they stay in a core's second-level cache.
Measured from a sixteenth to twice of it: the time of a step differs by 3%, with small batches by 10% in its favour."""


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel moves along one axis.

    Attributes:
        kernel, stride: in pixels.
        before, size, after: zeros before the image, its pixels, and zeros after it.
        count: positions: pixels of the output.
    """

    kernel: int
    stride: int
    before: int
    size: int
    after: int
    count: int

    @property
    def padded(self) -> int:
        """Pixels with the zeros."""
        return self.before + self.size + self.after

    @property
    def inner(self) -> slice:
        """Where the image lies between the zeros."""
        return slice(self.before, self.before + self.size)

    def under(self, offset: int, start: int, stop: int) -> slice:
        """The pixels that element ``offset`` of the kernel lies on at the positions ``start`` to ``stop`` - 1."""
        return slice(offset + start * self.stride, offset + (stop - 1) * self.stride + 1, self.stride)


def window(size: int, kernel: int, stride: int, padding: Padding) -> Window:
    """The window of a convolution along an axis of ``size`` pixels.

    ``same`` gives ceil(size / stride) positions; where the zeros cannot be equal on both sides, the odd one comes
    after the image, as in TensorFlow.

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


def _to_planes(x: Array) -> Array:
    """(batch, height, width, channels) as (channels, height, width, batch), a view."""
    return x.transpose(3, 1, 2, 0)


def _from_planes(planes: Array) -> Array:
    """The inverse of :func:`_to_planes`."""
    return planes.transpose(3, 1, 2, 0)


def _as_matrix(x: Array) -> Array:
    """Images as (channels, height * width * batch)."""
    return np.reshape(_to_planes(x), (x.shape[3], -1))


class _Convolution:
    """The geometry of one convolution, and its patches: im2col of Chellapilla et al. 2006, section 3.

    The patches of a few rows are made at a time, where a product reads them or writes them, and never kept: nine
    times the input would have to go to memory and back otherwise.
    """

    def __init__(self, x: Array, w: Array, stride: int, padding: Padding) -> None:
        if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2]:
            raise ShapeError(
                f"conv2d: images {x.shape} and weight {w.shape}: they must be (batch, height, width, channels) and "
                "(kernel, kernel, channels, filters)",
                operation="conv2d",
                shapes=(x.shape, w.shape),
            )
        self.batch, height, width, self.channels = x.shape
        self.rows = window(height, w.shape[0], stride, padding)
        self.columns = window(width, w.shape[1], stride, padding)
        self.dtype = np.result_type(x.dtype, w.dtype)
        self.inner = (slice(None), self.rows.inner, self.columns.inner)

    def planes(self, like: Array, channels: int, height: int, width: int) -> Array:
        """Memory for images, as planes."""
        return np.empty_like(like, self.dtype, "C", shape=(channels, height, width, self.batch))

    def padded(self, x: Array) -> Array:
        """The images as planes with zeros around."""
        rows, columns = self.rows, self.columns
        planes = self.planes(x, self.channels, rows.padded, columns.padded)
        if rows.before or columns.before or rows.after or columns.after:
            planes[...] = 0
        planes[self.inner] = _to_planes(x)
        return planes

    def blocks(self, like: Array) -> Iterator[tuple[slice, Array, list[tuple[Array, Any]]]]:
        """Memory for the patches of some rows at a time.

        Yields:
            Which pixels of the output these are, in the order (row, column, batch); their patches as a matrix
            (kernel * kernel * channels, pixels), one patch a column; and for each element of the kernel its part of
            the patches, with the index of the padded planes that it stands for.
        """
        rows, columns = self.rows, self.columns
        patch, row = rows.kernel * columns.kernel * self.channels, columns.count * self.batch
        step = min(rows.count, max(1, _CACHED // max(patch * row * self.dtype.itemsize, 1)))
        memory = np.empty_like(like, self.dtype, "C", shape=(patch * step * row,))
        for start in range(0, rows.count, step):
            stop = min(start + step, rows.count)
            matrix = memory[: patch * (stop - start) * row].reshape(patch, (stop - start) * row)
            shape = (rows.kernel, columns.kernel, self.channels, stop - start, columns.count, self.batch)
            patches = matrix.reshape(shape)
            parts = [
                (patches[i, j], (slice(None), rows.under(i, start, stop), columns.under(j, 0, columns.count)))
                for i in range(rows.kernel)
                for j in range(columns.kernel)
            ]
            yield slice(start * row, stop * row), matrix, parts


def _conv2d(x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Array:
    geometry = _Convolution(x, w, stride, padding)
    filters = w.shape[3]
    padded = geometry.padded(x)
    weights, bias = np.reshape(w, (-1, filters)).T, np.reshape(b, (filters, 1))
    y = geometry.planes(x, filters, geometry.rows.count, geometry.columns.count)
    outputs = y.reshape(filters, -1)
    for pixels, matrix, parts in geometry.blocks(x):
        for part, index in parts:
            part[...] = padded[index]
        block = outputs[:, pixels]
        np.matmul(weights, matrix, out=block)
        np.add(block, bias, out=block)
    return _from_planes(y)


def _conv2d_back_input(y: Array, x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Vjp:
    geometry = _Convolution(x, w, stride, padding)

    def vjp(g: Array) -> Array:
        gradient = geometry.planes(g, geometry.channels, geometry.rows.padded, geometry.columns.padded)
        gradient[...] = 0
        outputs, weights = _as_matrix(g), np.reshape(w, (-1, w.shape[3]))
        for pixels, matrix, parts in geometry.blocks(g):
            np.matmul(weights, outputs[:, pixels], out=matrix)
            for part, index in parts:
                target = gradient[index]
                np.add(target, part, out=target)
        return _from_planes(gradient[geometry.inner])

    return vjp


def _conv2d_back_weight(y: Array, x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Vjp:
    geometry = _Convolution(x, w, stride, padding)
    shape = w.shape

    def vjp(g: Array) -> Array:
        padded, outputs = geometry.padded(x), _as_matrix(g)
        total: Any = None
        for pixels, matrix, parts in geometry.blocks(g):
            for part, index in parts:
                part[...] = padded[index]
            share = np.matmul(matrix, outputs[:, pixels].T)
            total = share if total is None else np.add(total, share, out=total)
        gradient: Array = total.reshape(shape)
        return gradient

    return vjp


conv2d = Primitive(
    "conv2d",
    _conv2d,
    _conv2d_back_input,
    _conv2d_back_weight,
    lambda y, x, w, b, stride=1, padding="same": lambda g: _as_matrix(g).sum(axis=1),
    doc="""Images x (batch, height, width, channels) under the filters w (kernel, kernel, channels, filters).

    Gives (batch, rows, columns, filters), with ``b`` (filters,) added. It is a correlation, as in all such libraries:
    the kernel is not flipped. See :func:`window` for ``stride`` and ``padding``.
    """,
)


def _check_pool(x: Array, size: int) -> None:
    if size < 1:
        raise SettingError(f"max_pool2d: size {size} must be positive", setting="size")
    if x.ndim != 4 or x.shape[1] % size or x.shape[2] % size:
        raise ShapeError(
            f"max_pool2d: windows of {size} x {size} do not divide images {x.shape}",
            operation="max_pool2d",
            shapes=(x.shape,),
        )


def _max_pool2d(x: Array, size: int = 2) -> Array:
    _check_pool(x, size)
    planes = _to_planes(x)
    rows = planes[:, ::size]
    for i in range(1, size):
        rows = np.maximum(rows, planes[:, i::size])
    y = rows[:, :, ::size]
    for j in range(1, size):
        y = np.maximum(y, rows[:, :, j::size])
    return _from_planes(y)


def _max_pool2d_back(y: Array, x: Array, size: int = 2) -> Vjp:
    parts = [(slice(None), slice(i, None, size), slice(j, None, size)) for i in range(size) for j in range(size)]

    def vjp(g: Array) -> Array:
        gradient = np.empty_like(g, order="C", shape=_to_planes(x).shape)
        step = max(1, _CACHED // max(gradient[:1].nbytes, 1))
        for start in range(0, len(gradient), step):
            some = slice(start, start + step)
            planes, largest, outputs = (_to_planes(array)[some] for array in (x, y, g))
            free: Any = None  # where no part before was the largest of its window
            for part in parts[:-1]:
                here = np.equal(planes[part], largest)
                first = here if free is None else np.logical_and(here, free)
                np.multiply(outputs, first, out=gradient[some][part])
                free = np.logical_not(here) if free is None else np.greater(free, here)
            if free is None:
                gradient[some] = outputs
            else:
                np.multiply(outputs, free, out=gradient[some][parts[-1]])
        return _from_planes(gradient)

    return vjp


max_pool2d = Primitive(
    "max_pool2d",
    _max_pool2d,
    _max_pool2d_back,
    doc="""The largest of each window of size x size pixels: (batch, height / size, width / size, channels).

    The gradient goes to the first of several equal maxima, in the order of reading: sharing it, as ``max`` does,
    would cost another pass.
    """,
)


def _upsample2d(x: Array, size: int = 2) -> Array:
    if size < 1:
        raise SettingError(f"upsample2d: size {size} must be positive", setting="size")
    if x.ndim != 4:
        raise ShapeError(f"upsample2d: {x.shape} is not (batch, height, width, channels)", operation="upsample2d")
    planes = _to_planes(x)
    channels, height, width, batch = planes.shape
    y = np.empty_like(x, order="C", shape=(channels, height * size, width * size, batch))
    for i in range(size):
        for j in range(size):
            y[:, i::size, j::size] = planes
    return _from_planes(y)


def _upsample2d_back(y: Array, x: Array, size: int = 2) -> Vjp:
    def vjp(g: Array) -> Array:
        outputs = _to_planes(g)
        rows = outputs[:, ::size]
        for i in range(1, size):
            rows = np.add(rows, outputs[:, i::size])
        gradient = rows[:, :, ::size]
        for j in range(1, size):
            gradient = np.add(gradient, rows[:, :, j::size])
        return _from_planes(gradient)

    return vjp


upsample2d = Primitive(
    "upsample2d",
    _upsample2d,
    _upsample2d_back,
    doc="""Each pixel size x size times: nearest-neighbour upsampling.

    With a convolution after it, it does a transposed convolution's work without that one's checkerboards (Odena et
    al. 2016, "Deconvolution and checkerboard artifacts").
    """,
)


def _flatten(x: Array) -> Array:
    if x.ndim < 2:
        raise ShapeError(f"flatten: {x.shape} has no batch axis and others after it", operation="flatten")
    inner = (*range(1, x.ndim), 0)
    columns = np.empty_like(x, order="C", shape=[x.shape[axis] for axis in inner])
    columns[...] = x.transpose(inner)
    return columns.reshape(-1, len(x)).T


def _flatten_back(y: Array, x: Array) -> Vjp:
    shape = x.shape
    return lambda g: np.reshape(g, shape)


flatten = Primitive(
    "flatten", _flatten, _flatten_back, doc="Images, or whatever has a batch axis, as rows: (batch, features)."
)
