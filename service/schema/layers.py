"""Layers of a network, each with its settings, shapes and costs, and how their weights are initialized.

A *size* is the shape of one example, without the batch axis: (numbers,) or (rows, columns, channels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import pydantic
from pydantic import Field, Tag

from service.schema.base import (
    MAX_FILTERS,
    MAX_INNER_LAYERS,
    MAX_KERNEL,
    MAX_LAYERS,
    MAX_SCALE,
    MAX_UNITS,
    Epsilon,
    Fraction,
    StrictModel,
    applies_when,
)


class Activation(StrEnum):
    """Activation functions."""

    LINEAR = "linear"
    SIGMOID = "sigmoid"
    TANH = "tanh"
    RELU = "relu"
    LEAKY_RELU = "leaky_relu"
    SOFTMAX = "softmax"
    GELU = "gelu"
    SILU = "silu"
    ELU = "elu"
    SOFTPLUS = "softplus"


class Padding(StrEnum):
    """Padding of a convolution: ``same`` adds zeros, so that stride 1 keeps the size; ``valid`` adds nothing."""

    SAME = "same"
    VALID = "valid"


NegativeSlope = Annotated[
    float,
    Field(ge=0, le=1, description="Slope of leaky_relu for negative inputs. Usually 0.01 to 0.2; 0 is plain relu."),
    applies_when(activation={"enum": [Activation.LEAKY_RELU.value]}),
]


Size: TypeAlias = tuple[int, ...]
Misfit: TypeAlias = tuple[str, str, str | None]
"""Why a layer does not fit its input: the pointer to a field of the layer, the detail, and a suggestion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """Size and cost of one layer in its network, for one example.

    Attributes:
        size: of the output.
        weights: number of trainable parameters.
        statistics: number of non-trainable values in a checkpoint (running statistics).
        products: multiplications of the forward pass.
        patches: values that a convolution copies (im2col) for one row of its output.
        inside: values that inner layers of a residual layer output.
    """

    layer: Layer
    size: Size
    weights: int = 0
    statistics: int = 0
    products: int = 0
    patches: int = 0
    inside: int = 0

    @property
    def outputs(self) -> int:
        """Number of output values, including those of inner layers."""
        return math.prod(self.size) + self.inside


def shown(size: Size) -> str:
    """A size as text."""
    return f"{size[0]:,} numbers" if len(size) == 1 else "images of " + " x ".join(f"{side:,}" for side in size)


class LayerModel(StrictModel):
    """Base of all layers. By default, a layer fits any input and outputs the same size."""

    for_images: ClassVar[bool] = False
    """Whether it accepts only images."""
    has_weights: ClassVar[bool] = False

    def misfit(self, size: Size) -> Misfit | None:
        """Why the layer does not fit an input of this size; ``None`` if it fits."""
        return None

    def infer(self, size: Size) -> LayerShape:
        """Size and cost of the layer for an input of this size, if it fits; otherwise the probable ones."""
        return self._shape(size)

    def _shape(self, size: Size, **costs: int) -> LayerShape:
        return LayerShape(layer=self, size=size, **costs)  # type: ignore[arg-type]  # every subclass is a Layer


class Dense(LayerModel):
    """Fully connected layer: every output depends on every input."""

    has_weights = True
    type: Literal["dense"] = "dense"
    units: Annotated[int, Field(ge=1, le=MAX_UNITS, examples=[100])]
    """Number of outputs. The last layer of a classifier needs one for each class. Hidden layers usually have 50 to
    1,000; more units learn finer distinctions, but cost time and overfit sooner."""
    activation: Annotated[Activation, Field(examples=[Activation.RELU.value])]
    """The function applied to each output. Use relu in hidden layers, softmax at the end of a classifier, sigmoid at
    the end of a discriminator, and tanh at the end of a generator."""
    negative_slope: NegativeSlope = 0.2

    def misfit(self, size: Size) -> Misfit | None:
        """Rows of numbers fit."""
        detail = f'takes rows of numbers, but its input is {shown(size)}; insert {{"type": "flatten"}} before it'
        return None if len(size) == 1 else ("", detail, "flatten")

    def infer(self, size: Size) -> LayerShape:
        """A weight for each input and output, and a bias for each output."""
        products = math.prod(size) * self.units
        return self._shape((self.units,), weights=products + self.units, products=products)


