"""Gradients of the primitives without a public name, which implement NumPy functions."""

import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine
from engine import ops
from engine.autograd.primitive import Primitive
from engine.ops import shape as shape_module
from engine.ops.images import convolution, pooling
from engine.ops.images.geometry import Convolution
from engine.ops.numpy_api import data_movement
from tests.engine.arrays import (
    Case,
    axes_of,
    binary,
    check_float32_gradients,
    check_gradients,
    check_second_derivatives,
    distinct,
    nonempty_shapes,
    positive,
    shapes,
    shapes_with_axes,
    unary,
)
from tests.engine.ops.numpy_cases import PRIMITIVES
from tests.engine.ops.primitive_cases import PUBLIC


@st.composite
def below_one(draw: Any, ufunc: np.ufunc) -> Case:
    """Arguments between -1 and 1."""
    return ufunc, [distinct(draw, draw(shapes)) / 2]


@st.composite
def above_one(draw: Any, ufunc: np.ufunc) -> Case:
    """Arguments above 1."""
    return ufunc, [positive(draw, draw(shapes)) + 1]


@st.composite
def reduced(draw: Any, function: Any, max_axes: int = 3) -> Case:
    shape = draw(shapes_with_axes)
    axes = draw(axes_of(shape).filter(lambda axis: np.size(axis) <= max_axes))
    keepdims = draw(st.booleans())
    return lambda x: function(x, axis=axes, keepdims=keepdims), [distinct(draw, shape)]


@st.composite
def product_with_zeros(draw: Any) -> Case:
    f, (x,) = draw(reduced(np.prod))
    return f, [np.where(np.abs(x) < draw(st.sampled_from([0, 0.2])), 0, x)]


@st.composite
def cumsum(draw: Any) -> Case:
    shape = draw(shapes_with_axes)
    axis = draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    return lambda x: np.cumsum(x, axis=axis), [distinct(draw, shape)]


@st.composite
def einsum(draw: Any) -> Case:
    """Up to three operands; a letter can be in one or all, in the result or not; its size can be 0."""
    sizes = {letter: draw(st.integers(0, 3)) for letter in "ijkl"}
    terms = [draw(st.lists(st.sampled_from("ijkl"), max_size=3, unique=True)) for _ in range(draw(st.integers(1, 3)))]
    subscripts = ",".join(map("".join, terms))
    letters = sorted(set(subscripts) - {","})
    subscripts += "->" + "".join(draw(st.lists(st.sampled_from(letters), unique=True)) if letters else [])
    arrays = [distinct(draw, [sizes[letter] for letter in term]) for term in terms]
    return lambda *operands: np.einsum(subscripts, *operands), arrays


@st.composite
def move(draw: Any) -> Case:
    shape = draw(nonempty_shapes)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    indices = draw(st.lists(st.integers(-shape[axis], shape[axis] - 1), max_size=4))
    moves = {
        "flip": lambda x: np.flip(x, axis),
        "pad": lambda x: np.pad(x, 1),
        "repeat": lambda x: np.repeat(x, 2, axis),
        "roll": lambda x: np.roll(x, 2, axis),
        "sort": lambda x: np.sort(x, axis),
        "take": lambda x: np.take(x, indices, axis),
        "tile": lambda x: np.tile(x, 2),
        "tril": lambda x: np.tril(np.atleast_2d(x)),
    }
    return moves[draw(st.sampled_from(sorted(moves)))], [distinct(draw, shape)]


@st.composite
def convolution_product(draw: Any, op: Any) -> Case:
    """A product in the VJPs of a convolution, of two of the images x, the weights and the images y."""
    kernel, stride = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    padding = draw(st.sampled_from(["same", "valid"]))
    channels, filters, batch = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    x = distinct(draw, (batch, draw(st.integers(kernel, 3)), draw(st.integers(kernel, 3)), channels))
    w = distinct(draw, (kernel, kernel, channels, filters))
    geometry = Convolution.of(x, w, stride, padding)
    y = distinct(draw, (batch, geometry.rows.count, geometry.columns.count, filters))
    operands = {"gather": [x, w], "scatter_patches": [y, w], "correlate": [x, y]}[op.name]
    return lambda *arrays: op(*arrays, geometry=geometry), operands


@st.composite
def vjp_primitive(draw: Any, name: str) -> Case:
    """A primitive in the VJPs of indexing, moving and pooling."""
    x = distinct(draw, (2, 2, 2, draw(st.integers(1, 2))))
    y = ops.max_pool2d(x)
    cases = {
        "max_unpool2d": (lambda g: pooling._unpooled(g, x=x, y=y, size=2), y),
        "move_home": (
            lambda g: data_movement._moved_home(g, shape=(3,), move=lambda array: np.tile(array, 2)),
            np.ones(6),
        ),
        "pick_of_windows": (lambda h: pooling._picked(h, x=x, y=y, size=2), x),
        "scatter": (lambda g: shape_module._scattered(g, shape=(3,), index=np.array([0, 2, 0])), np.ones(3)),
    }
    f, template = cases[name]
    return f, [distinct(draw, template.shape)]


CASES: dict[str, st.SearchStrategy[Case]] = {
    **{name: unary(getattr(np, name)) for name in ("arcsinh", "arctan", "cbrt", "cosh", "exp2", "sinh", "tan")},
    **{name: below_one(getattr(np, name)) for name in ("arccos", "arcsin", "arctanh")},
    **{name: above_one(getattr(np, name)) for name in ("arccosh", "log10", "log2")},
    **{name: binary(getattr(np, name)) for name in ("arctan2", "hypot", "logaddexp")},
    **{
        name: convolution_product(op)
        for name, op in (
            ("correlate", convolution.correlate),
            ("gather", convolution.gather),
            ("scatter_patches", convolution.scatter),
        )
    },
    **{name: vjp_primitive(name) for name in ("max_unpool2d", "move_home", "pick_of_windows", "scatter")},
    "copy": unary(lambda x: x.copy()),
    "cumsum": cumsum(),
    "einsum": einsum(),
    "move": move(),
    "norm": reduced(np.linalg.norm, max_axes=2),  # NumPy has no norm over three axes
    "prod": product_with_zeros(),
    **PRIMITIVES,
}


def test_every_primitive_without_a_public_name_has_a_case() -> None:
    modules = [importlib.import_module(module.name) for module in pkgutil.walk_packages(engine.__path__, "engine.")]
    primitive_names = {
        value.name for module in modules for value in vars(module).values() if isinstance(value, Primitive)
    }
    assert primitive_names - {*PUBLIC} == set(CASES)


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=25)
def test_gradients_agree_with_central_differences(name: str, data: st.DataObject) -> None:
    check_gradients(*data.draw(CASES[name]))


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=15)
def test_second_derivatives_agree_with_central_differences(name: str, data: st.DataObject) -> None:
    check_second_derivatives(*data.draw(CASES[name]))


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=5)
def test_float32_gradients_agree_with_float64(name: str, data: st.DataObject) -> None:
    check_float32_gradients(*data.draw(CASES[name]))
