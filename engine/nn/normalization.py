"""Normalization layers: BatchNorm normalizes over the batch, LayerNorm within each example."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from engine import ops
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor
from engine.errors import check_fraction, check_positive
from engine.nn.activations import Activation
from engine.nn.layer import Activated, Shape, shape_error
from engine.ops.normalization import update_running_average

__all__ = ["BatchNorm", "LayerNorm"]


class _Normalization(Activated):
    """Base of both: a scale and a shift of each feature, then an activation."""

    def __init__(
        self,
        features: int,
        activation: Activation | str | None = None,
        *,
        epsilon: float = 1e-5,
        dtype: DTypeLike = np.float32,
        negative_slope: float = 0.2,
    ) -> None:
        check_positive(f"{type(self).__name__}: ", features=features, epsilon=epsilon)
        super().__init__(activation, negative_slope)
        self.features = features
        self.epsilon = epsilon
        self.scale = Tensor(np.ones(features, dtype), watch=True)
        self.shift = Tensor(np.zeros(features, dtype), watch=True)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """``scale`` and ``shift`` (features,)."""
        return {"scale": self.scale, "shift": self.shift}

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the input."""
        if shape[-1:] != (self.features,):
            raise shape_error(type(self).__name__, f"{self.features} features in the last axis", shape)
        return shape


class BatchNorm(_Normalization):
    """Batch normalization over all axes except the last (Ioffe & Szegedy 2015), followed by an activation.

    Training normalizes by the statistics of the batch and updates running averages of them. Inference normalizes by
    these averages, so that the output for an image does not depend on the rest of the batch. The running variance
    averages the unbiased variance (Algorithm 2, line 10). The layer before it should have a linear activation; its bias
    has no effect.

    Args:
        features: size of the last axis.
        activation: an Activation or its name; None for none.
        momentum: fraction of the running statistics that each step keeps, in [0, 1). PyTorch's is 1 minus this.
        epsilon: added to the variance, positive.
        negative_slope: of leaky_relu, in [0, 1].

    Raises:
        SettingError: a number out of its range, or an unknown activation.
    """

    def __init__(
        self,
        features: int,
        activation: Activation | str | None = None,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dtype: DTypeLike = np.float32,
        negative_slope: float = 0.2,
    ) -> None:
        super().__init__(features, activation, epsilon=epsilon, dtype=dtype, negative_slope=negative_slope)
        check_fraction("BatchNorm: ", momentum=momentum)
        self.momentum = momentum
        self.running_mean: Array = np.zeros(features, dtype)
        self.running_variance: Array = np.ones(features, dtype)

    @property
    def buffers(self) -> dict[str, Array]:
        """``running_mean`` and ``running_variance`` (features,)."""
        return {"running_mean": self.running_mean, "running_variance": self.running_variance}

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, ..., features); with ``training``, the running statistics change."""
        if training:
            y, mean, variance = ops.batch_norm(x, self.scale, self.shift, self.epsilon)
            count = x.size // self.features
            update_running_average(self.running_mean, mean, self.momentum)
            update_running_average(self.running_variance, variance * (count / max(count - 1, 1)), self.momentum)
        else:
            factor = ops.multiply(self.scale, 1 / np.sqrt(self.running_variance + self.epsilon))
            shift = ops.subtract(self.shift, ops.multiply(self.running_mean, factor))
            y = ops.add(ops.multiply(x, factor), shift)
        return self.activate(y)


class LayerNorm(_Normalization):
    """Layer normalization (Ba et al. 2016), followed by an activation: each example by its own mean and variance.

    The statistics cover all values of an example, for an image all pixels and channels; scale and shift apply to the
    last axis. For vectors, this is PyTorch's ``LayerNorm``; for images, its ``GroupNorm`` with one group. Training and
    inference are the same, and an output does not depend on the rest of the batch.

    The arguments are those of :class:`BatchNorm`, without ``momentum``.
    """

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, ..., features)."""
        return self.activate(ops.layer_norm(x, self.scale, self.shift, self.epsilon))
