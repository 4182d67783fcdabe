"""Layers of presets for images of other sizes than that of MNIST, for which they are written.

Layers are added, removed or made smaller, so that a network covers about the same part of an image as of a digit, at a
similar cost if possible.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from service.schema.base import StrictModel
from service.schema.layer_shapes import Shape
from service.schema.layers import Conv2D, Dense, Flatten, Layer

MAX_LAYER_WEIGHTS: Final = 2**23
"""Maximum number of weights of one layer of a preset."""
MAX_LAYER_NUMBERS: Final = 2**17
"""Limit of the values that a preset's convolution outputs for one image, where it can be met."""
SMALLEST_HALVED: Final = 8
"""Convolutions halve images as long as the smaller side has at least this many pixels: 28, 14, 7."""
LARGEST_SEEN: Final = 15 * 15
"""Area in pixels: convolutions continue to halve images until they are at most this large."""


P = TypeVar("P", bound=StrictModel)
L = TypeVar("L", bound=StrictModel)


def downsampling_convolutions(
    convolutions: Sequence[Conv2D], shape: Shape, *, pool: Layer | None = None, norm: Layer | None = None
) -> tuple[list[Layer], int]:
    """Convolutions that halve an image until it is small, and the number of values that they output.

    With ``pool``, pooling halves the image; if the sides are odd and its windows do not divide them, the stride does.
    """
    rows, columns = shape.rows, shape.columns
    adapted: list[Layer] = []
    for index in itertools.count():
        if index < len(convolutions):
            conv = convolutions[index]
        elif rows * columns > LARGEST_SEEN and min(rows, columns) >= SMALLEST_HALVED:
            conv = with_values(convolutions[-1], filters=2 * convolutions[-1].filters)
        else:
            return adapted, rows * columns * last_of_kind(Conv2D, adapted).filters
        shorter_side, stride = min(rows, columns), 1
        while -(-rows // stride) * -(-columns // stride) * conv.filters > MAX_LAYER_NUMBERS:
            stride += 1
        rows, columns = -(-rows // stride), -(-columns // stride)
        is_pooled = False
        if min(rows, columns) >= SMALLEST_HALVED:
            is_pooled = pool is not None and rows % 2 == 0 and columns % 2 == 0
            stride *= 1 if is_pooled else 2
            rows, columns = -(-rows // 2), -(-columns // 2)
        kernel = min(max(conv.kernel, stride + 1), shorter_side)  # the kernel covers every pixel
        adapted.append(with_values(conv, kernel=kernel, stride=stride))
        adapted += [layer for layer in (pool if is_pooled else None, norm) if layer is not None]
    raise AssertionError("unreachable")


def narrow(layers: Sequence[Layer], numbers: int) -> list[Layer]:
    """Reduce the units of hidden dense layers that would have, or cause, too many weights."""
    output_units = last_of_kind(Dense, layers).units
    adapted = []
    for layer in layers[:-1]:
        if isinstance(layer, Dense):
            layer = with_values(layer, units=limit(layer.units, MAX_LAYER_WEIGHTS, each=max(numbers, output_units)))
            numbers = layer.units
        adapted.append(layer)
    return [*adapted, layers[-1]]


def limit(count: int, *limits: int, each: int) -> int:
    """The largest number up to ``count`` whose product with ``each`` is within all limits; at least 1."""
    return max(1, min(count, *(limit // max(1, each) for limit in limits)))


def flatten_index(layers: Sequence[Layer]) -> int:
    """Index of the flatten layer."""
    return next(index for index, layer in enumerate(layers) if isinstance(layer, Flatten))


def of_kind(kind: type[L], layers: Sequence[Layer]) -> Iterator[L]:
    """The layers of a type."""
    return (layer for layer in layers if isinstance(layer, kind))


def last_of_kind(kind: type[L], layers: Sequence[Layer]) -> L:
    """The last of them."""
    return list(of_kind(kind, layers))[-1]


def with_values(model: P, **values: Any) -> P:
    """A model with other values."""
    return model.model_copy(update=values)


def object_of(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object of a document as sent; empty if it has none."""
    value = document.get(name)
    return value if isinstance(value, dict) else {}
