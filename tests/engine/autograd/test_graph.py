"""Gradients of gradients: nested tapes, and create_graph on one."""

from typing import Any

import numpy as np
import pytest

from engine import Dense, GradientError, GradientTape, Sequential, Tensor, generator_for, gradcheck, ops
from engine.autograd.primitive import Primitive


def test_a_tape_around_another_one_records_its_gradient() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = x**3
        (first,) = inner.gradient(y, [x])
    (second,) = outer.gradient(first, [x])
    assert (first.tolist(), second.tolist()) == ([27], [18])


def test_three_tapes_give_a_third_derivative() -> None:
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
        plainly = tape.gradient(y, [x])[0]
    assert (first == plainly).all()
    np.testing.assert_allclose(tape.gradient(penalty, [x])[0], 36 * np.array([1.0, 8.0]))  # of 9 x^4


def test_a_hessian_vector_product_is_that_of_the_hessian() -> None:
    model = Sequential(
        [
            Dense(3, 4, "tanh", rng=generator_for(0, "a"), dtype=np.float64),
            Dense(4, 1, "sigmoid", rng=generator_for(1, "b"), dtype=np.float64),
        ]
    )
    x = Tensor(generator_for(2, "x").standard_normal((1, 3)), watch=True)

    def slope(at: Any) -> np.ndarray:
        point = Tensor(at, watch=True)
        with GradientTape() as tape:
            y = model(point)
        return np.asarray(tape.gradient(y, [point])[0])

    v = np.array([[1.0, -2.0, 0.5]])
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = model(x)
        along = np.sum(inner.gradient(y, [x])[0] * v)
    (product,) = outer.gradient(along, [x])
    h = 1e-5
    at = np.asarray(x)
    np.testing.assert_allclose(product, (slope(at + h * v) - slope(at - h * v)) / (2 * h), rtol=1e-6)


def test_gradients_of_weights_go_through_the_gradient_of_an_input() -> None:
    """A gradient penalty: its gradients against differences, for each parameter."""
    layers = [
        Dense(3, 4, "leaky_relu", rng=generator_for(0, "a"), dtype=np.float64),
        Dense(4, 1, rng=generator_for(1, "b"), dtype=np.float64),
    ]
    weights = [np.array(tensor) for layer in layers for tensor in (layer.weight, layer.bias)]
    x = Tensor(generator_for(2, "x").standard_normal((5, 3)), watch=True)

    def penalty(w: Any, b: Any, v: Any, c: Any) -> Any:
        with GradientTape() as inner:
            score = ops.affine(ops.leaky_relu(ops.affine(x, w, b)), v, c)
        (slope,) = inner.gradient(score, [x])
        return np.mean((np.linalg.norm(slope, axis=1) - 1) ** 2)

    gradcheck(penalty, *weights)


def test_two_gradients_backwards_make_one_forwards() -> None:
    """Jv from two VJPs: the second one of the first, which is linear in what it is given."""
    x, u = Tensor(np.array([1.0, 2.0]), watch=True), Tensor(np.zeros(2), watch=True)
    v = np.array([3.0, -1.0])
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = x**2
        (back,) = inner.gradient(y, [x], u)
    np.testing.assert_allclose(outer.gradient(back, [u], v)[0], 2 * np.array([1.0, 2.0]) * v)


def test_a_linear_function_has_a_second_derivative_of_zero() -> None:
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


def test_an_inner_gradient_may_stay_plain() -> None:
    x = Tensor([3.0], watch=True)
    with GradientTape() as outer:
        with GradientTape() as inner:
            y = x**2
        (slope,) = inner.gradient(y, [x], create_graph=False)
        z = slope * x
    assert outer.gradient(z, [x])[0].tolist() == [6]  # the slope counts as a number


def test_only_a_tape_that_records_can_create_a_graph() -> None:
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


def test_a_nested_tape_cannot_be_used_alone_afterwards() -> None:
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
    with GradientTape():  # nothing is left running
        pass


LEAVING = {
    "asarray": lambda y, x: lambda g: np.asarray(g) * 2 * np.asarray(x),
    "setitem": lambda y, x: lambda g: _filled(g),
    "in place": lambda y, x: lambda g: np.multiply(g, 2, out=np.empty_like(g)),
}


def _filled(g: Any) -> Any:
    filled = np.zeros(g.shape)
    filled[...] = g
    return filled


@pytest.mark.parametrize("name", LEAVING)
def test_a_rule_that_leaves_the_tape_is_refused(name: str) -> None:
    square = Primitive("odd", np.square, LEAVING[name])
    x = Tensor([3.0], watch=True)
    with GradientTape():
        with GradientTape() as inner:
            y = square(x)
        with pytest.raises(GradientError, match="the gradient of odd has no gradient"):
            inner.gradient(y, [x])


def test_a_tape_that_keeps_no_graph_frees_what_no_rule_needs() -> None:
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
