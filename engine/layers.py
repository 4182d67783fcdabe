"""Layers: Dense, Dropout, and Sequential to chain them.

A layer is called with a batch, arrays or tensors of shape (batch, features), and gives back a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any, Protocol, assert_never

import numpy as np
from numpy.typing import DTypeLike

from engine import ops
from engine.errors import CheckpointError, SettingError, ShapeError
from engine.initializers import Initializer, glorot_uniform
from engine.recording import Array
from engine.tensor import Tensor


class Activation(StrEnum):
    """The activations a Dense layer can end with."""

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

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to a batch."""


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
        if not 0 <= negative_slope <= 1:
            raise SettingError(f"Dense: negative_slope {negative_slope} is not in [0, 1]", setting="negative_slope")
        self.inputs = inputs
        self.units = units
        self.activation = _activation(activation)
        self.negative_slope = negative_slope
        self.weight = Tensor(initializer((inputs, units), rng, dtype), watch=True)
        self.bias = Tensor(initializer((units,), rng, dtype), watch=True)
        self._activate = _function(self.activation, negative_slope)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """``weight`` (inputs, units) and ``bias`` (units,)."""
        return {"weight": self.weight, "bias": self.bias}

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, inputs); gives (batch, units)."""
        return self.activate(self.logits(x))

    def logits(self, x: Any) -> Any:
        """The layer without its activation."""
        return ops.affine(x, self.weight, self.bias)

    def activate(self, logits: Any) -> Any:
        """The activation alone."""
        return self._activate(logits)


def _activation(activation: Activation | str | None) -> Activation | None:
    try:
        return None if activation is None else Activation(activation)
    except ValueError:
        names = ", ".join(Activation)
        raise SettingError(f"unknown activation {activation!r}; known are {names}", setting="activation") from None


def _function(activation: Activation | None, negative_slope: float) -> Callable[[Any], Any]:
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


class Dropout:
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

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Nothing to learn."""
        return {}

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` of any shape; needs ``rng`` while training."""
        if not training or self._threshold == 0:
            return x
        if rng is None:
            raise SettingError(
                "Dropout: training needs a random generator: layer(x, training=True, rng=...)", setting="rng"
            )
        kept = rng.integers(0, 2**16, x.shape, np.uint16) >= self._threshold
        mask = kept.astype(x.dtype)
        mask *= 2**16 / (2**16 - self._threshold)
        return ops.multiply(x, mask)


class Sequential:
    """Layers applied one after the other; parameters are named ``layers.0.weight``, ``layers.0.bias``, ...

    The number counts every layer, Dropout too.

    Raises:
        SettingError: no layers, or the last one is not Dense.
        ShapeError: neighbouring Dense layers do not fit.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        if not layers or not isinstance(layers[-1], Dense):
            raise SettingError("Sequential: the last layer must be Dense", setting="layers")
        self.layers = list(layers)
        self.last: Dense = layers[-1]
        dense = [layer for layer in layers if isinstance(layer, Dense)]
        for before, after in pairwise(dense):
            if before.units != after.inputs:
                raise ShapeError(
                    f"Sequential: a layer of {before.units} units before one of {after.inputs} inputs",
                    operation="Sequential",
                    shapes=(before.weight.shape, after.weight.shape),
                )
        self.inputs = dense[0].inputs
        self.units = self.last.units

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

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply all layers to ``x`` (batch, inputs); gives (batch, units)."""
        return self.last.activate(self.logits(x, training=training, rng=rng))

    def logits(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply all layers but the last activation: what losses on logits take."""
        for layer in self.layers[:-1]:
            x = layer(x, training=training, rng=rng)
        return self.last.logits(x)

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters by name."""
        return {name: np.array(tensor) for name, tensor in self.named_parameters().items()}

    def load_state_dict(self, tensors: Mapping[str, Array], prefix: str = "") -> None:
        """Copy the tensors named ``prefix + name`` into the parameters; others are ignored.

        Raises:
            CheckpointError: one is missing, is left over under ``prefix + "layers."``, or has another shape or dtype.
                Nothing is changed then.
        """
        parameters = {prefix + name: tensor for name, tensor in self.named_parameters().items()}
        copy_tensors({name: np.asarray(tensor) for name, tensor in parameters.items()}, tensors, prefix + "layers.")


def copy_tensors(into: Mapping[str, Array], tensors: Mapping[str, Array], prefix: str) -> None:
    """Copy ``tensors`` into the arrays of the same names, all or nothing.

    Raises:
        CheckpointError: names under ``prefix``, shapes or dtypes differ.
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
    for name, array in into.items():
        np.copyto(array, tensors[name])
