"""Layers: Dense, Dropout, Flatten, Reshape, and Sequential to chain them with those of :mod:`engine.layers_images`.

A layer is called with a batch, arrays or tensors of shape (batch, features) or (batch, height, width, channels), and
gives back a tensor. Shapes without the batch axis are those of one input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeAlias, assert_never, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike

from engine import memory, ops
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor
from engine.errors import CheckpointError, SettingError, ShapeError
from engine.initializers import Initializer, glorot_uniform

Shape: TypeAlias = tuple[int, ...]
"""The shape of one input, without the batch axis: (features,) or (height, width, channels)."""


class Activation(StrEnum):
    """The activations a layer can end with."""

    SIGMOID = "sigmoid"
    TANH = "tanh"
    RELU = "relu"
    LEAKY_RELU = "leaky_relu"
    SOFTMAX = "softmax"


class Layer(Protocol):
    """What Sequential asks of its parts."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Trainable tensors by name; empty for layers that learn nothing."""

    @property
    def buffers(self) -> dict[str, Array]:
        """What training changes in place, but not by gradients: running statistics, by name."""

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of ``shape``.

        Raises:
            ShapeError: the layer cannot take such an input; the message says what it takes.
        """

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to a batch."""


@runtime_checkable
class OutputLayer(Layer, Protocol):
    """What Sequential asks of its last part: losses on logits need it without its activation."""

    @property
    def activation(self) -> Activation | None:
        """What the layer ends with."""

    @property
    def weight(self) -> Tensor:
        """Its weights, whose dtype is the network's."""

    def logits(self, x: Any) -> Any:
        """The layer without its activation."""

    def activate(self, logits: Any) -> Any:
        """The activation alone."""


class Dense:
    """A fully connected layer: ``activation(x @ weight + bias)``.

    Args:
        inputs, units: sizes of the last axis before and after.
        activation: an Activation or its name; None for none.
        initializer: draws weight (inputs, units), then bias (units,).
        rng: where the initializer draws from.
        negative_slope: of leaky_relu, in [0, 1].

    Raises:
        SettingError: a size that is not positive, an unknown activation, a slope out of range.
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        activation: Activation | str | None = None,
        *,
        initializer: Initializer = glorot_uniform,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
        negative_slope: float = 0.2,
    ) -> None:
        for name, size in (("inputs", inputs), ("units", units)):
            if size < 1:
                raise SettingError(f"Dense: {name} {size} must be positive", setting=name)
        self.inputs = inputs
        self.units = units
        self.activation = as_activation(activation)
        self.negative_slope = negative_slope
        self.weight = Tensor(memory.copy(initializer((inputs, units), rng, dtype)), watch=True)
        self.bias = Tensor(initializer((units,), rng, dtype), watch=True)
        self._activate = activation_function(self.activation, negative_slope)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """``weight`` (inputs, units) and ``bias`` (units,)."""
        return {"weight": self.weight, "bias": self.bias}

    @property
    def buffers(self) -> dict[str, Array]:
        """None."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """(inputs,) becomes (units,)."""
        if shape != (self.inputs,):
            hint = "; put Flatten before it" if len(shape) > 1 else ""
            raise misfit("Dense", f"({self.inputs},)", shape, hint)
        return (self.units,)

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, inputs); gives (batch, units)."""
        return self.activate(self.logits(x))

    def logits(self, x: Any) -> Any:
        """The layer without its activation."""
        return ops.affine(x, self.weight, self.bias)

    def activate(self, logits: Any) -> Any:
        """The activation alone."""
        return self._activate(logits)


def misfit(layer: str, takes: str, shape: Shape, hint: str = "") -> ShapeError:
    """The error of a layer that cannot take an input of ``shape``."""
    return ShapeError(f"{layer} takes {takes}, not {shape}{hint}", operation=layer, shapes=(shape,))


def as_activation(activation: Activation | str | None) -> Activation | None:
    """An activation by its name.

    Raises:
        SettingError: there is none of that name.
    """
    try:
        return None if activation is None else Activation(activation)
    except ValueError:
        names = ", ".join(Activation)
        raise SettingError(f"unknown activation {activation!r}; known are {names}", setting="activation") from None


def activation_function(activation: Activation | None, negative_slope: float = 0.2) -> Callable[[Any], Any]:
    """The primitive of an activation, or what leaves all as it is.

    Raises:
        SettingError: ``negative_slope``, of leaky_relu, is not in [0, 1].
    """
    if not 0 <= negative_slope <= 1:
        raise SettingError(f"negative_slope {negative_slope} is not in [0, 1]", setting="negative_slope")
    match activation:
        case None:
            return lambda logits: logits
        case Activation.SIGMOID:
            return ops.sigmoid
        case Activation.TANH:
            return ops.tanh
        case Activation.RELU:
            return ops.relu
        case Activation.LEAKY_RELU:
            return lambda logits: ops.leaky_relu(logits, negative_slope=negative_slope)
        case Activation.SOFTMAX:
            return ops.softmax
        case _:
            assert_never(activation)


