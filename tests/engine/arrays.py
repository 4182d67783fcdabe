"""Inputs and checks for gradient tests: arrays away from kinks, any memory layout, both dtypes."""

from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st

from engine import GradientTape, Tensor, gradcheck
from engine.autograd.gradcheck import gradient_of

Case = tuple[Callable[..., Any], list[np.ndarray]]
shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
shapes_with_axes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3)
nonempty_shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3)


def distinct(draw: Any, shape: Sequence[int], offset: float = 0.037) -> np.ndarray:
    """Values 0.1 apart in random order, none at 0, so that no difference quotient crosses a kink."""
    size = int(np.prod(shape))
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(size)
    return ((order - size // 2) * 0.1 + offset).reshape(shape)


def positive(draw: Any, shape: Sequence[int]) -> np.ndarray:
    return np.abs(distinct(draw, shape)) + 0.3


def pair(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays that broadcast together."""
    input_shapes = draw(
        hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3)
    ).input_shapes
    return distinct(draw, input_shapes[0]), distinct(draw, input_shapes[1], 0.081)


@st.composite
def unary(draw: Any, function: Any) -> Case:
    return function, [distinct(draw, draw(shapes))]


@st.composite
def binary(draw: Any, function: Any) -> Case:
    return function, list(pair(draw))


def axes_of(shape: Sequence[int]) -> Any:
    """An ``axis`` argument: all axes, one, or several."""
    ndim = len(shape)
    return st.none() | st.integers(-ndim, ndim - 1) | hnp.valid_tuple_axes(ndim, min_size=1)


def strided(array: np.ndarray) -> np.ndarray:
    """The same values in memory that is neither contiguous nor in row-major order."""
    padded = np.zeros(tuple(2 * size for size in array.shape[::-1]))
    view = padded.transpose()[(..., *(slice(None, None, -2),) * array.ndim)]
    view[...] = array
    return view


def in_order(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """The same values, with the axes in memory in this order, the last one innermost."""
    return np.array(array.transpose(order), order="C").transpose(np.argsort(order))


def rows(array: np.ndarray) -> np.ndarray:
    """The same values in row-major order."""
    return np.array(array, order="C")


def planes(array: np.ndarray) -> np.ndarray:
    """The same values in the layout of convolutions, or with the batch innermost if they are no images."""
    return in_order(array, (1, 3, 2, 0) if array.ndim == 4 else (*range(1, array.ndim), 0))


def slice_of_planes(array: np.ndarray) -> np.ndarray:
    """The same values as the inner part of larger planes, like the result of a convolution that drops its border."""
    inner = (slice(None), *(slice(1, -1),) * (array.ndim - 2), slice(None))
    padded = planes(np.full((len(array), *(size + 2 for size in array.shape[1:-1]), array.shape[-1]), np.nan))
    padded[inner] = array
    return padded[inner]


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rows": rows,
    "columns": lambda array: np.array(array, order="F"),
    "planes": planes,
    "slice of planes": slice_of_planes,
    "batch innermost": lambda array: in_order(array, (*range(1, array.ndim), 0)),
    "scattered": strided,
}
"""Copies of an array in the layouts that can reach a layer."""


def value_and_gradients(f: Callable[..., Any], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The value of ``f``, and its gradient with respect to each argument."""
    tensors = [Tensor(array, watch=True) for array in arrays]
    with GradientTape() as tape:
        y = f(*tensors)
    gradients = tape.gradient(y, tensors)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        assert (gradient.shape, gradient.dtype) == (tensor.shape, tensor.dtype)
    return [np.asarray(array) for array in (y, *gradients)]


def check_gradients(f: Callable[..., Any], inputs: Sequence[np.ndarray]) -> None:
    """Compare with central differences, then check that the inputs' memory layout makes no difference."""
    gradcheck(f, *inputs)
    results = [value_and_gradients(f, arrays) for arrays in (inputs, [strided(array) for array in inputs])]
    for contiguous, scattered in zip(*results, strict=True):
        np.testing.assert_allclose(scattered, contiguous, rtol=1e-12, atol=1e-12)


def check_second_derivatives(f: Callable[..., Any], inputs: Sequence[np.ndarray]) -> None:
    """Compare second derivatives with central differences; recording a gradient must not change its value."""
    gradcheck(f, *inputs, order=2, relative_tolerance=1e-4, absolute_tolerance=1e-6)
    tensors = [Tensor(array, watch=True) for array in inputs]
    plain = gradient_of(f)(*tensors)
    with GradientTape():
        recorded = gradient_of(f)(*tensors)
    np.testing.assert_allclose(recorded, plain, rtol=1e-10, atol=1e-10)


def check_float32_gradients(f: Callable[..., Any], inputs: Sequence[np.ndarray]) -> None:
    """Check that float32 gradients are float32 and, like the value, agree with float64 up to round-off."""
    exact = value_and_gradients(f, inputs)
    rounded = value_and_gradients(f, [array.astype(np.float32) for array in inputs])
    for narrow, wide in zip(rounded, exact, strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=1e-3, atol=1e-3)
