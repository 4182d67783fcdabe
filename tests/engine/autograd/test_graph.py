"""Higher derivatives: nested tapes, and create_graph on a single tape."""

from typing import Any

import numpy as np
import pytest

from engine import Dense, GradientError, GradientTape, Sequential, Tensor, generator_for, gradcheck, ops
from engine.autograd.primitive import Primitive


def test_an_outer_tape_records_the_gradient_of_an_inner_tape() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = x**3
        (first,) = inner.gradient(y, [x])
    (second,) = outer.gradient(first, [x])
    assert (first.tolist(), second.tolist()) == ([27], [18])


def test_three_nested_tapes_compute_a_third_derivative() -> None:
    x = Tensor(np.array([0.5]), watch=True)
    with GradientTape() as outer:
        with GradientTape() as middle:
            with GradientTape() as inner:
                y = np.sin(x) * x
                (first,) = inner.gradient(y, [x])
            (second,) = middle.gradient(first, [x])
        (third,) = outer.gradient(second, [x], create_graph=None)
    np.testing.assert_allclose(third, -3 * np.sin(0.5) - 0.5 * np.cos(0.5))
    gradcheck(lambda x: np.sin(x) * x, np.array([0.5, 2.0]), order=3, relative_tolerance=1e-4)


def test_a_persistent_tape_records_its_own_gradient() -> None:
    x = Tensor(np.array([1.0, 2.0]), watch=True)
    with GradientTape(persistent=True) as tape:
        y = np.sum(x**3)
        (first,) = tape.gradient(y, [x], create_graph=True)
        penalty = np.sum(first**2)
        plain = tape.gradient(y, [x])[0]
    assert (first == plain).all()
    np.testing.assert_allclose(tape.gradient(penalty, [x])[0], 36 * np.array([1.0, 8.0]))  # the gradient of 9 x^4


def test_a_hessian_vector_product_matches_a_central_difference_of_gradients() -> None:
    model = Sequential(
        [
            Dense(3, 4, "tanh", rng=generator_for(0, "a"), dtype=np.float64),
            Dense(4, 1, "sigmoid", rng=generator_for(1, "b"), dtype=np.float64),
        ]
    )
    x = Tensor(generator_for(2, "x").standard_normal((1, 3)), watch=True)

    def gradient_at(at: Any) -> np.ndarray:
        point = Tensor(at, watch=True)
        with GradientTape() as tape:
            y = model(point)
        return np.asarray(tape.gradient(y, [point])[0])

    v = np.array([[1.0, -2.0, 0.5]])
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = model(x)
        directional_derivative = np.sum(inner.gradient(y, [x])[0] * v)
    (product,) = outer.gradient(directional_derivative, [x])
    h = 1e-5
    at = np.asarray(x)
    np.testing.assert_allclose(product, (gradient_at(at + h * v) - gradient_at(at - h * v)) / (2 * h), rtol=1e-6)


def test_weights_have_gradients_through_the_gradient_of_an_input() -> None:
    """A gradient penalty: its gradient for each parameter, compared with central differences."""
    layers = [
        Dense(3, 4, "leaky_relu", rng=generator_for(0, "a"), dtype=np.float64),
        Dense(4, 1, rng=generator_for(1, "b"), dtype=np.float64),
    ]
    weights = [np.array(tensor) for layer in layers for tensor in (layer.weight, layer.bias)]
    x = Tensor(generator_for(2, "x").standard_normal((5, 3)), watch=True)

    def penalty(w: Any, b: Any, v: Any, c: Any) -> Any:
        with GradientTape() as inner:
            score = ops.affine(ops.leaky_relu(ops.affine(x, w, b)), v, c)
        (input_gradient,) = inner.gradient(score, [x])
        return np.mean((np.linalg.norm(input_gradient, axis=1) - 1) ** 2)

    gradcheck(penalty, *weights)


def test_two_vjps_compute_a_jvp() -> None:
    """Jv as the VJP of a VJP, which is linear in its output gradient."""
    x, u = Tensor(np.array([1.0, 2.0]), watch=True), Tensor(np.zeros(2), watch=True)
    v = np.array([3.0, -1.0])
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = x**2
        (vjp,) = inner.gradient(y, [x], u)
    np.testing.assert_allclose(outer.gradient(vjp, [u], v)[0], 2 * np.array([1.0, 2.0]) * v)


def test_a_linear_function_has_a_zero_second_derivative_only_on_request() -> None:
    x = Tensor([1.0], watch=True)
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = 2 * x
        (slope,) = inner.gradient(y, [x])
    with pytest.raises(GradientError, match="does not depend on source 0"):
        outer.gradient(slope, [x])
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = 2 * x
        (slope,) = inner.gradient(y, [x])
    assert outer.gradient(slope, [x], unconnected="zero")[0].tolist() == [0]


def test_an_inner_gradient_can_be_left_unrecorded() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = x**2
        (slope,) = inner.gradient(y, [x], create_graph=False)
        z = slope * x
    assert outer.gradient(z, [x])[0].tolist() == [6]  # the slope is a constant


def test_create_graph_needs_a_recording_tape_that_keeps_its_graph() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as tape:
        y = x**2
        with pytest.raises(GradientError, match="needs a tape that records it"):
            tape.gradient(y, [x], create_graph=True)
    with GradientTape(persistent=True) as tape:
        y = x**2
    with pytest.raises(GradientError, match="inside the with block"):
        tape.gradient(y, [x], create_graph=True)
    with GradientTape(persistent=True, keeps_graph=False) as tape:
        y = x**2
        with pytest.raises(GradientError, match="kept no tensors of square"):
            tape.gradient(y, [x], create_graph=True)


def test_nested_tapes_cannot_be_entered_again_or_used_separately() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = x**2
        with pytest.raises(GradientError, match="already running"), outer:
            pass
    with pytest.raises(GradientError, match="nested in another one"), inner:
        pass
    outer.gradient(y, [x])
    with pytest.raises(GradientError, match="already computed its gradient"):
        inner.gradient(y, [x])
    with GradientTape():  # no tape is left running
        pass


UNTRACKED_RULES = {
    "asarray": lambda y, x: lambda g: np.asarray(g) * 2 * np.asarray(x),
    "setitem": lambda y, x: lambda g: _filled(g),
    "in place": lambda y, x: lambda g: np.multiply(g, 2, out=np.empty_like(g)),
}


def _filled(g: Any) -> Any:
    filled = np.zeros(g.shape)
    filled[...] = g
    return filled


@pytest.mark.parametrize("name", UNTRACKED_RULES)
def test_a_vjp_rule_that_leaves_the_tape_is_rejected(name: str) -> None:
    square = Primitive("odd", np.square, UNTRACKED_RULES[name])
    x = Tensor([3.0], watch=True)
    with GradientTape():
        with GradientTape() as inner:
            y = square(x)
        with pytest.raises(GradientError, match="the gradient of odd has no gradient"):
            inner.gradient(y, [x])


def test_only_records_inside_nested_tapes_keep_what_recorded_vjps_need() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as tape:
        x * 2
    assert all(record.make_recorded_vjp is None for record in tape.records)
    with GradientTape() as outer:
        x * 2
        with GradientTape():
            x * 2
        x * 2
    assert [record.make_recorded_vjp is None for record in outer.records] == [True, False, True]
