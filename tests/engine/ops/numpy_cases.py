"""Test cases for NumPy functions, with arguments of random shapes."""

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st

from tests.engine.arrays import Case, binary, distinct, nonempty_shapes, pair, positive, unary


@st.composite
def _remainder(draw: Any, function: Any) -> Case:
    """Arguments whose quotient is far from an integer, where the remainder jumps."""
    a, b = pair(draw)
    b = np.abs(b) + 0.6
    return function, [(np.round(3 * a) + 0.37) * np.ones_like(a), np.ones_like(b) * 0.9 + 0 * b]


def square(draw: Any, min_side: int = 1, batch: bool = True) -> np.ndarray:
    """A square matrix or a stack of them, with values far from each other and from 0."""
    side = draw(st.integers(min_side, 3))
    leading = draw(hnp.array_shapes(min_dims=0, max_dims=1, max_side=2)) if batch else ()
    return distinct(draw, (*leading, side, side)) + 2 * np.eye(side) * np.arange(1, side + 1)


@st.composite
def _of_square(draw: Any, function: Any) -> Case:
    return function, [square(draw)]


@st.composite
def _cholesky(draw: Any) -> Case:
    upper = draw(st.booleans())
    x = square(draw)
    return lambda x: np.linalg.cholesky(x + 9 * np.eye(x.shape[-1]), upper=upper), [x]


@st.composite
def _eigh(draw: Any, function: Any) -> Case:
    """Any matrices: NumPy reads one half of each, so the elements of the other half have the gradient 0."""
    half = draw(st.sampled_from("LUu"))
    return lambda x: function(x, half), [square(draw)]


@st.composite
def _solve(draw: Any) -> Case:
    a = square(draw)
    side = a.shape[-1]
    b = (side,) if draw(st.booleans()) else (*a.shape[:-2], side, draw(st.integers(1, 2)))
    return np.linalg.solve, [a, distinct(draw, b)]


@st.composite
def _svd(draw: Any, part: int) -> Case:
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x = distinct(draw, (rows, columns)) + np.eye(rows, columns) * np.arange(1, columns + 1)
    return lambda x: np.linalg.svd(x, full_matrices=False)[part], [x]


PRIMITIVES: dict[str, st.SearchStrategy[Case]] = {
    **{name: unary(getattr(np, name)) for name in ("deg2rad", "nan_to_num", "rad2deg", "sinc")},
    **{name: binary(getattr(np, name)) for name in ("fmax", "fmin", "logaddexp2")},
    **{name: _remainder(getattr(np, name)) for name in ("fmod", "remainder")},
    **{name: _of_square(getattr(np.linalg, name)) for name in ("det", "inv")},
    "cholesky": _cholesky(),
    "eigenvalues": _eigh(lambda x, half: np.linalg.eigh(x, half)[0]),
    "eigenvectors": _eigh(lambda x, half: np.linalg.eigh(x, half)[1]),
    "log_determinants": _of_square(lambda x: np.linalg.slogdet(x)[1] + np.linalg.slogdet(x).sign),
    "singular_values": _svd(1),
    "solve": _solve(),
    "svd_left": _svd(0),
    "svd_right": _svd(2),
}


@st.composite
def _tensordot(draw: Any) -> Case:
    a = distinct(draw, draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=3)))
    match draw(st.integers(0, 2)):
        case 0:
            return lambda a, b: np.tensordot(a, b, 1), [a, distinct(draw, (a.shape[-1], 2))]
        case 1:
            return lambda a, b: np.tensordot(a, b, 0), [a, distinct(draw, (2,))]
        case _:
            b = distinct(draw, (a.shape[1], 2, a.shape[0]))
            return lambda a, b: np.tensordot(a, b, axes=([0, 1], [2, 0])), [a, b]


@st.composite
def _kron(draw: Any) -> Case:
    a, b = (distinct(draw, draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=3))) for _ in range(2))
    return np.kron, [a, b]


@st.composite
def _cross(draw: Any) -> Case:
    count = draw(st.integers(1, 2))
    a, b = distinct(draw, (count, 3)), distinct(draw, (3,))
    return draw(st.sampled_from([np.cross, lambda a, b: np.cross(a, b, axisc=0)])), [a, b]


@st.composite
def _einsum(draw: Any) -> Case:
    a, b = distinct(draw, (2, 3)), distinct(draw, (3, draw(st.integers(1, 2))))
    result = draw(st.sampled_from([[], [[0, 2]], [[2, 1]]]))
    return lambda a, b: np.einsum(a, [0, 1], b, [1, 2], *result), [a, b]


@st.composite
def _select(draw: Any) -> Case:
    a, b = pair(draw)
    shape = np.broadcast_shapes(a.shape, b.shape)
    masks = [np.random.default_rng(seed).random(shape) > 0.5 for seed in range(2)]
    return lambda a, b: np.select(masks, [a, b], 0.5), [a, b]


@st.composite
def _pad(draw: Any) -> Case:
    x = distinct(draw, draw(nonempty_shapes))
    options = draw(st.sampled_from([{}, {"constant_values": 3}, {"mode": "reflect"}, {"mode": "edge"}]))
    width = 1 if options.get("mode") != "reflect" else 0
    return lambda x: np.pad(x, width, **options), [x]


@st.composite
def _gradient(draw: Any) -> Case:
    x = distinct(draw, draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=3, max_side=4)))
    order = draw(st.sampled_from([1, 2]))
    coordinates = np.cumsum(np.arange(1.0, x.shape[0] + 1))
    variants = [lambda x: np.gradient(x, 0.5, axis=0, edge_order=order), lambda x: np.gradient(x, coordinates, axis=0)]
    return draw(
        st.sampled_from([*variants, lambda x: np.stack(np.gradient(np.atleast_2d(x), axis=(1,), edge_order=1))])
    ), [x]


