"""Containers of layers: Sequential applies them one after the other, Residual adds their output to its input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine import memory, ops
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor, refuse_write
from engine.errors import CheckpointError, SettingError, ShapeError
from engine.nn.activations import Activation
from engine.nn.dropout import Dropout
from engine.nn.layer import Activated, Layer, Shape, shape_error
from engine.nn.linear import Dense, Weighted
from engine.nn.shape import Reshape, as_inputs

__all__ = ["Residual", "Sequential"]


class Sequential:
    """Layers applied one after the other; parameters are named ``layers.0.weight``, ``layers.0.bias``, ...

    The numbers count all layers, including Dropout. The interface of a network uses flat vectors: it takes
    (batch, inputs) or (batch, *input_shape), and returns (batch, units), even if its last layer outputs images.

    Args:
        layers: the last one must be Dense, Conv2D or Conv2DTranspose.
        input_shape: of one example; images are (height, width, channels). Optional if the first layer with parameters
            is Dense.

    Raises:
        SettingError: no layers, an unsuitable last layer, two layers with a common parameter, or a missing input shape.
        ShapeError: a layer does not accept the output of the previous one.
    """

    def __init__(self, layers: Sequence[Layer], input_shape: Sequence[int] | None = None) -> None:
        if not layers or not isinstance(layers[-1], Weighted):
            raise SettingError("Sequential: the last layer must be Dense, Conv2D or Conv2DTranspose", setting="layers")
        self.layers = list(layers)
        self.last: Weighted = layers[-1]
        self.input_shape = _first_shape(layers) if input_shape is None else tuple(input_shape)
        self.layer_shapes = _infer_shapes(layers, self.input_shape)
        self.output_shape = self.layer_shapes[-1]
        _refuse_shared(layers)
        self.inputs = math.prod(self.input_shape)
        self.units = math.prod(self.output_shape)

    def all_layers(self) -> list[Layer]:
        """All layers, including those inside other layers."""
        return [inner for layer in self.layers for inner in (layer, *getattr(layer, "layers", ()))]

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
        return collect_named(self.layers, "parameters")

    @property
    def parameters(self) -> list[Tensor]:
        """Trainable tensors in the order of the layers."""
        return list(self.named_parameters().values())

    def named_buffers(self) -> dict[str, Array]:
        """Running statistics by name, in the order of the layers."""
        return collect_named(self.layers, "buffers")

    @property
    def buffers(self) -> list[Array]:
        """Running statistics in the order of the layers. A pass with ``training=True`` updates them in place."""
        return list(self.named_buffers().values())

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply all layers to ``x`` (batch, inputs); returns (batch, units)."""
        return as_inputs(self.last.activate(self._last_logits(x, training, rng)), (self.units,))

    def logits(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply all layers without the last activation. Losses on logits take this output."""
        return as_inputs(self._last_logits(x, training, rng), (self.units,))

    def layer_outputs(self, x: Any) -> list[Any]:
        """The output of each layer for ``x`` (batch, inputs) at inference; the last one's as (batch, units)."""
        outputs: list[Any] = []
        for layer in self.layers:
            outputs.append(layer(outputs[-1] if outputs else self._first_input(x)))
        outputs[-1] = as_inputs(outputs[-1], (self.units,))
        return outputs

    def _first_input(self, x: Any) -> Any:
        x = np.asanyarray(x)
        if x.ndim == 0 or x.shape[1:] not in (self.input_shape, (self.inputs,)):
            # Dense would accept more axes, because it checks only the last one.
            raise shape_error("Sequential", f"(batch, {', '.join(map(str, self.input_shape))})", x.shape)
        return x if len(self.input_shape) == 1 else as_inputs(x, self.input_shape)

    def _last_logits(self, x: Any, training: bool, rng: np.random.Generator | None) -> Any:
        x = self._first_input(x)
        for layer in self.layers[:-1]:
            x = layer(x, training=training, rng=rng)
        return self.last.logits(x, training=training)

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and running statistics, by name."""
        return {name: np.array(array) for name, array in self.named_arrays().items()}

    def load_state_dict(self, tensors: Mapping[str, Array], prefix: str = "") -> None:
        """Copy the tensors named ``prefix + name`` into parameters and running statistics; others are ignored.

        Raises:
            CheckpointError: a tensor is missing, is unknown under ``prefix + "layers."``, has another shape or dtype,
                or has values that are not finite. The network is then unchanged.
        """
        for tensor in self.parameters:
            refuse_write(tensor, "load_state_dict")
        copy_tensors({prefix + name: a for name, a in self.named_arrays().items()}, tensors, prefix + "layers.")

    def named_arrays(self) -> dict[str, Array]:
        """All parameters and running statistics by name, as plain arrays on the same memory."""
        return {name: np.asarray(array) for name, array in (self.named_parameters() | self.named_buffers()).items()}


class Residual(Activated):
    """Layers with a skip connection: ``activation(x + layers(x))`` (He et al. 2016, equation 1).

    Parameters are named ``layers.0.weight`` and so on, after the name of the layer itself.

    Args:
        layers: their output must have the shape of their input.
        activation: an Activation or its name; None for none.
        negative_slope: of leaky_relu, in [0, 1].

    Raises:
        SettingError: no layers, two that share a parameter, an unknown activation, a slope out of range.
    """

    def __init__(
        self, layers: Sequence[Layer], activation: Activation | str | None = None, *, negative_slope: float = 0.2
    ) -> None:
        if not layers:
            raise SettingError("Residual: there are no layers", setting="layers")
        _refuse_shared(layers)
        self.layers = list(layers)
        super().__init__(activation, negative_slope)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters of the inner layers."""
        return collect_named(self.layers, "parameters")

    @property
    def buffers(self) -> dict[str, Array]:
        """The buffers of the inner layers."""
        return collect_named(self.layers, "buffers")

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the input."""
        inner_shape = _infer_shapes(self.layers, shape, "Residual")[-1]
        if inner_shape != shape:
            raise shape_error("Residual", f"layers whose output has the shape of their input, {shape}", inner_shape)
        return shape

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to a batch."""
        y = x
        for layer in self.layers:
            y = layer(y, training=training, rng=rng)
        return self.activate(ops.add(x, y))


def collect_named(layers: Sequence[Layer], attribute: str) -> dict[str, Any]:
    """The parameters or buffers of layers, named ``layers.0.weight`` and so on, in order."""
    return {
        f"layers.{number}.{name}": value
        for number, layer in enumerate(layers)
        for name, value in getattr(layer, attribute).items()
    }


def _refuse_shared(layers: Sequence[Layer]) -> None:
    """Raise SettingError if two layers share a parameter: an optimizer would update it twice."""
    owners: dict[int, int] = {}
    for number, layer in enumerate(layers):
        for name, array in (layer.parameters | layer.buffers).items():
            first = owners.setdefault(memory.address(np.asarray(array)), number)
            if first != number:
                raise SettingError(
                    f"Sequential: layers {first} and {number} share the {name}; create a layer for each position",
                    setting="layers",
                )


def _first_shape(layers: Sequence[Layer]) -> Shape:
    """The input shape, as far as it follows from the layers."""
    for layer in layers:
        if isinstance(layer, Dense):
            return (layer.inputs,)
        if isinstance(layer, Reshape):
            return (math.prod(layer.shape),)
        if not isinstance(layer, Dropout):
            break
    raise SettingError(
        "Sequential: the shape of one input is required: input_shape=(height, width, channels)", setting="input_shape"
    )


def _infer_shapes(layers: Sequence[Layer], shape: Shape, name: str = "Sequential") -> list[Shape]:
    """The shape after each layer."""
    if not shape or min(shape) < 1:
        raise SettingError(f"Sequential: the sizes of input_shape {shape} must be positive", setting="input_shape")
    previous, shapes = "the input", [shape]
    for number, layer in enumerate(layers):
        description = f"layer {number} ({type(layer).__name__})"
        try:
            shapes.append(layer.output_shape(shapes[-1]))
        except ShapeError as error:
            raise ShapeError(
                f"{name}: {description} does not fit {previous}: {error}", operation=name, shapes=error.shapes
            ) from error
        previous = description
    return shapes[1:]


def copy_tensors(targets: Mapping[str, Array], tensors: Mapping[str, Array], prefix: str) -> None:
    """Copy ``tensors`` into the arrays of the same names, all or nothing.

    Raises:
        CheckpointError: names under ``prefix``, shapes or dtypes differ, or a number is not finite.
    """
    for name in tensors:
        if name.startswith(prefix) and name not in targets:
            raise CheckpointError(f"{name} is in the checkpoint but not in this model", tensor=name)
    for name, array in targets.items():
        if name not in tensors:
            raise CheckpointError(f"{name} is missing from the checkpoint", tensor=name)
        loaded = tensors[name]
        if loaded.shape != array.shape or loaded.dtype != array.dtype:
            raise CheckpointError(
                f"{name} is {loaded.dtype} {loaded.shape} in the checkpoint but {array.dtype} {array.shape} here",
                tensor=name,
            )
        if not np.isfinite(loaded).all():
            raise CheckpointError(f"{name} has values in the checkpoint that are not finite", tensor=name)
    for name, array in targets.items():
        np.copyto(array, tensors[name])
