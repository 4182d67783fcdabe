"""Layers for images (batch, height, width, channels), and batch normalization."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from engine import memory, ops
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor
from engine.errors import SettingError
from engine.initializers import Initializer, glorot_uniform
from engine.layers import Activation, Parameterless, Shape, activation_function, as_activation, misfit
from engine.ops.convolution import Padding, window
from engine.ops.normalization import update_running_average

_IMAGES = "images (height, width, channels)"


class Conv2D:
    """A convolution: ``activation(conv2d(x, weight) + bias)`` (LeCun et al. 1989).

    Args:
        channels, filters: sizes of the last axis before and after.
        kernel: rows and columns of each filter.
        stride: pixels from one position of the filter to the next.
        padding: ``same`` or ``valid``; see :func:`engine.ops.convolution.window`.
        activation: an Activation or its name; None for none.
        initializer: draws weight (kernel, kernel, channels, filters), then bias (filters,).
        rng: where the initializer draws from.
        negative_slope: of leaky_relu, in [0, 1].

    Raises:
        SettingError: a size that is not positive, an unknown padding or activation, a slope out of range.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel: int = 3,
        stride: int = 1,
        padding: Padding = "same",
        activation: Activation | str | None = None,
        *,
        initializer: Initializer = glorot_uniform,
        rng: np.random.Generator,
        dtype: DTypeLike = np.float32,
        negative_slope: float = 0.2,
    ) -> None:
        _check_sizes("Conv2D", channels=channels, filters=filters, kernel=kernel, stride=stride)
        if padding not in ("same", "valid"):
            raise SettingError(f"Conv2D: padding {padding!r} is neither same nor valid", setting="padding")
        self.channels = channels
        self.filters = filters
        self.kernel = kernel
        self.stride = stride
        self.padding: Padding = padding
        self.activation = as_activation(activation)
        self.negative_slope = negative_slope
        self.weight = Tensor(memory.copy(initializer((kernel, kernel, channels, filters), rng, dtype)), watch=True)
        self.bias = Tensor(initializer((filters,), rng, dtype), watch=True)
        self._activate = activation_function(self.activation, negative_slope)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """``weight`` (kernel, kernel, channels, filters) and ``bias`` (filters,)."""
        return {"weight": self.weight, "bias": self.bias}

    @property
    def buffers(self) -> dict[str, Array]:
        """None."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (rows, columns, filters)."""
        if len(shape) != 3 or shape[2] != self.channels:
            raise misfit("Conv2D", f"{_IMAGES} of {self.channels} channels", shape, _hint(shape))
        rows, columns = (window(size, self.kernel, self.stride, self.padding).count for size in shape[:2])
        return (rows, columns, self.filters)

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, height, width, channels); gives (batch, rows, columns, filters)."""
        return self.activate(self.logits(x))

    def logits(self, x: Any) -> Any:
        """The layer without its activation."""
        return ops.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)

    def activate(self, logits: Any) -> Any:
        """The activation alone."""
        return self._activate(logits)


class MaxPool2D(Parameterless):
    """The largest of each window of ``size`` x ``size`` pixels; windows lie side by side and must divide the image.

    The gradient goes to the first maximum of a window.

    Raises:
        SettingError: a size that is not positive.
    """

    def __init__(self, size: int = 2) -> None:
        _check_sizes("MaxPool2D", size=size)
        self.size = size

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (height / size, width / size, channels)."""
        if len(shape) != 3 or shape[0] % self.size or shape[1] % self.size:
            takes = f"{_IMAGES} whose height and width are multiples of {self.size}"
            raise misfit("MaxPool2D", takes, shape, _hint(shape))
        return (shape[0] // self.size, shape[1] // self.size, shape[2])

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, height, width, channels)."""
        return ops.max_pool2d(x, size=self.size)


class Upsample2D(Parameterless):
    """Each pixel ``size`` x ``size`` times: with Conv2D after it, what a generator grows images with.

    Raises:
        SettingError: a size that is not positive.
    """

    def __init__(self, size: int = 2) -> None:
        _check_sizes("Upsample2D", size=size)
        self.size = size

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (height * size, width * size, channels)."""
        if len(shape) != 3:
            raise misfit("Upsample2D", _IMAGES, shape, _hint(shape))
        return (shape[0] * self.size, shape[1] * self.size, shape[2])

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, height, width, channels)."""
        return ops.upsample2d(x, size=self.size)


class BatchNorm:
    """Batch normalization over all axes but the last (Ioffe & Szegedy 2015), and an activation after it.

    While training it uses the statistics of the batch and follows them with running ones, which it uses at
    inference: the answer for an image does not depend on its neighbours then. The running variance follows the
    unbiased one (Algorithm 2, line 10). The layer before wants no activation; its bias has no effect.

    Args:
        features: size of the last axis.
        activation: an Activation or its name; None for none.
        momentum: how much of the running statistics stays at each step, in [0, 1). PyTorch says 1 minus this.
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
        _check_sizes("BatchNorm", features=features)
        if not 0 <= momentum < 1:
            raise SettingError(f"BatchNorm: momentum {momentum} is not in [0, 1)", setting="momentum")
        if not epsilon > 0:
            raise SettingError(f"BatchNorm: epsilon {epsilon} must be positive", setting="epsilon")
        self.features = features
        self.activation = as_activation(activation)
        self.momentum = momentum
        self.epsilon = epsilon
        self.negative_slope = negative_slope
        self.scale = Tensor(np.ones(features, dtype), watch=True)
        self.shift = Tensor(np.zeros(features, dtype), watch=True)
        self.running_mean: Array = np.zeros(features, dtype)
        self.running_variance: Array = np.ones(features, dtype)
        self._activate = activation_function(self.activation, negative_slope)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """``scale`` and ``shift`` (features,)."""
        return {"scale": self.scale, "shift": self.shift}

    @property
    def buffers(self) -> dict[str, Array]:
        """``running_mean`` and ``running_variance`` (features,)."""
        return {"running_mean": self.running_mean, "running_variance": self.running_variance}

    def output_shape(self, shape: Shape) -> Shape:
        """The same."""
        if shape[-1:] != (self.features,):
            raise misfit("BatchNorm", f"{self.features} features in the last axis", shape)
        return shape

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
        return self._activate(y)


def _check_sizes(layer: str, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise SettingError(f"{layer}: {name} {size} must be positive", setting=name)


def _hint(shape: Shape) -> str:
    return "; put Reshape before it" if len(shape) == 1 else ""
