"""Arrays and checks for gradient tests: arrays away from kinks, and one gradient in any memory layout and dtype."""

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
full_shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3)


def distinct(draw: Any, shape: Sequence[int], offset: float = 0.037) -> np.ndarray:
    """Values a tenth apart in random order, none at 0: no kink within reach of a difference quotient."""
    size = int(np.prod(shape))
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(size)
    return ((order - size // 2) * 0.1 + offset).reshape(shape)


def positive(draw: Any, shape: Sequence[int]) -> np.ndarray:
    return np.abs(distinct(draw, shape)) + 0.3


def pair(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays that broadcast together."""
    both = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=3)).input_shapes
    return distinct(draw, both[0]), distinct(draw, both[1], 0.081)


@st.composite
def unary(draw: Any, function: Any) -> Case:
    return function, [distinct(draw, draw(shapes))]


@st.composite
def binary(draw: Any, function: Any) -> Case:
    return function, list(pair(draw))


def axes_of(shape: Sequence[int]) -> Any:
    """All axes, one, or several."""
    ndim = len(shape)
    return st.none() | st.integers(-ndim, ndim - 1) | hnp.valid_tuple_axes(ndim, min_size=1)


def strided(array: np.ndarray) -> np.ndarray:
    """The same values in memory that is neither contiguous nor in order."""
    padded = np.zeros(tuple(2 * size for size in array.shape[::-1]))
    view = padded.transpose()[(..., *(slice(None, None, -2),) * array.ndim)]
    view[...] = array
    return view


def value_and_gradients(f: Callable[..., Any], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """``f``'s value, and the gradient of each of its arguments."""
    tensors = [Tensor(array, watch=True) for array in arrays]
    with GradientTape() as tape:
        y = f(*tensors)
    gradients = tape.gradient(y, tensors)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        assert (gradient.shape, gradient.dtype) == (tensor.shape, tensor.dtype)
    return [np.asarray(array) for array in (y, *gradients)]


def check_gradients(f: Callable[..., Any], inputs: Sequence[np.ndarray]) -> None:
    """Against central differences; then the same wherever the arguments lie in memory."""
    gradcheck(f, *inputs)
    answers = [value_and_gradients(f, arrays) for arrays in (inputs, [strided(array) for array in inputs])]
    for contiguous, scattered in zip(*answers, strict=True):
        np.testing.assert_allclose(scattered, contiguous, rtol=1e-12, atol=1e-12)


def check_second_gradients(f: Callable[..., Any], inputs: Sequence[np.ndarray]) -> None:
    """The gradient of the gradient against central differences; recorded, a gradient is what it is plainly."""
    gradcheck(f, *inputs, order=2, relative_tolerance=1e-4, absolute_tolerance=1e-6)
    tensors = [Tensor(array, watch=True) for array in inputs]
    plain = gradient_of(f)(*tensors)
    with GradientTape():
        recorded = gradient_of(f)(*tensors)
    np.testing.assert_allclose(recorded, plain, rtol=1e-10, atol=1e-10)


def check_narrow_gradients(f: Callable[..., Any], inputs: Sequence[np.ndarray]) -> None:
    """In float32 the dtype stays, and the numbers are those of float64 as far as it goes."""
    exact = value_and_gradients(f, inputs)
    rounded = value_and_gradients(f, [array.astype(np.float32) for array in inputs])
    for narrow, wide in zip(rounded, exact, strict=True):
        np.testing.assert_allclose(narrow, wide, rtol=1e-3, atol=1e-3)
