"""A trained network, layer by layer with its weights, as all export formats use it."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

import engine
from engine import Sequential
from engine.nn.layer import Layer as NetworkLayer
from service import kinds
from service.kinds.kind import Ability
from service.models.exports.photos import PhotoPreparation
from service.spec.schema import (
    Conv2D,
    Conv2DTranspose,
    Layer,
    Padding,
    Residual,
    Spec,
)

Array = NDArray[Any]
Size = tuple[int, ...]
"""The shape of one example, as in the engine: (numbers,), or (rows, columns, channels)."""
GELU_SCALE, GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715
"""Of ``engine.ops.gelu``."""


@dataclass(frozen=True, slots=True)
class TrainedLayer:
    """A layer of the spec, with the sizes of its input and output and its weights by name.

    Attributes:
        path: its number, preceded by the numbers of the layers that contain it.
        inner: the layers that it contains, which have the weights.
        statistics: names of the tensors that are not parameters: the running statistics of batch
            normalization.
    """

    path: tuple[int, ...]
    layer: Layer
    before: Size
    after: Size
    tensors: Mapping[str, Array]
    inner: Sequence[Self] = ()
    statistics: Collection[str] = ()

    @property
    def name(self) -> str:
        """Its name in checkpoints: ``layers.3``; a layer inside of that one is ``layers.3.layers.0``."""
        return ".".join(f"layers.{number}" for number in self.path)

    def all(self) -> Iterator[Self]:
        """This layer, and those inside of it."""
        yield self
        for layer in self.inner:
            yield from layer.all()


@dataclass(frozen=True)
class TrainedModel:
    """The network of a checkpoint: a classifier, a regressor, or the generator of a GAN.

    Attributes:
        network: with the weights of the checkpoint.
        image_shape: (rows, columns), or (rows, columns, 3) in colour; empty for a table.
        class_names: of a classifier, in the order of its outputs.
        columns: for a table, the entries of its preprocessing (see ``service.datasets.tables.preprocessing``).
        photos: how image files are prepared for a classifier that was trained on such files.
        unused_columns: for a table, columns that rows may have, but that the network does not use.
        target: of a regressor, the name, mean and scale of the column that it predicts.
    """

    spec: Spec
    network: Sequential
    image_shape: Size
    class_names: Sequence[str]
    columns: Sequence[Mapping[str, Any]] = ()
    photos: PhotoPreparation | None = None
    unused_columns: Sequence[str] = ()
    target: Mapping[str, Any] | None = None

    @functools.cached_property
    def layers(self) -> Sequence[TrainedLayer]:
        """The layers of the spec, with the sizes and weights of those of the network."""
        layers = self.spec.trained_networks[0].layers
        return _pair_layers(layers, self.network.layers, self.network.input_shape)

    @property
    def input_size(self) -> Size:
        """Size of one example of the input of the first layer."""
        return self.network.input_shape

    @property
    def generates(self) -> bool:
        """Whether the network is a generator."""
        return Ability.GENERATE in kinds.of(self.spec.kind).abilities

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
        """Number of trained weights and biases, as in a dry run."""
        return sum(
            array.size
            for trained in self.all_layers
            for name, array in trained.tensors.items()
            if name not in trained.statistics
        )

    @property
    def all_layers(self) -> Sequence[TrainedLayer]:
        """The layers, and those inside of layers."""
        return [layer for trained in self.layers for layer in trained.all()]

    @property
    def classes(self) -> int:
        """Number of classes of a conditional generator; 0 for any other model."""
        return len(self.class_names) if self.spec.takes_class else 0

    @property
    def latent_dim(self) -> int:
        """Length of a latent point."""
        return self.input_size[0] - self.classes


def _pair_layers(
    layers: Sequence[Layer], network_layers: Sequence[NetworkLayer], size: Size, parent_path: tuple[int, ...] = ()
) -> list[TrainedLayer]:
    """Pair consecutive layers of a spec and of a network, the first for inputs of this size."""
    trained_layers = []
    for number, (layer, network) in enumerate(zip(layers, network_layers, strict=True)):
        path, after = (*parent_path, number), network.output_shape(size)
        if isinstance(layer, Residual) and isinstance(network, engine.Residual):
            trained = TrainedLayer(path, layer, size, after, {}, _pair_layers(layer.layers, network.layers, size, path))
        else:
            tensors = {name: np.asarray(tensor) for name, tensor in (network.parameters | network.buffers).items()}
            trained = TrainedLayer(path, layer, size, after, tensors, statistics=tuple(network.buffers))
        trained_layers.append(trained)
        size = after
    return trained_layers


def zeros_around(layer: Conv2D | Conv2DTranspose, before: Size, after: Size) -> tuple[int, int, int, int]:
    """The padding above, left of, below and right of the image. An odd zero is added at the end, as in
    ``engine.ops.images.geometry``. For a transposed convolution, the padding is cut off its output."""
    if layer.padding is Padding.VALID:
        return 0, 0, 0, 0
    large, small = (before, after) if isinstance(layer, Conv2D) else (after, before)
    rows, columns = (
        max((count - 1) * layer.stride + layer.kernel - size, 0)
        for size, count in zip(large[:2], small[:2], strict=True)
    )
    return rows // 2, columns // 2, rows - rows // 2, columns - columns // 2


def trailing_rows(layer: Conv2DTranspose) -> int:
    """Rows and columns after the last patch of a transposed convolution, which contain only its bias."""
    return max(layer.stride - layer.kernel, 0) if layer.padding is Padding.SAME else 0
