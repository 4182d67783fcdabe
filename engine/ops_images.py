"""Primitives on images: convolution, pooling, upsampling, flattening.

Images have the shape (batch, height, width, channels); in memory they lie as planes (:mod:`engine.convolution`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine import convolution
from engine.convolution import Convolution, Padding, as_matrix, from_planes, mirror, to_planes
from engine.errors import SettingError, ShapeError
from engine.primitives import Primitive
from engine.recording import Array, Vjp

# A convolution of stride 1 can be done by the patches of its input or, seen from the other end, by those of its output.
# The thinner ones are the cheaper ones: a layer of 32 channels and one filter copies a 32nd that way.


def _is_thinner_behind(geometry: Convolution) -> bool:
    return geometry.filters < geometry.channels and geometry.rows.stride == 1


def _conv2d(x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Array:
    geometry = Convolution.of(x, w, stride, padding)
    if _is_thinner_behind(geometry):
        return geometry.mirrored().scatter(x, mirror(w), b)
    return geometry.gather(x, w, b)


def _conv2d_back_input(y: Array, x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Vjp:
    geometry = Convolution.of(x, w, stride, padding)
    if _is_thinner_behind(geometry):
        return lambda g: geometry.mirrored().gather(g, mirror(w))
    return lambda g: geometry.scatter(g, w)


def _conv2d_back_weight(y: Array, x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Vjp:
    geometry = Convolution.of(x, w, stride, padding)
    if _is_thinner_behind(geometry):
        return lambda g: mirror(geometry.mirrored().correlate(g, x))
    return lambda g: geometry.correlate(x, g)


conv2d = Primitive(
    "conv2d",
    _conv2d,
    _conv2d_back_input,
    _conv2d_back_weight,
    lambda y, x, w, b, stride=1, padding="same": lambda g: as_matrix(g).sum(axis=1),
    doc="""Images x (batch, height, width, channels) under the filters w (kernel, kernel, channels, filters).

    Gives (batch, rows, columns, filters), with ``b`` (filters,) added. It is a correlation, as in all such libraries:
    the kernel is not flipped. See :func:`engine.convolution.window` for ``stride`` and ``padding``.
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
        step = max(1, convolution.CACHED // max(gradient[:1].nbytes, 1))
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


def _flatten(x: Array) -> Array:
    if x.ndim < 2:
        raise ShapeError(f"flatten: {x.shape} has no batch axis and others after it", operation="flatten")
    inner = (*range(1, x.ndim), 0)
    columns = np.empty_like(x, order="C", shape=[x.shape[axis] for axis in inner])
    columns[...] = x.transpose(inner)
    return columns.reshape(math.prod(x.shape[1:]), len(x)).T  # -1 would be anything in an empty batch


def _flatten_back(y: Array, x: Array) -> Vjp:
    shape = x.shape
    return lambda g: np.reshape(g, shape)


flatten = Primitive(
    "flatten", _flatten, _flatten_back, doc="Images, or whatever has a batch axis, as rows: (batch, features)."
)
