"""Layers of a network and how their weights are initialized."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, Tag

from service.spec.schema.base import (
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


NegativeSlope = Annotated[float, Field(ge=0, le=1), applies_when(activation={"enum": [Activation.LEAKY_RELU.value]})]


class Dense(StrictModel):
    """Fully connected layer: every output depends on every input."""

    type: Literal["dense"] = "dense"
    units: Annotated[int, Field(ge=1, le=MAX_UNITS, examples=[100])]
    """Number of outputs. The last layer of a classifier needs one for each class. Hidden layers usually have 50 to
    1,000; more units learn finer distinctions, but cost time and overfit sooner."""
    activation: Annotated[Activation, Field(examples=[Activation.RELU.value])]
    """The function applied to each output. Use relu in hidden layers, softmax at the end of a classifier, sigmoid at
    the end of a discriminator, and tanh at the end of a generator."""
    negative_slope: NegativeSlope = 0.2
    """Slope of leaky_relu for negative inputs. Usually 0.01 to 0.2; 0 is plain relu."""


class Dropout(StrictModel):
    """Sets random inputs to zero during training, which reduces overfitting."""

    type: Literal["dropout"]
    rate: Annotated[Fraction, Field(examples=[0.2])]
    """Fraction of the inputs set to zero in each training step. Usually 0.1 to 0.5. Increase it when train accuracy is
    far above val accuracy."""


class Conv2D(StrictModel):
    """Convolution: the same small filters slide over the whole image."""

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
    """Slope of leaky_relu for negative inputs. Usually 0.01 to 0.2; 0 is plain relu."""


class Conv2DTranspose(StrictModel):
    """Transposed convolution: each pixel becomes a patch, which makes the image larger. Generators use it to enlarge
    images."""

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
    """Slope of leaky_relu for negative inputs. Usually 0.01 to 0.2; 0 is plain relu."""


class MaxPool2D(StrictModel):
    """Keeps the largest value of each window, which makes the image smaller."""

    type: Literal["max_pool2d"]
    size: Annotated[int, Field(ge=2, le=MAX_SCALE)] = 2
    """Rows and columns of each window. The image's rows and columns must be multiples of it."""


class AvgPool2D(StrictModel):
    """Replaces each window by its mean, which makes the image smaller."""

    type: Literal["avg_pool2d"]
    size: Annotated[int, Field(ge=2, le=MAX_SCALE)] = 2
    """Rows and columns of each window. The image's rows and columns must be multiples of it."""


class GlobalAvgPool2D(StrictModel):
    """Replaces each channel by its mean over the whole image: turns images of any size into flat vectors."""

    type: Literal["global_avg_pool2d"]


class Upsample2D(StrictModel):
    """Repeats each pixel, which makes the image larger. Generators use it before conv2d."""

    type: Literal["upsample2d"]
    size: Annotated[int, Field(ge=2, le=MAX_SCALE)] = 2
    """How often each row and each column is repeated."""


class BatchNorm(StrictModel):
    """Normalizes each channel over the batch, then applies an activation. The layer before it should be linear."""

    type: Literal["batch_norm"]
    activation: Activation = Activation.LINEAR
    """The function applied after normalization, usually relu."""
    momentum: Fraction = 0.9
    """Fraction of the running mean and variance that each step keeps; inference uses these. Usually 0.9 to 0.99: higher
    for small batches."""
    epsilon: Epsilon = 1e-5
    """Added to the variance to avoid division by zero. There is rarely a reason to change it."""
    negative_slope: NegativeSlope = 0.2
    """Slope of leaky_relu for negative inputs. Usually 0.01 to 0.2; 0 is plain relu."""


class LayerNorm(StrictModel):
    """Normalizes each example by its own mean and variance, then applies an activation. Unlike batch_norm, it suits a
    discriminator with a gradient penalty, and works the same in training and inference."""

    type: Literal["layer_norm"]
    activation: Activation = Activation.LINEAR
    """The function applied after normalization, usually relu."""
    epsilon: Epsilon = 1e-5
    """Added to the variance to avoid division by zero. There is rarely a reason to change it."""
    negative_slope: NegativeSlope = 0.2
    """Slope of leaky_relu for negative inputs. Usually 0.01 to 0.2; 0 is plain relu."""


class Flatten(StrictModel):
    """Turns images into flat vectors, which dense layers require."""

    type: Literal["flatten"]


class Reshape(StrictModel):
    """Turns flat vectors into images, which convolutions require."""

    type: Literal["reshape"]
    shape: Annotated[
        list[Annotated[int, Field(ge=1, le=MAX_UNITS)]], Field(min_length=3, max_length=3, examples=[[7, 7, 16]])
    ]
    """Rows, columns and channels. Their product must equal the number of inputs."""


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


class Residual(StrictModel):
    """Adds its input to the output of its layers (a skip connection), which makes deep networks easier to train."""

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
    """Slope of leaky_relu for negative inputs. Usually 0.01 to 0.2; 0 is plain relu."""


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
