"""Layers with a weight and a bias: the base of Dense and the convolutions, Dense, and spectral normalization."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NotRequired, TypedDict, Unpack

import numpy as np
from numpy.typing import DTypeLike

from engine import memory, ops
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor, untracked
from engine.autograd.tracing import computing
from engine.errors import check_positive
from engine.nn.activations import Activation
from engine.nn.initializers import Initializer, glorot_uniform
from engine.nn.layer import Activated, Shape, shape_error

__all__ = ["Dense"]

_MIN_LENGTH = 1e-12
"""Lower bound of lengths, to avoid division by zero."""


class WeightSettings(TypedDict):
    """The settings of all layers with weights, see :class:`Dense`."""

    initializer: NotRequired[Initializer]
    rng: np.random.Generator
    dtype: NotRequired[DTypeLike]
    negative_slope: NotRequired[float]
    spectral_norm: NotRequired[bool]


class Weighted(Activated):
    """Base of layers with a weight (..., inputs, units), a bias (units,) and an activation."""

    def __init__(
        self,
        shape: tuple[int, ...],
        activation: Activation | str | None = None,
        *,
        initializer: Initializer = glorot_uniform,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
        negative_slope: float = 0.2,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__(activation, negative_slope)
        self.weight = Tensor(memory.copy(initializer(shape, rng, dtype)), watch=True)
        self.bias = Tensor(initializer(shape[-1:], rng, dtype), watch=True)
        self.spectral = SpectralNorm(shape[-1], rng=rng, dtype=dtype) if spectral_norm else None

    @property
    def parameters(self) -> dict[str, Tensor]:
        """``weight`` (..., inputs, units) and ``bias`` (units,)."""
        return {"weight": self.weight, "bias": self.bias}

    @property
    def buffers(self) -> dict[str, Array]:
        """``spectral``, the vector of the spectral normalization, if there is one."""
        return {"spectral": self.spectral.vector} if self.spectral else {}

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to a batch."""
        return self.activate(self.logits(x, training=training))

    def normalized_weight(self, *, training: bool = False) -> Any:
        """The effective weight: with ``spectral_norm``, divided by its largest singular value."""
        return self.spectral(self.weight, training=training) if self.spectral else self.weight

    def logits(self, x: Any, *, training: bool = False) -> Any:
        """The layer without its activation."""
        return self._apply(x, self.normalized_weight(training=training))

    @abstractmethod
    def _apply(self, x: Any, weight: Any) -> Any:
        """The layer without its activation, with the effective weight."""


class Dense(Weighted):
    """A fully connected layer: ``activation(x @ weight + bias)``.

    Args:
        inputs, units: sizes of the last axis before and after.
        activation: an Activation or its name; None for none.
        initializer: draws weight (inputs, units), then bias (units,).
        rng: generator for the initializer.
        negative_slope: of leaky_relu, in [0, 1].
        spectral_norm: divide the weight by its largest singular value (:class:`SpectralNorm`).

    Raises:
        SettingError: a size that is not positive, an unknown activation, a slope out of range.
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        activation: Activation | str | None = None,
        **settings: Unpack[WeightSettings],
    ) -> None:
        check_positive("Dense: ", inputs=inputs, units=units)
        self.inputs = inputs
        self.units = units
        super().__init__((inputs, units), activation, **settings)

    def output_shape(self, shape: Shape) -> Shape:
        """(inputs,) becomes (units,)."""
        if shape != (self.inputs,):
            hint = "; put Flatten before it" if len(shape) > 1 else ""
            raise shape_error("Dense", f"({self.inputs},)", shape, hint)
        return (self.units,)

    def _apply(self, x: Any, weight: Any) -> Any:
        return ops.affine(x, weight, self.bias)


class SpectralNorm:
    """Divides weights (..., units), seen as a matrix (inputs, units), by their largest singular value (Miyato et al.
    2018, "Spectral normalization for GANs"), so that a layer never increases the distance between two inputs.

    The value is estimated by power iteration (Algorithm 1), with one step in each pass with ``training=True`` that
    starts from the vector of the previous pass. The vector is a buffer; inference does not change it.

    Args:
        units: size of the last axis of the weights.
        rng: generator for the initial vector.
    """

    def __init__(self, units: int, *, rng: np.random.Generator, dtype: DTypeLike) -> None:
        vector = rng.standard_normal(units)
        self.vector: Array = (vector / np.linalg.norm(vector)).astype(dtype)

    def __call__(self, weight: Any, *, training: bool) -> Any:
        """The normalized weights. Gradients flow through the singular value, but not through its vectors."""
        matrix = np.reshape(untracked(weight), (-1, len(self.vector)))
        vector = self.vector.view(computing.array_class)  # a traced view, so that a replay repeats the update
        left = _unit(np.matmul(matrix, vector))
        right = np.multiply(vector, 1)
        if training:
            right = _unit(np.matmul(left, matrix))
            np.multiply(right, 1, out=vector)
        direction = np.reshape(np.multiply(np.reshape(left, (-1, 1)), right), weight.shape)
        return ops.divide(weight, ops.sum(ops.multiply(weight, direction)))


def _unit(vector: Array) -> Array:
    return np.divide(vector, np.maximum(np.sqrt(np.vecdot(vector, vector)), _MIN_LENGTH))