class Dropout(LayerModel):
    """Sets random inputs to zero during training, which reduces overfitting."""

    type: Literal["dropout"]
    rate: Annotated[Fraction, Field(examples=[0.2])]
    """Fraction of the inputs set to zero in each training step. Usually 0.1 to 0.5. Increase it when train accuracy is
    far above val accuracy."""


class Conv2D(LayerModel):
    """Convolution: the same small filters slide over the whole image."""

    for_images = True
    has_weights = True
    type: Literal["conv2d"]
    filters: Annotated[int, Field(ge=1, le=MAX_FILTERS, examples=[16])]
    """Number of filters, which is the number of output channels. Usually 8 to 64, and more in later layers."""
    kernel: Annotated[int, Field(ge=1, le=MAX_KERNEL)] = 3
    """Rows and columns of each filter. 3 suits most networks; 5 sees more of the image at once and costs more."""
    stride: Annotated[int, Field(ge=1, le=MAX_SCALE)] = 1
    """Distance between neighbouring positions of a filter. 2 halves the rows and columns of the output."""
    padding: Padding = Padding.SAME
    """How to treat the border. same adds zeros around the image, so that stride 1 keeps its size; valid adds nothing,
    so that the output is smaller by kernel - 1."""
    activation: Annotated[Activation, Field(examples=[Activation.RELU.value])]
    """The function applied to each output. Use relu or leaky_relu, or linear before batch_norm."""
    negative_slope: NegativeSlope = 0.2

    def misfit(self, size: Size) -> Misfit | None:
        """The kernel is at most as large as the image."""
        return _kernel_misfit(self.kernel, min(size[:2]), size)

    def infer(self, size: Size) -> LayerShape:
        """One product for each position, filter and value of a patch."""
        if self.padding is Padding.SAME:
            rows, columns = (-(-side // self.stride) for side in size[:2])
        else:
            rows, columns = (max(side - self.kernel, 0) // self.stride + 1 for side in size[:2])
        patch = self.kernel**2 * size[-1]
        return self._shape(
            (rows, columns, self.filters),
            weights=(patch + 1) * self.filters,
            products=rows * columns * patch * self.filters,
            patches=columns * patch,
        )


class Conv2DTranspose(LayerModel):
    """Transposed convolution: each pixel becomes a patch, which makes the image larger. Generators use it to enlarge
    images."""

    for_images = True
    has_weights = True
    type: Literal["conv2d_transpose"]
    filters: Annotated[int, Field(ge=1, le=MAX_FILTERS, examples=[16])]
    """Number of filters, which is the number of output channels. Usually 8 to 64, and fewer in later layers."""
    kernel: Annotated[int, Field(ge=1, le=MAX_KERNEL)] = 4
    """Rows and columns of each filter. A multiple of the stride avoids checkerboard patterns."""
    stride: Annotated[int, Field(ge=1, le=MAX_SCALE)] = 2
    """The factor by which rows and columns grow."""
    padding: Padding = Padding.SAME
    """How to treat the border. same enlarges the image exactly by the stride; valid keeps whole patches at the border,
    so that the output is larger."""
    activation: Annotated[Activation, Field(examples=[Activation.RELU.value])]
    """The function applied to each output. Use relu, or linear before batch_norm; tanh at the end of a generator."""
    negative_slope: NegativeSlope = 0.2

    def misfit(self, size: Size) -> Misfit | None:
        """With padding, the kernel is at most as large as the output."""
        return _kernel_misfit(self.kernel, min(size[:2]) * self.stride, size) if self.padding is Padding.SAME else None

    def infer(self, size: Size) -> LayerShape:
        """One product for each position of the input, channel and value of a patch."""
        margin = 0 if self.padding is Padding.SAME else self.kernel - self.stride
        patch = self.kernel**2 * self.filters
        return self._shape(
            (size[0] * self.stride + margin, size[1] * self.stride + margin, self.filters),
            weights=patch * size[-1] + self.filters,
            products=math.prod(size) * patch,
            patches=size[1] * patch,
        )


def _kernel_misfit(kernel: int, largest: int, size: Size) -> Misfit | None:
    detail = f"must be at most {largest} for {shown(size)}; it is {kernel}"
    return ("/kernel", detail, str(largest)) if kernel > largest else None


class _Pool(LayerModel):
    """Base of the pools of windows."""

    for_images = True
    type: Any  # first, as in other layers
    size: Annotated[int, Field(ge=2, le=MAX_SCALE)] = 2
    """Rows and columns of each window. The image's rows and columns must be multiples of it."""

    def misfit(self, size: Size) -> Misfit | None:
        """The windows cover the image."""
        if not (size[0] % self.size or size[1] % self.size):
            return None
        sizes = [str(n) for n in range(2, MAX_SCALE + 1) if not (size[0] % n or size[1] % n)]
        hint = f"; use {' or '.join(sizes)}" if sizes else "; change the size of the image before it"
        return "/size", f"must divide the rows and columns of {shown(size)}{hint}", sizes[0] if sizes else None

    def infer(self, size: Size) -> LayerShape:
        """One value for each window."""
        return self._shape((max(size[0] // self.size, 1), max(size[1] // self.size, 1), size[-1]))


class MaxPool2D(_Pool):
    """Keeps the largest value of each window, which makes the image smaller."""

    type: Literal["max_pool2d"]


class AvgPool2D(_Pool):
    """Replaces each window by its mean, which makes the image smaller."""

    type: Literal["avg_pool2d"]


class GlobalAvgPool2D(LayerModel):
    """Replaces each channel by its mean over the whole image: turns images of any size into flat vectors."""

    for_images = True
    type: Literal["global_avg_pool2d"]

    def infer(self, size: Size) -> LayerShape:
        """One value for each channel."""
        return self._shape((size[-1],))


class Upsample2D(LayerModel):
    """Repeats each pixel, which makes the image larger. Generators use it before conv2d."""

    for_images = True
    type: Literal["upsample2d"]
    size: Annotated[int, Field(ge=2, le=MAX_SCALE)] = 2
    """How often each row and each column is repeated."""

    def infer(self, size: Size) -> LayerShape:
        """Each pixel several times."""
        return self._shape((size[0] * self.size, size[1] * self.size, size[-1]))


class BatchNorm(LayerModel):
    """Normalizes each channel over the batch, then applies an activation. The layer before it should be linear."""

    has_weights = True
    type: Literal["batch_norm"]
    activation: Activation = Activation.LINEAR
    """The function applied after normalization, usually relu."""
    momentum: Fraction = 0.9
    """Fraction of the running mean and variance that each step keeps; inference uses these. Usually 0.9 to 0.99: higher
    for small batches."""
    epsilon: Epsilon = 1e-5
    """Added to the variance to avoid division by zero. There is rarely a reason to change it."""
    negative_slope: NegativeSlope = 0.2

    def infer(self, size: Size) -> LayerShape:
        """Scale, shift, mean and variance of each channel."""
        return self._shape(size, weights=2 * size[-1], statistics=2 * size[-1])


class LayerNorm(LayerModel):
    """Normalizes each example by its own mean and variance, then applies an activation. Unlike batch_norm, it suits a
    discriminator with a gradient penalty, and works the same in training and inference."""

    has_weights = True
    type: Literal["layer_norm"]
    activation: Activation = Activation.LINEAR
    """The function applied after normalization, usually relu."""
    epsilon: Epsilon = 1e-5
    """Added to the variance to avoid division by zero. There is rarely a reason to change it."""
    negative_slope: NegativeSlope = 0.2

    def infer(self, size: Size) -> LayerShape:
        """Scale and shift of each channel."""
        return self._shape(size, weights=2 * size[-1], inside=3 * math.prod(size))


class Flatten(LayerModel):
    """Turns images into flat vectors, which dense layers require."""

    type: Literal["flatten"]

    def infer(self, size: Size) -> LayerShape:
        """All values in a row."""
        return self._shape((math.prod(size),))


class Reshape(LayerModel):
    """Turns flat vectors into images, which convolutions require."""

    type: Literal["reshape"]
    shape: Annotated[
        list[Annotated[int, Field(ge=1, le=MAX_UNITS)]], Field(min_length=3, max_length=3, examples=[[7, 7, 16]])
    ]
    """Rows, columns and channels. Their product must equal the number of inputs."""

    def misfit(self, size: Size) -> Misfit | None:
        """The input has as many numbers."""
        outputs, inputs = math.prod(self.shape), math.prod(size)
        detail = f"must have {inputs:,} numbers, as many as its input ({shown(size)}); it has {outputs:,}"
        return ("/shape", detail, None) if outputs != inputs else None

    def infer(self, size: Size) -> LayerShape:
        """The shape that it was given."""
        return self._shape(tuple(self.shape))


def _tag(layer: Any) -> str:
    name = layer.get("type", "dense") if isinstance(layer, dict) else getattr(layer, "type", "dense")
    return name if isinstance(name, str) else ""


_PlainLayer = (
    Annotated[Dense, Tag("dense")]
    | Annotated[Dropout, Tag("dropout")]
    | Annotated[Conv2D, Tag("conv2d")]
    | Annotated[Conv2DTranspose, Tag("conv2d_transpose")]
    | Annotated[MaxPool2D, Tag("max_pool2d")]
    | Annotated[AvgPool2D, Tag("avg_pool2d")]
    | Annotated[GlobalAvgPool2D, Tag("global_avg_pool2d")]
    | Annotated[Upsample2D, Tag("upsample2d")]
    | Annotated[BatchNorm, Tag("batch_norm")]
    | Annotated[LayerNorm, Tag("layer_norm")]
    | Annotated[Flatten, Tag("flatten")]
    | Annotated[Reshape, Tag("reshape")]
)
InnerLayer = Annotated[_PlainLayer, pydantic.Discriminator(_tag)]
"""A layer inside a residual layer."""


class Residual(LayerModel):
    """Adds its input to the output of its layers (a skip connection), which makes deep networks easier to train."""

    has_weights = True
    type: Literal["residual"]
    layers: Annotated[
        list[InnerLayer],
        Field(
            min_length=1,
            max_length=MAX_INNER_LAYERS,
            examples=[[{"type": "layer_norm", "activation": "relu"}]],
        ),
    ]
    """The inner layers. Their output must have the shape of their input. Usually conv2d and batch_norm, twice."""
    activation: Activation = Activation.LINEAR
    """The function applied to the sum, usually relu."""
    negative_slope: NegativeSlope = 0.2


Layer = Annotated[_PlainLayer | Annotated[Residual, Tag("residual")], pydantic.Discriminator(_tag)]
"""A layer, selected by ``type``; dense if none is given. A network that begins with an image layer (conv2d,
conv2d_transpose, a pool, upsample2d, or a residual of these) receives images (rows, columns, channels); other networks
receive flat vectors."""
Layers = Annotated[list[Layer], Field(min_length=1, max_length=MAX_LAYERS)]


class Uniform(StrictModel):
    """Weights and biases are uniform in [-scale, scale]."""

    name: Literal["uniform"]
    scale: Annotated[float, Field(gt=0, le=10)]
    """Largest absolute value. Usually 0.001 to 0.1."""


class Glorot(StrictModel):
    """Weights are uniform in ±sqrt(6 / (inputs + units)), biases zero. Suits tanh and sigmoid."""

    name: Literal["glorot"]


class He(StrictModel):
    """Weights are normal with standard deviation sqrt(2 / inputs), biases zero. Suits relu."""

    name: Literal["he"]


Initializer = Annotated[Uniform | Glorot | He, Field(discriminator="name")]
