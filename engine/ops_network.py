"""Primitives of neural networks: products, activations, and the losses that are stable on logits.

The gradients of a product are those of Giles 2008 ("Collected matrix derivative results", section 2.2.2); exponentials
are shifted by their maximum (Blanchard, Higham & Higham 2021, arXiv:1909.03469).

Several are fused: one record and fewer passes over memory than their parts would need. Activations take their
gradient from the output where they can, so that the tape need not keep the input.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.errors import GradientError, SettingError, ShapeError
from engine.labels import check_labels
from engine.primitives import Primitive, VariadicPrimitive, unbroadcast
from engine.recording import Array, Vjp


def _matmul_back_left(y: Array, a: Array, b: Any) -> Vjp:
    b = np.asanyarray(b)
    if a.ndim == b.ndim == 2:
        return lambda g: g @ b.T
    shape, rows, columns = a.shape, a.ndim == 1, b.ndim == 1
    matrix = b[:, None] if columns else b
    promoted = (1, *shape) if rows else shape
    return lambda g: unbroadcast(_promote(g, rows, columns) @ matrix.swapaxes(-1, -2), promoted).reshape(shape)


def _matmul_back_right(y: Array, a: Any, b: Array) -> Vjp:
    a = np.asanyarray(a)
    if a.ndim == b.ndim == 2:
        return lambda g: a.T @ g
    shape, rows, columns = b.shape, a.ndim == 1, b.ndim == 1
    matrix = a[None, :] if rows else a
    promoted = (*shape, 1) if columns else shape
    return lambda g: unbroadcast(matrix.swapaxes(-1, -2) @ _promote(g, rows, columns), promoted).reshape(shape)


def _promote(g: Array, rows: bool, columns: bool) -> Array:
    """Give the gradient of a product with vectors back the axes that the vectors lacked."""
    if columns:
        g = g[..., None]
    return g[..., None, :] if rows else g


matmul = Primitive(
    "matmul",
    np.matmul,
    _matmul_back_left,
    _matmul_back_right,
    doc="Matrix product of any rank; leading axes broadcast, vectors as in ``np.matmul``.",
)


def _einsum(*operands: Array, subscripts: str) -> Any:
    return np.einsum(subscripts, *operands)


def _einsum_back(position: int, y: Array, *operands: Array, subscripts: str) -> Vjp:
    # The sum is linear in each operand: its gradient is the sum of the result's gradient times the other operands,
    # over all letters but its own. Letters of its own alone were summed up: there the gradient is repeated.
    terms, result = _einsum_terms(subscripts)
    mine, shape = terms[position], operands[position].shape
    others = [(term, operand) for i, (term, operand) in enumerate(zip(terms, operands, strict=True)) if i != position]
    elsewhere = result + "".join(term for term, _ in others)
    shared = "".join(letter for letter in mine if letter in elsewhere)
    rule = ",".join([result, *(term for term, _ in others)]) + "->" + shared
    alone = tuple(i for i, letter in enumerate(mine) if letter not in elsewhere)
    arrays = [operand for _, operand in others]

    def vjp(g: Array) -> Array:
        gradient = np.expand_dims(np.einsum(rule, g, *arrays), alone)
        whole = tuple(shape[i] if size == 1 else size for i, size in enumerate(gradient.shape))
        return unbroadcast(np.broadcast_to(gradient, whole), shape)

    return vjp


def _einsum_terms(subscripts: str) -> tuple[list[str], str]:
    left, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        result = "".join(sorted(letter for letter in set(left) - {","} if left.count(letter) == 1))
    if "." in subscripts or any(len(set(term)) < len(term) for term in terms):
        raise GradientError(
            f"np.einsum({subscripts!r}) has no gradient: neither dots nor a letter twice in a term are known here",
            operation="np.einsum",
        )
    return terms, result


_einsum_all = VariadicPrimitive("einsum", _einsum, _einsum_back)


def einsum(subscripts: str, *operands: Any) -> Any:
    """As ``np.einsum`` with letters: ``einsum("ij,jk->ik", a, b)``."""
    return _einsum_all(*operands, subscripts=subscripts)


def _affine(x: Array, w: Array, b: Array) -> Array:
    if x.ndim == 0 or w.ndim != 2 or x.shape[-1] != w.shape[0]:
        raise ShapeError(
            f"affine: {x.shape} @ {w.shape}: inner sizes differ", operation="affine", shapes=(x.shape, w.shape)
        )
    if b.shape != w.shape[1:]:
        raise ShapeError(
            f"affine: weight {w.shape} and bias {b.shape}: the bias must be {w.shape[1:]}",
            operation="affine",
            shapes=(w.shape, b.shape),
        )
    y: Array = np.matmul(x, w)
    y += b
    return y


def _affine_back_input(y: Array, x: Array, w: Array, b: Array) -> Vjp:
    if x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous:
        return lambda g: (w @ g.T).T  # in the order of x, which is that of images made flat
    return lambda g: g @ w.T


def _affine_back_weight(y: Array, x: Array, w: Array, b: Array) -> Vjp:
    if x.ndim == 2:
        return lambda g: x.T @ g
    count = math.prod(x.shape[:-1])
    rows = x.reshape(count, x.shape[-1])
    return lambda g: rows.T @ g.reshape(count, g.shape[-1])


affine = Primitive(
    "affine",
    _affine,
    _affine_back_input,
    _affine_back_weight,
    lambda y, x, w, b: lambda g: g.sum(axis=tuple(range(g.ndim - 1))),
    doc="``x @ w + b`` with x (..., inputs), w (inputs, units), b (units,).",
)


def _sigmoid(x: Any) -> Array:
    y: Array = np.asanyarray(np.negative(x))  # NumPy gives a scalar for an array without axes
    # exp overflows to infinity for large negative x, and 1 / infinity is the right answer.
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    y += 1
    np.divide(1, y, out=y)
    return y


def _sigmoid_back(y: Array, x: Array) -> Vjp:
    def vjp(g: Array) -> Array:
        slope: Array = np.subtract(1, y)
        slope *= y
        slope *= g
        return slope

    return vjp


sigmoid = Primitive("sigmoid", _sigmoid, _sigmoid_back, doc="``1 / (1 + exp(-x))``, without overflow.")


def _tanh_back(y: Array, x: Array) -> Vjp:
    def vjp(g: Array) -> Array:
        slope = np.asanyarray(np.multiply(y, y))
        np.subtract(1, slope, out=slope)
        slope *= g
        return slope

    return vjp


tanh = Primitive("tanh", np.tanh, _tanh_back)


def _relu(x: Any) -> Any:
    return np.maximum(x, 0)


relu = Primitive("relu", _relu, lambda y, x: lambda g: g * (y > 0), doc="``max(x, 0)``; slope 0 at 0.")


def _leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    if not 0 <= negative_slope <= 1:
        raise SettingError(f"leaky_relu: negative_slope {negative_slope} is not in [0, 1]", setting="negative_slope")
    y = np.multiply(x, negative_slope)
    return np.maximum(x, y, out=y if isinstance(y, np.ndarray) else None)


def _leaky_relu_back(y: Array, x: Array, negative_slope: float = 0.2) -> Vjp:
    # The output has the input's sign. With a slope of 0 it is 0 there, which is not positive either.
    def vjp(g: Array) -> Array:
        slope: Array = (y > 0).astype(g.dtype)
        slope *= 1 - negative_slope
        slope += negative_slope
        slope *= g
        return slope

    return vjp


leaky_relu = Primitive(
    "leaky_relu",
    _leaky_relu,
    _leaky_relu_back,
    doc="``x`` where positive, else ``negative_slope * x``; the slope must lie in [0, 1].",
)


def _softmax(x: Any, axis: int = -1) -> Array:
    y: Array = np.subtract(x, np.max(x, axis=axis, keepdims=True))
    np.exp(y, out=y)
    y /= np.sum(y, axis=axis, keepdims=True)
    return y


def _softmax_back(y: Array, x: Array, axis: int = -1) -> Vjp:
    return lambda g: y * (g - np.sum(g * y, axis=axis, keepdims=True))


softmax = Primitive(
    "softmax", _softmax, _softmax_back, doc="Exponentials over ``axis``, scaled to sum to 1; shifted by the maximum."
)


def _log_softmax(x: Any, axis: int = -1) -> Array:
    y: Array = np.subtract(x, np.max(x, axis=axis, keepdims=True))
    y -= np.log(np.sum(np.exp(y), axis=axis, keepdims=True))
    return y


def _log_softmax_back(y: Array, x: Array, axis: int = -1) -> Vjp:
    return lambda g: g - np.exp(y) * np.sum(g, axis=axis, keepdims=True)


log_softmax = Primitive(
    "log_softmax", _log_softmax, _log_softmax_back, doc="``log(softmax(x))``, exact where the softmax underflows."
)


def _squared_error(x: Array, target: Any) -> Any:
    difference = np.subtract(x, target)
    if difference.shape != np.shape(x):
        shapes = (np.shape(x), np.shape(target))
        raise ShapeError(
            f"squared_error: {shapes[0]} and target {shapes[1]} differ", operation="squared_error", shapes=shapes
        )
    difference = difference.ravel()
    return np.dot(difference, difference)


squared_error = Primitive(
    "squared_error",
    _squared_error,
    lambda y, x, target: lambda g: np.multiply(np.subtract(x, target), 2 * g),
    doc="Sum of ``(x - target) ** 2`` over all entries; the target has the shape of x, or broadcasts to it.",
)


def _sigmoid_cross_entropy(x: Array, target: Any) -> Any:
    loss = np.log1p(np.exp(-np.abs(x)))
    loss += np.maximum(x, 0)
    loss -= np.multiply(x, target)
    return np.sum(loss)


def _sigmoid_cross_entropy_back(y: Any, x: Array, target: Any) -> Vjp:
    def vjp(g: Array) -> Array:
        gradient = _sigmoid(x)
        gradient -= target
        gradient *= g
        return gradient

    return vjp


sigmoid_cross_entropy = Primitive(
    "sigmoid_cross_entropy",
    _sigmoid_cross_entropy,
    _sigmoid_cross_entropy_back,
    doc="""Sum over all entries of ``-t log s(x) - (1 - t) log(1 - s(x))``, s the sigmoid, x the logits.

    Computed as ``max(x, 0) - x t + log(1 + exp(-|x|))``, which neither overflows nor takes the log of 0.
    """,
)


def _smooth_targets(x: Array, labels: Any, label_smoothing: float) -> Array:
    target = np.full_like(x, label_smoothing / x.shape[-1])
    target[np.arange(len(x)), labels] += 1 - label_smoothing
    return target


def _softmax_cross_entropy(x: Array, labels: Any, label_smoothing: float = 0.0) -> Any:
    if x.ndim != 2:
        raise ShapeError(
            f"softmax_cross_entropy: logits {x.shape} are not (batch, classes)",
            operation="softmax_cross_entropy",
            shapes=(x.shape, np.shape(labels)),
        )
    check_labels(labels, *x.shape)  # -1 would count from the last class
    log_likelihood = _log_softmax(x)
    chosen = np.sum(log_likelihood[np.arange(len(x)), labels])
    if label_smoothing == 0.0:
        return -chosen
    return -(1 - label_smoothing) * chosen - label_smoothing / x.shape[-1] * np.sum(log_likelihood)


def _softmax_cross_entropy_back(y: Any, x: Array, labels: Any, label_smoothing: float = 0.0) -> Vjp:
    def vjp(g: Array) -> Array:
        gradient = _softmax(x)
        gradient -= _smooth_targets(x, labels, label_smoothing)
        gradient *= g
        return gradient

    return vjp


softmax_cross_entropy = Primitive(
    "softmax_cross_entropy",
    _softmax_cross_entropy,
    _softmax_cross_entropy_back,
    doc="""Sum over rows of ``-log softmax(x)[label]``; x (batch, classes) logits, labels (batch,) in [0, classes).

    With label smoothing s the target is ``(1 - s) one_hot + s / classes`` (Szegedy et al. 2016, section 7).
    """,
)