class Parameterless:
    """Base of layers that learn nothing."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """None."""
        return {}

    @property
    def buffers(self) -> dict[str, Array]:
        """None."""
        return {}


class Dropout(Parameterless):
    """Zeroes each element with probability ``rate`` while training, and scales the others by 1 / (1 - rate).

    Srivastava et al. 2014, in the inverted form: at inference it does nothing. The rate is rounded to a multiple of
    2**-16, because 16 random bits an element cost half of what a float does.

    Raises:
        SettingError: ``rate`` is not in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        if not 0 <= rate < 1:
            raise SettingError(f"Dropout: rate {rate} is not in [0, 1)", setting="rate")
        self.rate = rate
        self._threshold = min(round(rate * 2**16), 2**16 - 1)

    def output_shape(self, shape: Shape) -> Shape:
        """The same, whatever it is."""
        return shape

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` of any shape; needs ``rng`` while training."""
        if not training or self._threshold == 0:
            return x
        if rng is None:
            raise SettingError(
                "Dropout: training needs a random generator: layer(x, training=True, rng=...)", setting="rng"
            )
        kept = _draw(rng, x.shape) >= self._threshold
        mask = kept.astype(x.dtype)
        mask *= 2**16 / (2**16 - self._threshold)
        return ops.multiply(x, mask)


def _draw(rng: np.random.Generator, shape: Shape) -> Array:
    """16 random bits for each number; those of images lie in memory as planes (:mod:`engine.ops.convolution`)."""
    if len(shape) != 4:
        return rng.integers(0, 2**16, shape, np.uint16)
    batch, height, width, channels = shape
    return rng.integers(0, 2**16, (channels, height, width, batch), np.uint16).transpose(3, 1, 2, 0)


class Flatten(Parameterless):
    """Images as rows of numbers: what Dense takes. Rows stay as they are."""

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (height * width * channels,)."""
        return (math.prod(shape),)

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, ...); gives (batch, features)."""
        return _as_inputs(x, (math.prod(x.shape[1:]),))


class Reshape(Parameterless):
    """Inputs of one shape as inputs of another: rows of numbers as images.

    Raises:
        SettingError: a size that is not positive.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        if not shape or min(shape) < 1:
            raise SettingError(f"Reshape: the sizes of {tuple(shape)} must be positive", setting="shape")
        self.shape = tuple(shape)

    def output_shape(self, shape: Shape) -> Shape:
        """The layer's own, if it has as many numbers."""
        if math.prod(shape) != math.prod(self.shape):
            raise misfit("Reshape", f"{math.prod(self.shape)} numbers to make {self.shape} of them", shape)
        return self.shape

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, ...)."""
        return _as_inputs(x, self.shape)


def _as_inputs(x: Any, shape: Shape) -> Any:
    """A batch of inputs of ``shape``."""
    if x.shape[1:] == shape:
        return x
    return ops.flatten(x) if len(shape) == 1 else ops.reshape(x, shape=(len(x), *shape))


class Sequential:
    """Layers applied one after the other; parameters are named ``layers.0.weight``, ``layers.0.bias``, ...

    The number counts every layer, Dropout too. Outside, a network deals in rows of numbers: it takes (batch, inputs)
    or (batch, *input_shape), and gives (batch, units), also where its last layer makes images.

    Args:
        layers: the last one must be Dense or Conv2D.
        input_shape: of one input; images are (height, width, channels). May be left out where the first layer with
            parameters is Dense.

    Raises:
        SettingError: no layers, another last one, or no input shape where it is needed.
        ShapeError: a layer does not take what the one before it gives.
    """

    def __init__(self, layers: Sequence[Layer], input_shape: Sequence[int] | None = None) -> None:
        if not layers or not isinstance(layers[-1], OutputLayer):
            raise SettingError("Sequential: the last layer must be Dense or Conv2D", setting="layers")
        self.layers = list(layers)
        self.last: OutputLayer = layers[-1]
        self.input_shape = _first_shape(layers) if input_shape is None else tuple(input_shape)
        self.layer_shapes = _walk(layers, self.input_shape)
        self.output_shape = self.layer_shapes[-1]
        self.inputs = math.prod(self.input_shape)
        self.units = math.prod(self.output_shape)

    @property
    def activation(self) -> Activation | None:
        """The activation of the last layer."""
        return self.last.activation

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the weights."""
        dtype: np.dtype[Any] = self.last.weight.dtype
        return dtype

    def named_parameters(self) -> dict[str, Tensor]:
        """Trainable tensors by name, in the order of the layers."""
        return {
            f"layers.{number}.{name}": tensor
            for number, layer in enumerate(self.layers)
            for name, tensor in layer.parameters.items()
        }

    @property
    def parameters(self) -> list[Tensor]:
        """Trainable tensors in the order of the layers."""
        return list(self.named_parameters().values())

    def named_buffers(self) -> dict[str, Array]:
        """Running statistics by name, in the order of the layers."""
        return {
            f"layers.{number}.{name}": array
            for number, layer in enumerate(self.layers)
            for name, array in layer.buffers.items()
        }

    @property
    def buffers(self) -> list[Array]:
        """Running statistics in the order of the layers: what a pass with ``training=True`` changes in place."""
        return list(self.named_buffers().values())

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply all layers to ``x`` (batch, inputs); gives (batch, units)."""
        return _as_inputs(self.last.activate(self._last_logits(x, training, rng)), (self.units,))

    def logits(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply all layers but the last activation: what losses on logits take."""
        return _as_inputs(self._last_logits(x, training, rng), (self.units,))

    def layer_outputs(self, x: Any) -> list[Any]:
        """What each layer makes of ``x`` (batch, inputs) at inference; the last one's as rows (batch, units)."""
        outputs: list[Any] = []
        for layer in self.layers:
            outputs.append(layer(outputs[-1] if outputs else self._first_input(x)))
        outputs[-1] = _as_inputs(outputs[-1], (self.units,))
        return outputs

    def _first_input(self, x: Any) -> Any:
        x = np.asanyarray(x)
        if x.ndim == 0 or x.shape[1:] not in (self.input_shape, (self.inputs,)):
            # Dense would take more axes: the last one is all it looks at.
            raise ShapeError(
                f"Sequential takes (batch, {', '.join(map(str, self.input_shape))}), not {x.shape}",
                operation="Sequential",
                shapes=(x.shape,),
            )
        return x if len(self.input_shape) == 1 else _as_inputs(x, self.input_shape)

    def _last_logits(self, x: Any, training: bool, rng: np.random.Generator | None) -> Any:
        x = self._first_input(x)
        for layer in self.layers[:-1]:
            x = layer(x, training=training, rng=rng)
        return self.last.logits(x)

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and running statistics by name."""
        return {name: np.array(array) for name, array in self._named_arrays().items()}

    def load_state_dict(self, tensors: Mapping[str, Array], prefix: str = "") -> None:
        """Copy the tensors named ``prefix + name`` into parameters and running statistics; others are ignored.

        Raises:
            CheckpointError: one is missing, is left over under ``prefix + "layers."``, has another shape or dtype, or
                holds a number that is not finite. Nothing is changed then.
        """
        copy_tensors({prefix + name: a for name, a in self._named_arrays().items()}, tensors, prefix + "layers.")

    def _named_arrays(self) -> dict[str, Array]:
        return {name: np.asarray(array) for name, array in (self.named_parameters() | self.named_buffers()).items()}


def _first_shape(layers: Sequence[Layer]) -> Shape:
    """The input shape, as far as the layers tell it."""
    for layer in layers:
        if isinstance(layer, Dense):
            return (layer.inputs,)
        if isinstance(layer, Reshape):
            return (math.prod(layer.shape),)
        if not isinstance(layer, Dropout):
            break
    raise SettingError(
        "Sequential: say what one input is: input_shape=(height, width, channels)", setting="input_shape"
    )


def _walk(layers: Sequence[Layer], shape: Shape) -> list[Shape]:
    """The shape after each layer."""
    if not shape or min(shape) < 1:
        raise SettingError(f"Sequential: the sizes of input_shape {shape} must be positive", setting="input_shape")
    before, shapes = "the input", [shape]
    for number, layer in enumerate(layers):
        here = f"layer {number} ({type(layer).__name__})"
        try:
            shapes.append(layer.output_shape(shapes[-1]))
        except ShapeError as error:
            raise ShapeError(
                f"Sequential: {here} does not fit {before}: {error}", operation="Sequential", shapes=error.shapes
            ) from error
        before = here
    return shapes[1:]


def copy_tensors(into: Mapping[str, Array], tensors: Mapping[str, Array], prefix: str) -> None:
    """Copy ``tensors`` into the arrays of the same names, all or nothing.

    Raises:
        CheckpointError: names under ``prefix``, shapes or dtypes differ, or a number is not finite.
    """
    for name in tensors:
        if name.startswith(prefix) and name not in into:
            raise CheckpointError(f"{name} is in the checkpoint but not in this model", tensor=name)
    for name, array in into.items():
        if name not in tensors:
            raise CheckpointError(f"{name} is missing from the checkpoint", tensor=name)
        given = tensors[name]
        if given.shape != array.shape or given.dtype != array.dtype:
            raise CheckpointError(
                f"{name} is {given.dtype} {given.shape} in the checkpoint but {array.dtype} {array.shape} here",
                tensor=name,
            )
        if not np.isfinite(given).all():
            raise CheckpointError(f"{name} holds numbers in the checkpoint that are not finite", tensor=name)
    for name, array in into.items():
        np.copyto(array, tensors[name])