@st.composite
def _column_stack(draw: Any) -> Case:
    rows = draw(st.integers(1, 3))
    return lambda a, b: np.column_stack([a, b]), [distinct(draw, (rows,)), distinct(draw, (rows, 2))]


@st.composite
def _append(draw: Any) -> Case:
    a, b = distinct(draw, (2, 2)), distinct(draw, (1, 2))
    axis = draw(st.sampled_from([None, 0]))
    return lambda a, b: np.append(a, b, axis=axis), [a, b]


@st.composite
def _linspace(draw: Any) -> Case:
    a, b = pair(draw)
    count, end = draw(st.integers(1, 4)), draw(st.booleans())
    axis = draw(st.sampled_from([0, -1]))
    return lambda a, b: np.linspace(a, b, count, endpoint=end, axis=axis), [a, b]


@st.composite
def _average(draw: Any) -> Case:
    a = distinct(draw, (2, 3, 2))
    axis = draw(st.sampled_from([None, 1, (2, 0)]))
    keepdims = draw(st.booleans())
    shapes_ = {None: a.shape, 1: (3,), (2, 0): (2, 2)}
    weights = positive(draw, draw(st.sampled_from([a.shape, shapes_[axis]])))
    if draw(st.booleans()):
        return lambda a: np.average(a, axis, keepdims=keepdims), [a]
    return lambda a, weights: np.average(a, axis, weights, keepdims=keepdims), [a, weights]


@st.composite
def _trapezoid(draw: Any) -> Case:
    y = distinct(draw, (2, draw(st.integers(1, 3)), 2))
    x = distinct(draw, draw(st.sampled_from([y.shape[1:2], y.shape])), 0.081)
    if draw(st.booleans()):
        return lambda y: np.trapezoid(y, dx=0.5, axis=1), [y]
    return lambda y, x: np.trapezoid(y, x, axis=-2), [y, x]


@st.composite
def _vector_product(draw: Any, function: Any) -> Case:
    """A stack of matrices and vectors: one for each matrix, or one for all."""
    matrices = distinct(draw, (2, 3, draw(st.integers(1, 2))))
    size = matrices.shape[1 if function is np.vecmat else 2]
    vectors = distinct(draw, draw(st.sampled_from([(size,), (2, size), (3, 1, size)])), 0.081)
    return function, [vectors, matrices] if function is np.vecmat else [matrices, vectors]


@st.composite
def _reduction(draw: Any, function: Any) -> Case:
    """A reduction of some elements, in another dtype, with an initial value."""
    x = distinct(draw, draw(hnp.array_shapes(min_dims=2, max_dims=3, max_side=3)))
    options: dict[str, Any] = {"axis": draw(st.sampled_from([None, -1, (0, 1)])), "keepdims": draw(st.booleans())}
    if draw(st.booleans()):
        mask = np.random.default_rng(draw(st.integers(0, 9))).random(x.shape[draw(st.integers(0, 1)) :]) > 0.4
        if function in (np.mean, np.var, np.std):  # of no element, these are NaN
            mask[:1] = mask[..., :1] = True
        options["where"] = mask
    if function in (np.max, np.min):
        options["initial"] = draw(st.sampled_from([-0.22, 0.0, 0.22]))
    elif function in (np.sum, np.prod) and draw(st.booleans()):
        options["initial"] = 1.5
    if function not in (np.max, np.min) and draw(st.booleans()):
        options["dtype"] = np.float64
    return lambda x: function(x, **options), [x]


@st.composite
def _vector_norm(draw: Any) -> Case:
    x = distinct(draw, (2, 3, 2))
    order = draw(st.sampled_from([1, 2, 3, np.inf]))
    axis, keepdims = draw(st.sampled_from([None, 1, (0, 2)])), draw(st.booleans())
    x = x * (1 + 0.0137 * np.arange(x.size).reshape(x.shape))  # no two sizes are equal
    return lambda x: np.linalg.vector_norm(x, axis=axis, ord=order, keepdims=keepdims), [x]


@st.composite
def _norm(draw: Any) -> Case:
    x = distinct(draw, draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=3)))
    x = x + np.eye(*x.shape[-2:]) * np.arange(1, x.shape[-1] + 1)
    x = x * (1 + 0.0137 * np.arange(x.size).reshape(x.shape))  # no two sums are equal
    keepdims = draw(st.booleans())
    of_vectors = [(order, -1) for order in (1, 2, 3, np.inf, -np.inf)]
    of_matrices = [(order, (-2, -1)) for order in (1, 2, np.inf, "fro", "nuc")]
    order, axis = draw(st.sampled_from([*of_vectors, *of_matrices]))
    return lambda x: np.linalg.norm(x, order, axis, keepdims), [x]


COMPOSED: dict[str, st.SearchStrategy[Case]] = {
    "append": _append(),
    "average": _average(),
    "column_stack": _column_stack(),
    "cross": _cross(),
    "degrees": unary(np.degrees),
    "einsum of lists": _einsum(),
    "eigvalsh": _eigh(np.linalg.eigvalsh),
    "gradient": _gradient(),
    "kron": _kron(),
    "linspace": _linspace(),
    "matvec": _vector_product(np.matvec),
    "norm": _norm(),
    "pad": _pad(),
    "radians": unary(np.radians),
    "select": _select(),
    "tensordot": _tensordot(),
    "trapezoid": _trapezoid(),
    "vecmat": _vector_product(np.vecmat),
    "vector_norm": _vector_norm(),
    **{name: _reduction(getattr(np, name)) for name in ("max", "mean", "min", "prod", "std", "sum", "var")},
}
