"""The convolutional layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from engine import memory, ops
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor
from engine.errors import SettingError
from engine.nn.activations import Activation, activation_function, as_activation
from engine.nn.initializers import Initializer, glorot_uniform
from engine.nn.layer import IMAGES, Shape, check_sizes, misfit, reshape_hint
from engine.ops.images.geometry import Padding, window


class Conv2D:
    """A convolution: ``activation(conv2d(x, weight) + bias)`` (LeCun et al. 1989).

    Args:
        channels, filters: sizes of the last axis before and after.
        kernel: rows and columns of each filter.
        stride: pixels from one position of the filter to the next.
        padding: ``same`` or ``valid``; see :func:`engine.ops.images.geometry.window`.
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
        check_sizes("Conv2D", channels=channels, filters=filters, kernel=kernel, stride=stride)
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
            raise misfit("Conv2D", f"{IMAGES} of {self.channels} channels", shape, reshape_hint(shape))
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
