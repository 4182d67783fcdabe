"""Primitives on square matrices, and decompositions. All take stacks of matrices (..., rows, columns).

The gradients of inverse, solution and determinant follow Giles 2008 ("Collected matrix derivative results"), sections
2.2.3, 2.3.1 and 2.2.4; those of eigenvalues and eigenvectors, section 3.1; those of the Cholesky factor, Murray 2016
(arXiv:1602.07527, equation 10); those of the singular value decomposition, Townsend 2016 ("Differentiating the singular
value decomposition"). Functions of symmetric matrices read one half of them; the other half has the gradient 0.
Eigenvectors of equal eigenvalues, and singular vectors of equal singular values, have no derivative; their gradients
are not finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.autograd.graph import Array, Vjp
from engine.autograd.primitive import Primitive, sum_to_shape
from engine.autograd.tensor import untracked, wrap
from engine.errors import GradientError


def _matrix_transpose(x: Any) -> Any:
    return x.swapaxes(-1, -2)


def _lower(x: Any) -> Any:
    """``x`` below the diagonal, and half of its diagonal."""
    size = x.shape[-1]
    return x * (np.tri(size, k=-1, dtype=x.dtype) + np.eye(size, dtype=x.dtype) / 2)


def _onto_half(g: Any, half: str = "L") -> Any:
    """The gradient of the elements that NumPy reads, which stand for both halves of the symmetric matrix."""
    lower = _lower(g + _matrix_transpose(g))
    return lower if half.upper() == "L" else _matrix_transpose(lower)


inv = Primitive(
    "inv",
    lambda x: np.linalg.inv(x),
    lambda y, x: lambda g: -np.matmul(np.matmul(_matrix_transpose(y), g), _matrix_transpose(y)),
    doc="Inverse matrices.",
)
det = Primitive(
    "det",
    lambda x: np.linalg.det(x),
    lambda y, x: lambda g: (g * y)[..., None, None] * _matrix_transpose(np.linalg.inv(x)),
    doc="Determinants; the gradient at a singular matrix raises NumPy's LinAlgError.",
)
_log_determinants = Primitive(
    "log_determinants",
    lambda x: np.linalg.slogdet(x)[1],
    lambda y, x: lambda g: g[..., None, None] * _matrix_transpose(np.linalg.inv(x)),
)


def slogdet(a: Any) -> Any:
    """As ``np.linalg.slogdet``: the sign of the determinants, and the logarithm of their sizes."""
    return _SlogdetResult(wrap(np.linalg.slogdet(untracked(a))[0]), _log_determinants(a))


def _solve_transposed(a: Any, b: Any, g: Any) -> Any:
    """The gradient of a solution through the transposed matrices, also if several matrices share one vector."""
    if b.ndim != 1:  # otherwise, NumPy treats it as matrices
        return np.linalg.solve(_matrix_transpose(a), g)
    return np.linalg.solve(_matrix_transpose(a), g[..., None])[..., 0]


def _solve_vjp(g: Any, y: Any, a: Any, b: Any) -> Any:
    """The gradient of the matrices a."""
    pull = _solve_transposed(a, b, g)
    product = pull[..., None] * y[..., None, :] if b.ndim == 1 else np.matmul(pull, _matrix_transpose(y))
    return sum_to_shape(-product, a.shape)


solve = Primitive(
    "solve",
    lambda a, b: np.linalg.solve(a, b),
    lambda y, a, b: lambda g: _solve_vjp(g, y, a, b),
    lambda y, a, b: lambda g: sum_to_shape(_solve_transposed(a, b, g), b.shape),
    doc="x with ``a @ x = b``; b is one vector, or matrices (..., rows, columns).",
)


def _cholesky_vjp(g: Any, y: Any) -> Any:
    inner, inverse = _lower(np.matmul(_matrix_transpose(y), g)), np.linalg.inv(y)
    return _onto_half(np.matmul(np.matmul(_matrix_transpose(inverse), inner), inverse))


_cholesky = Primitive("cholesky", lambda x: np.linalg.cholesky(x), lambda y, x: lambda g: _cholesky_vjp(g, y))


def cholesky(x: Any, /, *, upper: bool = False) -> Any:
    """As ``np.linalg.cholesky``."""
    return _matrix_transpose(_cholesky(_matrix_transpose(x))) if upper else _cholesky(x)


_EighResult: Any = type(np.linalg.eigh(np.eye(1)))
_SlogdetResult: Any = type(np.linalg.slogdet(np.eye(1)))
_SvdResult: Any = type(np.linalg.svd(np.eye(1)))


def _reciprocal_gaps(values: Any) -> Any:
    """1 / (value j - value i), and 0 where i = j."""
    equal = np.eye(values.shape[-1], dtype=np.bool_)
    gaps = np.where(equal, 1, values[..., None, :] - values[..., :, None])
    return np.where(equal, 0, 1 / gaps)


def _precomputed(x: Array, computed: Array, **_: Any) -> Array:
    """A part of a decomposition of x. The decomposition is computed once for all of its parts."""
    return computed.copy()


def _values_back(y: Any, x: Any, computed: Array, vectors: Any, half: str) -> Vjp:
    return lambda g: _onto_half(np.matmul(vectors * g[..., None, :], _matrix_transpose(vectors)), half)


def _vectors_back(y: Any, x: Any, computed: Array, values: Any, half: str) -> Vjp:
    def vjp(g: Any) -> Any:
        inner = _reciprocal_gaps(values) * np.matmul(_matrix_transpose(y), g)
        return _onto_half(np.matmul(np.matmul(y, inner), _matrix_transpose(y)), half)

    return vjp


_eigenvalues = Primitive(
    "eigenvalues",
    _precomputed,
    _values_back,
    graph=[lambda y, x, computed, vectors, half: _values_back(y, x, computed, eigh(x, half)[1], half)],
)
_eigenvectors = Primitive(
    "eigenvectors",
    _precomputed,
    _vectors_back,
    graph=[lambda y, x, computed, values, half: _vectors_back(y, x, computed, eigh(x, half)[0], half)],
)


def eigh(a: Any, UPLO: Any = "L") -> Any:  # noqa: N803 - NumPy's name
    """As ``np.linalg.eigh``: eigenvalues and eigenvectors of symmetric matrices. Only one half is read."""
    values, vectors = np.linalg.eigh(untracked(a), UPLO)
    return _EighResult(
        _eigenvalues(a, computed=values, vectors=vectors, half=UPLO),
        _eigenvectors(a, computed=vectors, values=values, half=UPLO),
    )


def eigvalsh(a: Any, UPLO: Any = "L") -> Any:  # noqa: N803 - NumPy's name
    """As ``np.linalg.eigvalsh``."""
    return eigh(a, UPLO)[0]


def _svd_part(part: int) -> Any:
    """The rule for u, the singular values, or v transposed, by their position in ``parts``."""

    def rule(y: Any, x: Any, computed: Array, parts: Any) -> Vjp:
        def vjp(g: Any) -> Any:
            u, s, vh = parts
            if part == 1:
                return np.matmul(u * g[..., None, :], vh)
            reciprocals, side = _reciprocal_gaps(s * s), u if part == 0 else _matrix_transpose(vh)
            change = g if part == 0 else _matrix_transpose(g)
            inner = np.matmul(_matrix_transpose(side), change)
            rotation = reciprocals * (inner - _matrix_transpose(inner))
            residual = (change - np.matmul(side, inner)) / s[..., None, :]
            if part == 0:
                return np.matmul(np.matmul(u, rotation * s[..., None, :]) + residual, vh)
            return np.matmul(u, np.matmul(s[..., :, None] * rotation, vh) + _matrix_transpose(residual))

        return vjp

    return rule


def _svd_primitive(name: str, part: int) -> Primitive:
    rule = _svd_part(part)

    def graph_rule(y: Any, x: Any, computed: Any, parts: Any) -> Any:
        return rule(y, x, computed, svd(x, full_matrices=False))

    return Primitive(name, _precomputed, rule, graph=[graph_rule])


_left = _svd_primitive("svd_left", 0)
_singular_values = _svd_primitive("singular_values", 1)
_right = _svd_primitive("svd_right", 2)


def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """As ``np.linalg.svd``; ``full_matrices`` only for square matrices, and without ``hermitian``.

    Raises:
        GradientError: other uses have no gradient.
    """
    if hermitian or (compute_uv and full_matrices and a.shape[-1] != a.shape[-2]):
        raise GradientError(
            "np.linalg.svd has a gradient with full_matrices=False, and without hermitian=", operation="np.linalg.svd"
        )
    parts = tuple(np.linalg.svd(untracked(a), full_matrices=False))
    if not compute_uv:
        return _singular_values(a, computed=parts[1], parts=parts)
    primitives = (_left, _singular_values, _right)
    return _SvdResult(
        *(primitive(a, computed=part, parts=parts) for primitive, part in zip(primitives, parts, strict=True))
    )
