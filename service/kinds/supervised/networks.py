"""The network of a classifier or regressor, for a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.kinds.resizing import downsampling_convolutions, flatten_index, narrow, of_kind, with_values
from service.kinds.supervised.spec import SupervisedSpec
from service.schema.layer_shapes import Network, Shape, picture_size, walk
from service.schema.layers import BatchNorm, Conv2D, Layer, MaxPool2D


def networks(spec: SupervisedSpec, shape: Shape) -> list[Network]:
    """Its only network."""
    return [walk("layers", spec.layers, picture_size(spec.layers, shape.picture))]


def adapt_layers(spec: SupervisedSpec, document: Mapping[str, Any], shape: Shape, units: int) -> Sequence[Layer]:
    """The layers for a dataset of this shape, unless the document has its own.

    Args:
        units: of the last layer.
    """
    return spec.layers if "layers" in document else _resized(spec.layers, shape, units)


def _resized(layers: Sequence[Layer], shape: Shape, units: int) -> list[Layer]:
    resized = [*layers[:-1], with_values(layers[-1], units=units)]
    if not isinstance(layers[0], Conv2D):
        return narrow(resized, shape.pixels)
    pool, norm = next(of_kind(MaxPool2D, layers)), next(of_kind(BatchNorm, layers))
    features, numbers = downsampling_convolutions(list(of_kind(Conv2D, layers)), shape, pool=pool, norm=norm)
    return [*features, *narrow(resized[flatten_index(layers) :], numbers)]
