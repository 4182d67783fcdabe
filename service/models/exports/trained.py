"""A trained network, layer by layer with its weights, as all export formats use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, assert_never

import numpy as np
from numpy.typing import NDArray

from engine import Sequential
from service.spec.schema import (
    ClassifierSpec,
    Conv2D,
    GanSpec,
    Layer,
    Padding,
    Spec,
)

Array = NDArray[Any]
Size = tuple[int, ...]
"""The shape of one example, as in the engine: (numbers,), or (rows, columns, channels)."""


@dataclass(frozen=True, slots=True)
class PlacedLayer:
    """A layer of the spec, with the sizes of its input and output and its weights by name."""

    number: int
    layer: Layer
    before: Size
    after: Size
    tensors: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """The network of a checkpoint: a classifier, or the generator of a GAN.

    Attributes:
        input_size: size of one example of the input of the first layer.
        image_shape: (rows, columns), or (rows, columns, 3) in colour; empty for a table.
        class_names: of a classifier, in the order of its outputs.
    """

    spec: Spec
    input_size: Size
    layers: Sequence[PlacedLayer]
    image_shape: Size
    class_names: Sequence[str]
    columns: Sequence[Mapping[str, Any]] = ()
    """For a table, the entries of its preprocessing (see ``service.datasets.tables.preprocessing``)."""

    @classmethod
    def of(
        cls,
        spec: Spec,
        network: Sequential,
        image_shape: Sequence[int],
        class_names: Sequence[str],
        columns: Sequence[Mapping[str, Any]] = (),
    ) -> Self:
        """Build from a network that has the weights of a checkpoint."""
        sizes = [network.input_shape, *network.layer_shapes]
        placed = [
            PlacedLayer(
                number,
                layer,
                sizes[number],
                sizes[number + 1],
                {name: np.asarray(tensor) for name, tensor in (made.parameters | made.buffers).items()},
            )
            for number, (layer, made) in enumerate(zip(layers_of(spec), network.layers, strict=True))
        ]
        return cls(spec, network.input_shape, placed, tuple(image_shape), tuple(class_names), columns)

    @property
    def generates(self) -> bool:
        """Whether the network is a generator."""
        return isinstance(self.spec, GanSpec)

    @property
    def is_table(self) -> bool:
        """Whether the inputs are rows of a table."""
        return bool(self.columns)

    @property
    def scale(self) -> tuple[float, float]:
        """The values to which the levels 0 and 255 are mapped."""
        low, high = self.spec.dataset.scale
        return low, high

    @property
    def parameters(self) -> int:
        """Number of trained values, including running statistics."""
        return sum(array.size for placed in self.layers for array in placed.tensors.values())


def layers_of(spec: Spec) -> Sequence[Layer]:
    """The layers of the exported network."""
    match spec:
        case ClassifierSpec():
            return spec.layers
        case GanSpec():
            return spec.generator.layers
        case _:
            assert_never(spec)


def zeros_around(layer: Conv2D, before: Size, after: Size) -> tuple[int, int, int, int]:
    """The padding above, left of, below and right of the image. An odd zero is added at the end, as in
    ``engine.ops.images.geometry``."""
    if layer.padding is Padding.VALID:
        return 0, 0, 0, 0
    rows, columns = (
        max((count - 1) * layer.stride + layer.kernel - size, 0)
        for size, count in zip(before[:2], after[:2], strict=True)
    )
    return rows // 2, columns // 2, rows - rows // 2, columns - columns // 2
