"""NumPy functions that are not a single public primitive, compared with central differences."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine import GradientTape, Tensor, gradcheck, ops
from engine.autograd.numpy_dispatch import FUNCTIONS, UFUNCS
from tests.engine.ops.numpy_cases import COMPOSED, PRIMITIVES
from tests.engine.ops.primitive_cases import PUBLIC

RNG = np.random.default_rng(0)
MATRIX = RNG.permutation(12).reshape(3, 4) * 0.1 - 0.53
ROW = np.array([0.7, -0.2, 1.3, -0.9])
CUBE = RNG.permutation(24).reshape(2, 3, 4) * 0.1 - 1.13
BELOW_ONE, ABOVE_ONE = MATRIX / 2, np.abs(MATRIX) + 1.2

Case = tuple[Callable[..., Any], list[np.ndarray]]
UNARY = {
    np.arccos: BELOW_ONE,
    np.arccosh: ABOVE_ONE,
    np.arcsin: BELOW_ONE,
    np.arcsinh: MATRIX,
    np.arctan: MATRIX,
    np.arctanh: BELOW_ONE,
    np.cbrt: MATRIX,
    np.cosh: MATRIX,
    np.exp2: MATRIX,
    np.log10: ABOVE_ONE,
    np.log2: ABOVE_ONE,
    np.positive: MATRIX,
    np.reciprocal: ABOVE_ONE,
    np.sinh: MATRIX,
    np.tan: MATRIX,
}
CASES: dict[Any, list[Case]] = {
    **{ufunc: [(ufunc, [array])] for ufunc, array in UNARY.items()},
    **{ufunc: [(ufunc, [MATRIX, ROW]), (ufunc, [ROW, CUBE])] for ufunc in (np.arctan2, np.hypot, np.logaddexp)},
    np.vecdot: [(np.vecdot, [MATRIX, ROW]), (np.vecdot, [ROW, ROW])],
    np.float_power: [(lambda x, y: np.float_power(x, y), [ABOVE_ONE, ROW])],
    np.amax: [(lambda x: np.amax(x, initial=0.2), [MATRIX]), (lambda x: x.max(0, where=x > 0, initial=0), [CUBE])],
    np.amin: [(lambda x: np.amin(x, initial=-0.2), [MATRIX]), (lambda x: x.min(initial=0), [ROW[:0]])],
    np.array_split: [(lambda x: np.array_split(x, 3, axis=1)[1] * x[:, :1], [MATRIX])],
    np.astype: [(lambda x: np.astype(x, np.float64), [MATRIX])],
    np.atleast_1d: [(lambda x: np.atleast_1d(x[0]) * x, [ROW])],
    np.atleast_2d: [(np.atleast_2d, [ROW])],
    np.atleast_3d: [(np.atleast_3d, [MATRIX])],
    np.clip: [(lambda x: np.clip(x, None, 0.31), [MATRIX]), (lambda x: np.clip(x, a_min=-0.31, a_max=None), [MATRIX])],
    np.compress: [
        (lambda x: np.compress([True, False, True], x, axis=0), [MATRIX]),
        (lambda x: x.compress([True, False, True]), [MATRIX]),
    ],
    np.copy: [(np.copy, [MATRIX])],
    np.cumsum: [(lambda x, a=a: np.cumsum(x, axis=a), [CUBE]) for a in (None, 0, 1, -1)]
    + [(lambda x: x.cumsum(1, dtype=np.float64), [CUBE])],
    np.diag: [(lambda x, k=k: np.diag(x, k), [array]) for k in (0, 1, -1) for array in (MATRIX, ROW)],
    np.diagonal: [(lambda x: np.diagonal(x, 1, 2, 1), [CUBE]), (lambda x: x.diagonal(axis1=1, axis2=2), [CUBE])],
    np.diff: [(lambda x, a=a, n=n: np.diff(x, n, a), [CUBE]) for a in (0, -1) for n in (0, 1, 2)],
    np.dot: [(np.dot, [MATRIX, ROW]), (np.dot, [CUBE, ROW]), (np.dot, [ROW, ROW]), (lambda x: np.dot(x, 3), [ROW])],
    np.dsplit: [(lambda x: np.dsplit(x, 2)[1], [CUBE])],
    np.einsum: [
        (lambda *x, rule=rule: np.einsum(rule, *x), list(arrays))
        for rule, arrays in (
            ("ij,kj->ik", (MATRIX, MATRIX)),
            ("i,i", (ROW, ROW)),
            ("i,j", (ROW, ROW)),
            ("ij", (MATRIX,)),
            ("ji", (MATRIX,)),
            ("ij->", (MATRIX,)),
            ("ijk->j", (CUBE,)),
            ("ijk, lk -> il", (CUBE, MATRIX)),
            ("ijk,jk,k->ji", (CUBE, MATRIX, ROW)),
            ("ij,j->ij", (MATRIX, ROW[:1])),
            ("ij,ij", (MATRIX[:, :1], MATRIX)),
        )
    ],
    np.flip: [(lambda x, a=a: np.flip(x, a), [CUBE]) for a in (None, 1, (0, -1))],
    np.fliplr: [(np.fliplr, [MATRIX])],
    np.flipud: [(np.flipud, [MATRIX])],
    np.full_like: [
        (lambda x, y: np.full_like(y, x) * y, [ROW, MATRIX]),
        (lambda x: np.full_like(x, 2.0) * x, [ROW]),
        (lambda x: np.full_like(x, x[0], shape=(2, 3)) * np.max(x), [ROW]),
    ],
    np.hsplit: [(lambda x: np.hsplit(x, [1, 3])[1], [MATRIX])],
    np.hstack: [(lambda x, y: np.hstack([x, y, x]), [ROW, ROW[:2]]), (lambda x: np.hstack([x, x]), [MATRIX])],
    np.inner: [(np.inner, [MATRIX, MATRIX]), (np.inner, [ROW, MATRIX]), (lambda x: np.inner(x, 2.0), [ROW])],
    np.linalg.norm: [
        (np.linalg.norm, [CUBE]),
        (lambda x: np.linalg.norm(x, axis=1), [CUBE]),
        (lambda x: np.linalg.norm(x, axis=(0, -1), keepdims=True), [CUBE]),
    ],
    np.linalg.outer: [(np.linalg.outer, [ROW, ROW[:2]])],
    np.linalg.trace: [(lambda x: np.linalg.trace(x, offset=1), [CUBE])],
    np.matrix_transpose: [(lambda x: np.matrix_transpose(x) * x[0, 0, 0], [CUBE])],
    np.outer: [(np.outer, [ROW, MATRIX])],
    np.pad: [
        (lambda x, m=m: np.pad(x, ((1, 2), (0, 1)), m), [MATRIX]) for m in ("edge", "reflect", "symmetric", "wrap")
    ]
    + [(lambda x: np.pad(x, 2), [ROW]), (lambda x: np.pad(x, (1, 0), constant_values=0), [CUBE])],
    np.prod: [(lambda x, a=a: np.prod(x, axis=a, keepdims=True), [CUBE]) for a in (None, 1, -1, (0, 2), (2, 0))]
    + [(lambda x: np.multiply.reduce(x) + x.prod(), [MATRIX])],
    np.repeat: [(lambda x, n=n: np.repeat(x, n, axis=0), [MATRIX]) for n in (2, [0, 3, 1])]
    + [(lambda x: x.repeat(2), [MATRIX])],
    np.roll: [(lambda x, a=a: np.roll(x, 2, a), [MATRIX]) for a in (None, 0, -1, (0, 1))],
    np.rollaxis: [(lambda x: np.rollaxis(x, 2), [CUBE])],
    np.rot90: [(np.rot90, [MATRIX]), (lambda x: np.rot90(x, 3, (1, 2)), [CUBE])],
    np.sort: [(lambda x, a=a: np.sort(x, axis=a), [CUBE]) for a in (None, 0, -1)],
    np.split: [(lambda x: sum(part**i for i, part in enumerate(np.split(x, 2, axis=1))), [MATRIX])],
    np.take: [(lambda x: np.take(x, [[0, 2], [2, 2]], axis=-1), [MATRIX]), (lambda x: x.take([5, -1, 5]), [MATRIX])],
    np.take_along_axis: [(lambda x: np.take_along_axis(x, np.argsort(x, axis=0), 0), [MATRIX])],
    np.tile: [(lambda x: np.tile(x, 2), [MATRIX]), (lambda x: np.tile(x, (2, 1, 3)), [MATRIX])],
    np.trace: [(np.trace, [MATRIX]), (lambda x: x.trace(1, 1, 2), [CUBE])],
    np.tril: [(np.tril, [MATRIX]), (lambda x: np.tril(x, -1), [CUBE])],
    np.triu: [(np.triu, [MATRIX])],
    np.unstack: [(lambda x: np.multiply(*np.unstack(x)), [CUBE]), (lambda x: np.unstack(x, axis=1)[2], [MATRIX])],
    np.vsplit: [(lambda x: np.vsplit(x, 3)[2], [MATRIX])],
    np.vstack: [(lambda x, y: np.vstack([x, y]), [ROW, MATRIX])],
    np.where: [(lambda x: np.where(x > 0, x, 2), [MATRIX]), (lambda x: np.where(x > 0, 0.5, x * x), [MATRIX])],
}


def test_every_function_in_the_tables_has_a_case() -> None:
    public = [getattr(ops, name) for name in PUBLIC]
    dispatch = {**UFUNCS, **FUNCTIONS}
    other_cases = {_numpy_function(name) for name in (*PRIMITIVES, *COMPOSED) if _numpy_function(name) is not None}
    assert {function for function, primitive in dispatch.items() if primitive not in public} == {*CASES, *other_cases}


def _numpy_function(name: str) -> Any:
    """The NumPy function that a ``numpy_cases`` case is named after; decompositions have one per part."""
    name = {"eigenvalues": "eigh", "log_determinants": "slogdet", "singular_values": "svd"}.get(name, name)
    return getattr(np, name, None) or getattr(np.linalg, name, None)


@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
def test_gradients_agree_with_central_differences(function: Any) -> None:
    for f, arrays in CASES[function]:
        gradcheck(f, *arrays)
        gradcheck(f, *arrays, order=2, relative_tolerance=1e-4, absolute_tolerance=1e-6)
        tensors = [Tensor(array.astype(np.float32), watch=True) for array in arrays]
        with GradientTape() as tape:
            y = f(*tensors)
        expected = np.asarray(f(*[array.astype(np.float32) for array in arrays]))
        assert (y.dtype, y.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(np.asarray(y), expected, rtol=1e-6, atol=1e-6)
        assert all(
            g.dtype == np.float32 and g.shape == t.shape
            for g, t in zip(tape.gradient(y, tensors), tensors, strict=True)
        )


@pytest.mark.parametrize("zeros", [[1], [1, 3]])
def test_the_gradient_of_a_product_with_zeros_is_the_product_of_the_others(zeros: list[int]) -> None:
    x = np.array([2.0, 1.0, 3.0, 1.0])
    x[zeros] = 0
    gradcheck(np.prod, x)
    watched = Tensor(x, watch=True)
    with GradientTape() as tape:
        y = np.prod(watched)
    assert tape.gradient(y, [watched])[0].tolist() == ([0, 6, 0, 0] if len(zeros) == 1 else [0] * 4)


def test_lengths_of_zero_have_a_zero_gradient() -> None:
    x = Tensor([0.0, 0.0], watch=True)
    with GradientTape() as tape:
        y = np.linalg.norm(x) + np.linalg.norm(x, 3) + np.linalg.norm(x, 0.5) + np.hypot(x, x).sum()
    assert tape.gradient(y, [x])[0].tolist() == [0, 0]


def test_reductions_by_their_ufunc_take_the_same_options() -> None:
    for ufunc in (np.add, np.multiply, np.maximum, np.minimum):
        gradcheck(lambda x, ufunc=ufunc: ufunc.reduce(x, 1, where=x > -0.3, initial=0.2, dtype=np.float64), MATRIX)


def test_a_mask_that_does_not_fit_a_reduction_is_rejected_as_by_numpy() -> None:
    x = Tensor(ROW, watch=True)
    with GradientTape(), pytest.raises(ValueError, match="dimensions"):
        np.sum(x, where=np.ones((2, 4), np.bool_))


def test_empty_arrays_have_gradients() -> None:
    for f in (np.prod, np.cumsum, np.sort, np.flip, np.linalg.norm, lambda x: np.einsum("ij->j", x)):
        gradcheck(f, np.zeros((0, 3)))
