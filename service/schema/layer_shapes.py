"""Shape inference: the output size and cost of each layer of a network, and the layers that do not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.errors import Fault
from service.schema.base import MAX_OUTPUTS
from service.schema.layers import Dropout, Layer, LayerShape, Misfit, Residual, Size, shown
from service.states import DatasetKind, Task

_COLOUR: Final = 3
"""Number of channels of a colour image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The facts of a dataset that a spec must fit: image size, channels, number of classes and of examples."""

    rows: int
    columns: int
    channels: int = 1
    """1 for grey, 3 for colour."""
    kind: DatasetKind = DatasetKind.IMAGES
    """For a table, ``rows`` is 1 and ``columns`` is the number of inputs."""
    classes: int
    """0 for a table whose target is a number."""
    train_count: int
    validation_count: int = 0
    """0 if unknown."""
    test_count: int = 0
    divided: bool = False
    """Whether the spec splits the examples anew; both parts are then copied into memory."""

    @property
    def task(self) -> Task:
        """What a network learns from the dataset."""
        return Task.of(self.kind, self.classes)

    @property
    def picture(self) -> Size:
        """Rows, columns and channels of one image."""
        return self.rows, self.columns, self.channels

    @property
    def pixels(self) -> int:
        """Number of values of one image; a colour pixel has three."""
        return math.prod(self.picture)

    @property
    def described(self) -> str:
        """The image size as text, such as ``32 x 32 in colour``."""
        return f"{self.rows} x {self.columns}{' in colour' if self.channels == _COLOUR else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of a spec, with the shapes of its layers.

    Attributes:
        where: JSON pointer to its layers, without the leading ``#/``.
        input_size: size of one example of its input.
        layer_shapes: its layers with their shapes, up to the first after which no shape can be inferred.
        faults: the layers that do not fit.
        probes: batches of examples that its diagnostics are measured on.
        passes: number of forward and backward passes per step, for each image of the batch.
    """

    where: str
    layers: Sequence[Layer]
    input_size: Size
    layer_shapes: Sequence[LayerShape]
    faults: Sequence[Fault]
    passes: float = 1.0
    probes: int = 1

    @property
    def pointer(self) -> str:
        """JSON pointer to its layers."""
        return f"#/{self.where}"


def picture_size(layers: Sequence[Layer], picture: Sequence[int]) -> Size:
    """Input size of a network that receives images: an image if its first layer works on images, else a flat vector.

    Args:
        picture: (rows, columns), or (rows, columns, channels).
    """
    rows, columns, channels = (*picture, 1)[:3]
    first = next((layer for layer in layers if not isinstance(layer, Dropout)), None)
    if isinstance(first, Residual):
        return picture_size(first.layers, picture)
    is_for_images = first is not None and first.for_images
    return (rows, columns, channels) if is_for_images else (rows * columns * channels,)


def walk(where: str, layers: Sequence[Layer], input_size: Size) -> Network:
    """A network with the shapes of its layers. After a layer that does not fit, continue with the probable size, to
    find further faults."""
    layer_shapes: list[LayerShape] = []
    faults: list[Fault] = []
    size = input_size
    for number, layer in enumerate(layers):
        pointer = f"#/{where}/{number}"
        faults += _shape_errors(layer, size, pointer)
        if layer.for_images and len(size) != 3:
            break
        if isinstance(layer, Residual) and faults:
            break
        shape = _residual_shape(layer, size) if isinstance(layer, Residual) else layer.infer(size)
        if math.prod(shape.size) > MAX_OUTPUTS:
            detail = (
                f"outputs {shown(shape.size)}, more than {MAX_OUTPUTS:,} numbers; use smaller images or a smaller layer"
            )
            faults.append(Fault(pointer=pointer, detail=detail, code="too_large"))
            break
        layer_shapes.append(shape)
        size = shape.size
    return Network(where=where, layers=layers, input_size=input_size, layer_shapes=layer_shapes, faults=faults)


def _shape_errors(layer: Layer, size: Size, pointer: str) -> list[Fault]:
    """The faults of a layer for inputs of this size."""
    if isinstance(layer, Residual):
        return _residual_errors(layer, size, pointer)
    if layer.for_images and len(size) != 3:
        detail = f"takes images, but its input is {shown(size)}; insert a reshape layer before it, or remove flatten"
        misfit: Misfit | None = ("", detail, "reshape")
    else:
        misfit = layer.misfit(size)
    if misfit is None:
        return []
    field, detail, suggestion = misfit
    return [Fault(pointer=pointer + field, detail=detail, code="wrong_shape", suggestion=suggestion)]


def _residual_errors(layer: Residual, size: Size, pointer: str) -> list[Fault]:
    inner = walk(f"{pointer.removeprefix('#/')}/layers", layer.layers, size)
    if inner.faults or inner.layer_shapes[-1].size == size:
        return list(inner.faults)
    detail = f"must output {shown(size)}, like the layer's input; they output {shown(inner.layer_shapes[-1].size)}"
    return [Fault(pointer=f"{pointer}/layers", detail=detail, code="wrong_shape")]


def _residual_shape(layer: Residual, size: Size) -> LayerShape:
    inner = walk("", layer.layers, size).layer_shapes
    return LayerShape(
        layer=layer,
        size=size,
        weights=sum(shape.weights for shape in inner),
        statistics=sum(shape.statistics for shape in inner),
        products=sum(shape.products for shape in inner),
        patches=max((shape.patches for shape in inner), default=0),
        inside=sum(shape.outputs for shape in inner),
    )
