"""Pooling and upsampling of images (batch, height, width, channels).

The memory layout of images is planes (:mod:`engine.ops.images.geometry`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.primitive import Primitive
from engine.autograd.tensor import untracked
from engine.errors import ShapeError, check_positive
from engine.ops.images import geometry
from engine.ops.images.geometry import from_planes, to_planes

__all__ = ["max_pool2d", "sum_pool2d", "upsample2d"]


def _check_pool(x: Array, size: int, name: str) -> None:
    check_positive(f"{name}: ", size=size)
    if x.ndim != 4 or x.shape[1] % size or x.shape[2] % size:
        raise ShapeError.of(name, f"windows of {size} x {size} do not divide images {x.shape}", x)


def _pool(name: str, combine: np.ufunc) -> Any:
    """The function that combines the pixels of each window: first those of a column, then those of a row."""

    def pool(x: Array, size: int = 2) -> Array:
        _check_pool(x, size, name)
        planes = to_planes(x)
        rows = planes[::size]
        for i in range(1, size):
            rows = combine(rows, planes[i::size])
        y = rows[:, :, ::size]
        for j in range(1, size):
            y = combine(y, rows[:, :, j::size])
        return from_planes(y)

    return pool


_max_pool2d, _sum_pool2d = _pool("max_pool2d", np.maximum), _pool("sum_pool2d", np.add)


def _window_pixels(size: int) -> list[tuple[slice, slice, slice]]:
    """Indices into planes: each selects one pixel of every window."""
    return [(slice(i, None, size), slice(None), slice(j, None, size)) for i in range(size) for j in range(size)]


def _unpool(g: Array, x: Array, y: Array, size: int) -> Array:
    """The gradient of the pixels x of windows with the maximum y."""
    window_pixels = _window_pixels(size)
    gradient = np.empty_like(g, order="C", shape=to_planes(x).shape)
    step = max(1, geometry.CACHE_BLOCK_BYTES // max(gradient[:size].nbytes, 1))
    for start in range(0, g.shape[1], step):
        pooled, block = slice(start, start + step), slice(start * size, (start + step) * size)
        planes, largest, outputs = to_planes(x)[block], to_planes(y)[pooled], to_planes(g)[pooled]
        unclaimed: Any = None  # mask of windows whose maximum was not found yet
        for pixel in window_pixels[:-1]:
            is_maximum = np.equal(planes[pixel], largest)
            is_first = is_maximum if unclaimed is None else np.logical_and(is_maximum, unclaimed)
            np.multiply(outputs, is_first, out=gradient[block][pixel])
            unclaimed = np.logical_not(is_maximum) if unclaimed is None else np.greater(unclaimed, is_maximum)
        if unclaimed is None:
            gradient[block] = outputs
        else:
            np.multiply(outputs, unclaimed, out=gradient[block][window_pixels[-1]])
    return from_planes(gradient)


def _pick(h: Array, x: Array, y: Array, size: int) -> Array:
    """The element of each window of h at the position of the maximum y of x: the adjoint of :func:`_unpool`."""
    chosen = np.multiply(h, _unpool(np.ones_like(y), x, y, size))
    picked: Array = _sum_pool2d(chosen, size)
    return picked


_unpooled: Primitive = Primitive("max_unpool2d", _unpool, lambda out, g, **options: lambda h: _picked(h, **options))
_picked: Primitive = Primitive("pick_of_windows", _pick, lambda out, h, **options: lambda g: _unpooled(g, **options))

max_pool2d = Primitive(
    "max_pool2d",
    _max_pool2d,
    lambda y, x, size=2: lambda g: _unpool(g, x, y, size),
    graph=[lambda y, x, size=2: lambda g: _unpooled(g, x=untracked(x), y=untracked(y), size=size)],
    doc="""The maximum of each window of size x size pixels: (batch, height / size, width / size, channels).

    The gradient goes to the first of several equal maxima, in reading order. Sharing it, as ``max`` does, would cost
    another pass.
    """,
)


def _upsample2d(x: Array, size: int = 2) -> Array:
    check_positive("upsample2d: ", size=size)
    if x.ndim != 4:
        raise ShapeError.of("upsample2d", f"{x.shape} is not (batch, height, width, channels)", x)
    planes = to_planes(x)
    height, channels, width, batch = planes.shape
    y = np.empty_like(x, order="C", shape=(height * size, channels, width * size, batch))
    for i in range(size):
        for j in range(size):
            y[i::size, :, j::size] = planes
    return from_planes(y)


sum_pool2d = Primitive(
    "sum_pool2d",
    _sum_pool2d,
    lambda y, x, size=2: lambda g: upsample2d(g, size=size),
    doc="The sum of each window of size x size pixels: (batch, height / size, width / size, channels).",
)

upsample2d: Primitive = Primitive(
    "upsample2d",
    _upsample2d,
    lambda y, x, size=2: lambda g: sum_pool2d(g, size=size),
    doc="""Nearest-neighbour upsampling: repeats each pixel size x size times.

    Followed by a convolution, it replaces a transposed convolution without checkerboard patterns (Odena et al. 2016,
    "Deconvolution and checkerboard artifacts").
    """,
)
