"""Every primitive, compared with central differences, over shapes, broadcasts, axes and memory layouts."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import DataError, GradientError, GradientTape, SettingError, ShapeError, Tensor, ops
from engine.replay import Replay
from tests.engine.arrays import check_float32_gradients, check_gradients, check_second_derivatives
from tests.engine.ops.primitive_cases import CASES, PUBLIC

# The primitives that layers are composed of. The cases of losses have their targets in closures, where a
# replay does not see them change; in trainers/test_replay.py they are inputs.
REPLAYED = {"add", "affine", "leaky_relu", "matmul", "multiply", "relu", "sigmoid", "softmax", "subtract", "tanh"}
REPLAYED |= {"batch_norm", "conv2d", "conv2d_transpose", "flatten", "max_pool2d", "sum_pool2d", "upsample2d"}
REPLAYED |= {"elu", "gelu", "layer_norm", "silu", "softplus"}


def test_every_public_primitive_has_a_case() -> None:
    assert set(CASES) == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
@given(data=st.data())
@settings(max_examples=25)
def test_gradients_agree_with_central_differences(name: str, data: st.DataObject) -> None:
    check_gradients(*data.draw(CASES[name]))


@pytest.mark.parametrize("name", PUBLIC)
@given(data=st.data())
@settings(max_examples=15)
def test_second_derivatives_agree_with_central_differences(name: str, data: st.DataObject) -> None:
    check_second_derivatives(*data.draw(CASES[name]))


@pytest.mark.parametrize("name", sorted({*PUBLIC} - {"cast"}))  # cast changes the dtype on purpose
@given(data=st.data())
@settings(max_examples=5)
def test_float32_gradients_agree_with_float64(name: str, data: st.DataObject) -> None:
    check_float32_gradients(*data.draw(CASES[name]))


@pytest.mark.parametrize("name", PUBLIC)
@given(data=st.data())
@settings(max_examples=15)
def test_a_replay_with_other_values_has_the_same_bits_or_runs_on_the_tape(name: str, data: st.DataObject) -> None:
    f, inputs = data.draw(CASES[name])

    def step(*arrays: np.ndarray, rng: None) -> list[np.ndarray]:
        tensors = [Tensor(array, watch=True) for array in arrays]
        with GradientTape() as tape:
            y = ops.squared_error(f(*tensors), 0.5)
        return [np.asarray(result) for result in (y, *tape.gradient(y, tensors))]

    replay = Replay([])
    other_inputs = [1.25 * array[..., ::-1] if array.ndim else 1.25 * array for array in inputs]
    for arrays in (inputs, other_inputs, inputs):
        for got, expected in zip(replay(step, *arrays), step(*arrays, rng=None), strict=True):
            assert got.tobytes() == expected.tobytes()
    if name in REPLAYED:
        assert len(replay.plans) == 1


def test_sigmoid_is_accurate_at_both_ends() -> None:
    for dtype in (np.float32, np.float64):
        x = np.array([-1000, -20, 0, 20, 1000], dtype)
        y = ops.sigmoid(x)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, [0, 2.0611536e-9, 0.5, 1, 1], rtol=1e-6)


def test_losses_on_logits_stay_finite_where_probabilities_underflow() -> None:
    x = np.array([[1e4, -1e4]])
    assert ops.sigmoid_cross_entropy(x, np.array([[0.0, 1.0]])) == 2e4
    assert ops.softmax_cross_entropy(x, np.array([1])) == 2e4


def test_clip_between_crossed_bounds_returns_the_upper_bound() -> None:
    x, low, high = (Tensor([value], watch=True) for value in (-1.0, 0.5, -0.5))
    with GradientTape() as tape:
        y = np.clip(x, low, high)
    assert y.tolist() == [-0.5]
    assert [gradient.tolist() for gradient in tape.gradient(y, [x, low, high])] == [[0], [0], [1]]


def test_tied_maxima_share_the_gradient() -> None:
    x = Tensor([2.0, 2.0, 1.0], watch=True)
    with GradientTape() as tape:
        y = ops.max(x)
    assert tape.gradient(y, [x])[0].tolist() == [0.5, 0.5, 0]


def test_an_element_selected_twice_gets_both_gradients() -> None:
    x = Tensor([1.0, 2.0], watch=True)
    with GradientTape() as tape:
        y = x[[0, 0, 1]] * [1.0, 10.0, 100.0]
    assert tape.gradient(y, [x])[0].tolist() == [11, 100]


def test_reductions_of_empty_arrays_have_empty_gradients() -> None:
    x = Tensor(np.zeros((0, 3)), watch=True)
    for op in (ops.mean, ops.var, ops.std):
        with GradientTape() as tape, np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = op(x, axis=0)
        assert np.isnan(y).all()
        assert tape.gradient(y, [x])[0].shape == (0, 3)


def test_spread_gradients_are_zero_for_equal_values_and_nan_without_degrees_of_freedom() -> None:
    x = Tensor([2.0, 2.0], watch=True)
    with GradientTape() as tape:
        y = np.std(x) + np.var(x)
    assert tape.gradient(y, [x])[0].tolist() == [0, 0]
    for op in (ops.var, ops.std):
        with GradientTape() as tape, np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = op(x, ddof=2)
        assert np.isnan(np.asarray(tape.gradient(y, [x])[0])).all()


def test_power_of_zero_has_finite_gradients() -> None:
    x, p = Tensor([0.0, 0.0], watch=True), Tensor([2.0, 3.0], watch=True)
    with GradientTape() as tape:
        y = x**p + x**0
    gradients = tape.gradient(y, [x, p])
    assert [gradient.tolist() for gradient in gradients] == [[0, 0], [0, 0]]


def test_the_gradient_of_a_negative_exponent_of_zero_is_minus_infinity() -> None:
    p = Tensor([-1.0, 0.0, 1.0], watch=True)
    with GradientTape() as tape, np.errstate(divide="ignore"):
        y = 0.0**p
        (gradient,) = tape.gradient(y, [p])
    assert gradient.tolist() == [-np.inf, 0, 0]


def test_shape_errors_name_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"affine: \(2, 3\) @ \(4, 5\)") as caught:
        ops.affine(np.ones((2, 3)), np.ones((4, 5)), np.ones(5))
    assert caught.value.shapes == ((2, 3), (4, 5))
    with pytest.raises(ShapeError, match=r"affine: weight \(3, 4\) and bias \(1,\)"):
        ops.affine(np.ones((2, 3)), np.ones((3, 4)), np.ones(1))
    with pytest.raises(ShapeError, match=r"affine: \(2, 3\) @ \(3,\)"):
        ops.affine(np.ones((2, 3)), np.ones(3), np.ones(2))
    with pytest.raises(ShapeError, match=r"squared_error: \(3,\) and target \(2, 3\)"):
        ops.squared_error(np.ones(3), np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"add: shapes \(2,\) and \(3,\)"):
        ops.add(np.ones(2), np.ones(3))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, -1], DataError, "range from -1 to 0, but there are 3 classes"),
        ([0, 3], DataError, "range from 0 to 3"),
        ([0.0, 1.0], DataError, "must be integers"),
        ([0, 1, 1], ShapeError, r"\(3,\) for a batch of 2"),
    ],
)
def test_invalid_labels_are_rejected(labels: list[float], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.softmax_cross_entropy(np.ones((2, 3)), np.array(labels))
    with pytest.raises(ShapeError, match=r"logits \(3,\) are not \(batch, classes\)"):
        ops.softmax_cross_entropy(np.ones(3), np.array([0]))


def test_a_negative_slope_above_one_is_rejected() -> None:
    with pytest.raises(SettingError, match=r"negative_slope 2\.0 is not in \[0, 1\]"):
        ops.leaky_relu(np.ones(3), negative_slope=2.0)


def test_a_tracked_tensor_as_an_option_is_rejected_not_ignored() -> None:
    low = Tensor(0.0, watch=True)
    with GradientTape(), pytest.raises(GradientError, match="positional"):
        ops.clip(np.ones(3), low=low)
