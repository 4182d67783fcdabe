"""Primitives that shrink and enlarge images (batch, height, width, channels): max pooling and upsampling.

In memory images lie as planes (:mod:`engine.ops.convolution`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.autograd.graph import Array, Vjp
from engine.autograd.primitive import Primitive
from engine.errors import SettingError, ShapeError
from engine.ops import convolution
from engine.ops.convolution import from_planes, to_planes


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
    planes = to_planes(x)
    rows = planes[:, ::size]
    for i in range(1, size):
        rows = np.maximum(rows, planes[:, i::size])
    y = rows[:, :, ::size]
    for j in range(1, size):
        y = np.maximum(y, rows[:, :, j::size])
    return from_planes(y)


def _max_pool2d_back(y: Array, x: Array, size: int = 2) -> Vjp:
    parts = [(slice(None), slice(i, None, size), slice(j, None, size)) for i in range(size) for j in range(size)]

    def vjp(g: Array) -> Array:
        gradient = np.empty_like(g, order="C", shape=to_planes(x).shape)
        step = max(1, convolution.CACHE_BLOCK_BYTES // max(gradient[:1].nbytes, 1))
        for start in range(0, len(gradient), step):
            some = slice(start, start + step)
            planes, largest, outputs = (to_planes(array)[some] for array in (x, y, g))
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
        return from_planes(gradient)

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
    planes = to_planes(x)
    channels, height, width, batch = planes.shape
    y = np.empty_like(x, order="C", shape=(channels, height * size, width * size, batch))
    for i in range(size):
        for j in range(size):
            y[:, i::size, j::size] = planes
    return from_planes(y)


def _upsample2d_back(y: Array, x: Array, size: int = 2) -> Vjp:
    def vjp(g: Array) -> Array:
        outputs = to_planes(g)
        rows = outputs[:, ::size]
        for i in range(1, size):
            rows = np.add(rows, outputs[:, i::size])
        gradient = rows[:, :, ::size]
        for j in range(1, size):
            gradient = np.add(gradient, rows[:, :, j::size])
        return from_planes(gradient)

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
