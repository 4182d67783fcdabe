"""The primitives ``conv2d`` and ``conv2d_transpose``, composed of three products: gather, scatter and correlate.

Each product is linear in both of its arguments, and its VJPs are the other two products. So convolutions have
derivatives of any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.autograd.graph import Array, Vjp
from engine.autograd.primitive import Primitive
from engine.errors import ShapeError
from engine.ops.images.geometry import Convolution, Padding, as_rows, check_convolved, mirror, transposed_size
from engine.ops.linalg import sum_along_rows

__all__ = ["conv2d", "conv2d_transpose"]


def _prefer_adjoint(geometry: Convolution) -> bool:
    """Whether to compute with patches of the output, as the adjoint of the mirrored convolution. Only for stride 1.

    Patches of the side with fewer channels are cheaper: a layer with 32 channels and one filter then copies only 1/32.
    """
    return geometry.filters < geometry.channels and geometry.rows.stride == 1


def _gather(x: Array, w: Array, b: Array | None = None, *, geometry: Convolution) -> Array:
    if _prefer_adjoint(geometry):
        return geometry.mirrored().scatter(x, mirror(w), b)
    return geometry.gather(x, w, b)


def _scatter(y: Array, w: Array, b: Array | None = None, *, geometry: Convolution) -> Array:
    if _prefer_adjoint(geometry):
        return geometry.mirrored().gather(y, mirror(w), b)
    return geometry.scatter(y, w, b)


def _correlate(x: Array, y: Array, *, geometry: Convolution) -> Array:
    if _prefer_adjoint(geometry):
        return mirror(geometry.mirrored().correlate(y, x))
    return geometry.correlate(x, y)


gather: Primitive = Primitive(
    "gather",
    _gather,
    lambda y, x, w, geometry: lambda g: scatter(g, w, geometry=geometry),
    lambda y, x, w, geometry: lambda g: correlate(x, g, geometry=geometry),
    doc="Images y from images x and weights w: see :meth:`Convolution.gather`.",
)
scatter: Primitive = Primitive(
    "scatter_patches",
    _scatter,
    lambda x, y, w, geometry: lambda g: gather(g, w, geometry=geometry),
    lambda x, y, w, geometry: lambda g: correlate(g, y, geometry=geometry),
    doc="Images x from images y: the adjoint of :data:`gather`.",
)
correlate: Primitive = Primitive(
    "correlate",
    _correlate,
    lambda w, x, y, geometry: lambda g: scatter(y, g, geometry=geometry),
    lambda w, x, y, geometry: lambda g: gather(x, g, geometry=geometry),
    doc="Weights w from images x and y: the gradient of :data:`gather` with respect to w.",
)


def _check_bias(name: str, w: Array, b: Array, filters: int) -> None:
    if np.shape(b) != (filters,):
        raise ShapeError.of(name, f"weight {w.shape} and bias {np.shape(b)}: the bias must be ({filters},)", w, b)


def _conv2d(x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Array:
    geometry = Convolution.of(x, w, stride, padding)
    _check_bias("conv2d", w, b, geometry.filters)
    return _gather(x, w, b, geometry=geometry)


def _conv2d_back_input(y: Array, x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Vjp:
    geometry = Convolution.of(x, w, stride, padding)
    return lambda g: scatter(g, w, geometry=geometry)


def _conv2d_back_weight(y: Array, x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Vjp:
    geometry = Convolution.of(x, w, stride, padding)
    return lambda g: correlate(x, g, geometry=geometry)


def _back_bias(y: Array, x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Vjp:
    return lambda g: np.sum(sum_along_rows(as_rows(g)), axis=0)


conv2d = Primitive(
    "conv2d",
    _conv2d,
    _conv2d_back_input,
    _conv2d_back_weight,
    _back_bias,
    doc="""Convolution of images x (batch, height, width, channels) with filters w (kernel, kernel, channels, filters).

    Returns (batch, rows, columns, filters), with ``b`` (filters,) added. As in other libraries, it is a correlation:
    the kernel is not flipped. See :func:`~engine.ops.images.geometry.window` for ``stride`` and ``padding``.
    """,
)


def _adjoint_geometry(x: Any, w: Any, stride: int, padding: Padding) -> Convolution:
    """The geometry of the convolution whose adjoint maps x to larger images."""
    check_convolved("conv2d_transpose", x, w)
    sides = [transposed_size(x.shape[axis], w.shape[axis - 1], stride, padding) for axis in (1, 2)]
    large, weight = (np.empty(shape, np.bool_) for shape in ((len(x), *sides, w.shape[3]), _swap_channels(w).shape))
    return Convolution.of(large, weight, stride, padding)


def _swap_channels(w: Any) -> Any:
    """Weights with channels and filters swapped."""
    return w.transpose(0, 1, 3, 2)


def _conv2d_transpose(x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Array:
    geometry = _adjoint_geometry(x, w, stride, padding)
    _check_bias("conv2d_transpose", w, b, geometry.channels)
    return _scatter(x, _swap_channels(w), b, geometry=geometry)


def _transpose_back_input(y: Array, x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Vjp:
    geometry = _adjoint_geometry(x, w, stride, padding)
    return lambda g: gather(g, _swap_channels(w), geometry=geometry)


def _transpose_back_weight(y: Array, x: Array, w: Array, b: Array, stride: int = 1, padding: Padding = "same") -> Vjp:
    geometry = _adjoint_geometry(x, w, stride, padding)
    return lambda g: _swap_channels(correlate(g, x, geometry=geometry))


conv2d_transpose = Primitive(
    "conv2d_transpose",
    _conv2d_transpose,
    _transpose_back_input,
    _transpose_back_weight,
    _back_bias,
    doc="""Each pixel of x (batch, height, width, channels) as a patch of the output, and the patches added up.

    The adjoint of a convolution, which enlarges images ``stride`` times (Dumoulin & Visin 2016, arXiv:1603.07285,
    chapter 4): w (kernel, kernel, channels, filters), b (filters,), the result (batch, rows, columns, filters). With
    ``same`` padding, rows are height * stride; with ``valid``, (height - 1) * stride + kernel.
    """,
)
