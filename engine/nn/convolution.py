"""The convolutional layers: Conv2D, and Conv2DTranspose, which enlarges images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from engine import memory, ops
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor
from engine.errors import SettingError
from engine.nn.activations import Activation, activation_function, as_activation
from engine.nn.initializers import Initializer, glorot_uniform
from engine.nn.layer import IMAGES, Shape, check_sizes, reshape_hint, shape_error
from engine.nn.spectral import SpectralNorm
from engine.ops.images.geometry import Padding, transposed_size, window


class _Convolutional(ABC):
    """Base of both: filters of ``kernel`` x ``kernel`` pixels, a bias, an activation."""

    _convolve: ClassVar[Any]

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
        spectral_norm: bool = False,
    ) -> None:
        name = type(self).__name__
        check_sizes(name, channels=channels, filters=filters, kernel=kernel, stride=stride)
        if padding not in ("same", "valid"):
            raise SettingError(f"{name}: padding {padding!r} is neither same nor valid", setting="padding")
        self.channels = channels
        self.filters = filters
        self.kernel = kernel
        self.stride = stride
        self.padding: Padding = padding
        self.activation = as_activation(activation)
        self.negative_slope = negative_slope
        self.weight = Tensor(memory.copy(initializer((kernel, kernel, channels, filters), rng, dtype)), watch=True)
        self.bias = Tensor(initializer((filters,), rng, dtype), watch=True)
        self.spectral = SpectralNorm(filters, rng=rng, dtype=dtype) if spectral_norm else None
        self._activate = activation_function(self.activation, negative_slope)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """``weight`` (kernel, kernel, channels, filters) and ``bias`` (filters,)."""
        return {"weight": self.weight, "bias": self.bias}

    @property
    def buffers(self) -> dict[str, Array]:
        """``spectral``, the vector of the spectral normalization, if there is one."""
        return {"spectral": self.spectral.vector} if self.spectral else {}

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (rows, columns, filters)."""
        if len(shape) != 3 or shape[2] != self.channels:
            raise shape_error(type(self).__name__, f"{IMAGES} of {self.channels} channels", shape, reshape_hint(shape))
        return (self._side(shape[0]), self._side(shape[1]), self.filters)

    @abstractmethod
    def _side(self, size: int) -> int:
        """Number of output pixels along one side."""

    def __call__(self, x: Any, *, training: bool = False, rng: np.random.Generator | None = None) -> Any:
        """Apply to ``x`` (batch, height, width, channels); returns (batch, rows, columns, filters)."""
        return self.activate(self.logits(x, training=training))

    def normalized_weight(self, *, training: bool = False) -> Any:
        """The effective weight: with ``spectral_norm``, divided by its largest singular value."""
        return self.spectral(self.weight, training=training) if self.spectral else self.weight

    def logits(self, x: Any, *, training: bool = False) -> Any:
        """The layer without its activation."""
        weight = self.normalized_weight(training=training)
        return self._convolve(x, weight, self.bias, stride=self.stride, padding=self.padding)

    def activate(self, logits: Any) -> Any:
        """The activation alone."""
        return self._activate(logits)


class Conv2D(_Convolutional):
    """A convolution: ``activation(conv2d(x, weight) + bias)`` (LeCun et al. 1989).

    Args:
        channels, filters: sizes of the last axis before and after.
        kernel: rows and columns of each filter.
        stride: distance between filter positions, in pixels.
        padding: ``same`` or ``valid``; see :func:`engine.ops.images.geometry.window`.
        activation: an Activation or its name; None for none.
        initializer: draws weight (kernel, kernel, channels, filters), then bias (filters,).
        rng: generator for the initializer.
        negative_slope: of leaky_relu, in [0, 1].
        spectral_norm: divide the weight by its largest singular value (:mod:`engine.nn.spectral`).

    Raises:
        SettingError: a size that is not positive, an unknown padding or activation, a slope out of range.
    """

    _convolve: ClassVar[Any] = ops.conv2d

    def _side(self, size: int) -> int:
        return window(size, self.kernel, self.stride, self.padding).count


class Conv2DTranspose(_Convolutional):
    """A transposed convolution: each pixel becomes a patch, at distances of ``stride`` pixels (DCGAN, Radford et al.
    2016). With ``same`` padding, height and width grow by the factor ``stride``.

    If the kernel is not a multiple of the stride, patches overlap unevenly, which causes checkerboard patterns (Odena
    et al. 2016).

    The arguments are those of :class:`Conv2D`.
    """

    _convolve: ClassVar[Any] = ops.conv2d_transpose

    def _side(self, size: int) -> int:
        large = transposed_size(size, self.kernel, self.stride, self.padding)
        window(large, self.kernel, self.stride, self.padding)  # checks it
        return large
