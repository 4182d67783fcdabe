"""NumPy functions composed of primitives: values equal NumPy's, first and second derivatives are correct."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import GradientError, GradientTape, Tensor, gradcheck
from tests.engine.arrays import check_float32_gradients, check_gradients, check_second_derivatives
from tests.engine.ops.numpy_cases import COMPOSED, PRIMITIVES


@pytest.mark.parametrize("name", [*COMPOSED, *PRIMITIVES])
@given(data=st.data())
@settings(max_examples=20)
def test_values_on_a_tape_equal_those_of_numpy(name: str, data: st.DataObject) -> None:
    f, inputs = data.draw((COMPOSED | PRIMITIVES)[name])
    with GradientTape():
        recorded = f(*(Tensor(array, watch=True) for array in inputs))
    plain = f(*inputs)
    assert recorded.shape == np.shape(plain)
    np.testing.assert_allclose(recorded, plain, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", COMPOSED)
@given(data=st.data())
@settings(max_examples=15)
def test_first_and_second_derivatives_agree_with_central_differences(name: str, data: st.DataObject) -> None:
    f, inputs = data.draw(COMPOSED[name])
    check_gradients(f, inputs)
    check_second_derivatives(f, inputs)
    check_float32_gradients(f, inputs)


def test_sinc_is_smooth_at_zero() -> None:
    near = np.array([0.0, 1e-9, -1e-3, 0.0099, 0.0101])
    for order in (1, 2, 3):
        gradcheck(np.sinc, near, order=order, step=1e-4, relative_tolerance=1e-3, absolute_tolerance=1e-3)


def test_nan_to_num_has_a_zero_gradient_for_values_that_are_not_finite() -> None:
    x = Tensor(np.array([1.0, np.nan, np.inf, -np.inf]), watch=True)
    with GradientTape() as tape:
        y = np.nan_to_num(x, nan=5.0, posinf=6.0)
    assert y[:3].tolist() == [1, 5, 6]
    assert tape.gradient(y, [x])[0].tolist() == [1, 0, 0, 0]


def test_fmax_and_fmin_prefer_a_number_to_nan() -> None:
    a, b = (Tensor(np.array(values), watch=True) for values in ([1.0, np.nan], [np.nan, 2.0]))
    for function in (np.fmax, np.fmin):
        with GradientTape() as tape:
            y = function(a, b)
        assert y.tolist() == [1, 2]
        assert [gradient.tolist() for gradient in tape.gradient(y, [a, b])] == [[1, 0], [0, 1]]


UNSUPPORTED: dict[str, Any] = {
    "svd": lambda x: np.linalg.svd(x[:, :1]),
    "norm": lambda x: np.linalg.norm(x, 0, axis=0),
    "cross": lambda x: np.cross(x, x),
    "einsum": lambda x: np.einsum(x, [0, ...], [0, ...]),
    "linspace": lambda x: np.linspace(x, 1, retstep=True),
    "pad": lambda x: np.pad(x, 1, "linear_ramp"),
    "fft": np.fft.fft,
    "np.linalg.pinv": np.linalg.pinv,
    "np.linalg.vector_norm": lambda x: np.linalg.vector_norm(x, ord=0),
    "np.average": lambda x: np.average(x, returned=True),
    "np.astype": lambda x: np.astype(x, int),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_functions_without_a_gradient_are_rejected(name: str) -> None:
    x = Tensor(np.ones((2, 2)), watch=True)
    with GradientTape(), pytest.raises(GradientError, match=name):
        UNSUPPORTED[name](x)
