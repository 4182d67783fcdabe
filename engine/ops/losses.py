"""Losses as sums over a batch. Cross-entropies take logits, to avoid overflow and the logarithm of 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.autograd.graph import Array, Vjp
from engine.autograd.primitive import Primitive, sum_to_shape
from engine.autograd.tensor import untracked
from engine.data import check_labels
from engine.errors import ShapeError
from engine.ops.activations import log_softmax, sigmoid, softmax

__all__ = ["sigmoid_cross_entropy", "softmax_cross_entropy", "squared_error"]


def _squared_error(x: Array, target: Any) -> Any:
    difference = np.subtract(x, target)
    if difference.shape != np.shape(x):
        raise ShapeError.of("squared_error", f"{np.shape(x)} and target {np.shape(target)} differ", x, target)
    difference = difference.ravel()
    return np.dot(difference, difference)


squared_error = Primitive(
    "squared_error",
    _squared_error,
    lambda y, x, target: lambda g: np.multiply(np.subtract(x, target), 2 * g),
    lambda y, x, target: lambda g: sum_to_shape(np.multiply(np.subtract(x, target), -2 * g), np.shape(target)),
    doc="Sum of ``(x - target) ** 2`` over all entries; the target has the shape of x, or broadcasts to it.",
)


def _sigmoid_cross_entropy(x: Array, target: Any) -> Any:
    loss = np.log1p(np.exp(-np.abs(x)))
    loss += np.maximum(x, 0)
    loss -= np.multiply(x, target)
    return np.sum(loss)


def _sigmoid_cross_entropy_vjp(g: Array, x: Array, target: Any) -> Array:
    gradient: Array = sigmoid.forward(x)
    gradient -= target
    gradient *= g
    return gradient


sigmoid_cross_entropy = Primitive(
    "sigmoid_cross_entropy",
    _sigmoid_cross_entropy,
    lambda y, x, target: lambda g: _sigmoid_cross_entropy_vjp(g, x, target),
    lambda y, x, target: lambda g: sum_to_shape(np.multiply(x, -g), np.shape(target)),
    graph=[lambda y, x, target: lambda g: (sigmoid(x) - target) * g],
    doc="""Sum over all entries of ``-t log s(x) - (1 - t) log(1 - s(x))``, s the sigmoid, x the logits.

    Computed as ``max(x, 0) - x t + log(1 + exp(-|x|))``, which neither overflows nor takes the log of 0.
    """,
)


def _smooth_targets(x: Array, labels: Any, label_smoothing: float) -> Array:
    target = np.full_like(x, label_smoothing / x.shape[-1])
    target[np.arange(len(x)), labels] += 1 - label_smoothing
    return target


def _softmax_cross_entropy(
    x: Array, labels: Any, label_smoothing: float = 0.0, class_weights: Array | None = None
) -> Any:
    if x.ndim != 2:
        raise ShapeError.of("softmax_cross_entropy", f"logits {x.shape} are not (batch, classes)", x, labels)
    check_labels(labels, *x.shape)  # -1 would select the last class
    log_likelihood = log_softmax.forward(x)
    if class_weights is not None:
        losses = _smooth_targets(x, labels, label_smoothing) * log_likelihood
        return -np.sum(_row_weights(x, labels, class_weights) * losses)
    chosen = np.sum(log_likelihood[np.arange(len(x)), labels])
    if label_smoothing == 0.0:
        return -chosen
    return -(1 - label_smoothing) * chosen - label_smoothing / x.shape[-1] * np.sum(log_likelihood)


def _row_weights(x: Array, labels: Any, class_weights: Array) -> Array:
    """The class weight of each row's label, as a column (batch, 1)."""
    if class_weights.shape != (x.shape[1],):
        problem = f"{class_weights.shape} class weights for {x.shape[1]} classes"
        raise ShapeError.of("softmax_cross_entropy", problem, x, class_weights)
    return np.asarray(class_weights.astype(x.dtype)[labels][:, None])


def _softmax_cross_entropy_vjp(
    g: Array, x: Array, labels: Any, label_smoothing: float = 0.0, class_weights: Array | None = None
) -> Array:
    gradient: Array = softmax.forward(x)
    gradient -= _smooth_targets(x, labels, label_smoothing)
    if class_weights is not None:
        gradient *= _row_weights(x, labels, class_weights)
    gradient *= g
    return gradient


def _softmax_cross_entropy_graph(
    y: Any, x: Any, labels: Any, label_smoothing: float = 0.0, class_weights: Array | None = None
) -> Vjp:
    logits, labels = untracked(x), untracked(labels)
    target = _smooth_targets(logits, labels, label_smoothing)
    if class_weights is None:
        return lambda g: (softmax(x) - target) * g
    weights = _row_weights(logits, labels, class_weights)
    return lambda g: (softmax(x) - target) * weights * g


softmax_cross_entropy = Primitive(
    "softmax_cross_entropy",
    _softmax_cross_entropy,
    lambda y, x, labels, **options: lambda g: _softmax_cross_entropy_vjp(g, x, labels, **options),
    graph=[_softmax_cross_entropy_graph],
    doc="""Sum over rows of ``-log softmax(x)[label]``; x (batch, classes) logits, labels (batch,) in [0, classes).

    With label smoothing s the target is ``(1 - s) one_hot + s / classes`` (Szegedy et al. 2016, section 7). With
    ``class_weights`` (classes,), each row's loss is multiplied by the weight of its label.
    """,
)
