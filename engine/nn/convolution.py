"""The convolutional layers: Conv2D, and Conv2DTranspose, which enlarges images."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Unpack

from engine import ops
from engine.errors import SettingError, check_positive
from engine.nn.activations import Activation
from engine.nn.layer import IMAGES, Shape, reshape_hint, shape_error
from engine.nn.linear import Weighted, WeightSettings
from engine.ops.images.geometry import Padding, transposed_size, window

__all__ = ["Conv2D", "Conv2DTranspose"]


class _Convolutional(Weighted):
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
        **settings: Unpack[WeightSettings],
    ) -> None:
        name = type(self).__name__
        check_positive(f"{name}: ", channels=channels, filters=filters, kernel=kernel, stride=stride)
        if padding not in ("same", "valid"):
            raise SettingError(f"{name}: padding {padding!r} is neither same nor valid", setting="padding")
        self.channels = channels
        self.filters = filters
        self.kernel = kernel
        self.stride = stride
        self.padding: Padding = padding
        super().__init__((kernel, kernel, channels, filters), activation, **settings)

    def output_shape(self, shape: Shape) -> Shape:
        """(height, width, channels) becomes (rows, columns, filters)."""
        if len(shape) != 3 or shape[2] != self.channels:
            raise shape_error(type(self).__name__, f"{IMAGES} of {self.channels} channels", shape, reshape_hint(shape))
        return (self._side(shape[0]), self._side(shape[1]), self.filters)

    @abstractmethod
    def _side(self, size: int) -> int:
        """Number of output pixels along one side."""

    def _apply(self, x: Any, weight: Any) -> Any:
        return self._convolve(x, weight, self.bias, stride=self.stride, padding=self.padding)


class Conv2D(_Convolutional):
    """A convolution: ``activation(conv2d(x, weight) + bias)`` (LeCun et al. 1989).

    Args:
        channels, filters: sizes of the last axis before and after.
        kernel: rows and columns of each filter.
        stride: distance between filter positions, in pixels.
        padding: ``same`` or ``valid``; see :func:`engine.ops.images.geometry.window`.
        activation: an Activation or its name; None for none.
        initializer, rng, negative_slope, spectral_norm: as in :class:`engine.nn.linear.Dense`.

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
