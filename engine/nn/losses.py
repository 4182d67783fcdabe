"""Losses: they take a model's outputs or logits and the targets, and return a scalar tensor.

``reduction`` has the same meaning for all: ``sum`` adds over batch and outputs; ``mean`` divides that sum by the batch
size only. So the learning rate does not depend on the batch size, and adding outputs does not weaken the others.

``label_smoothing`` s in [0, 1) changes the targets that belong to integer labels (Szegedy et al. 2016, section 7): a
fraction of s is spread evenly over the classes. Targets given as floats are not changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from engine import ops
from engine.autograd.graph import Array
from engine.autograd.tensor import Tensor, snapshot
from engine.data import check_labels, one_hot
from engine.errors import DataError, SettingError, ShapeError, check_fraction
from engine.nn.activations import Activation

__all__ = [
    "AbsoluteError",
    "BinaryCrossEntropy",
    "Huber",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "balanced_class_weights",
]

Reduction: TypeAlias = Literal["mean", "sum"]


class Loss(ABC):
    """Base of the losses.

    Attributes:
        reduction: ``mean`` or ``sum``.
    """

    on_logits: ClassVar[bool] = True
    """Whether it takes ``model.logits(x)`` rather than ``model(x)``."""
    last_activation: ClassVar[Activation | None] = None
    """The last activation that a model must have, unless it has none; None: any."""

    def __init__(self, reduction: Reduction = "mean", label_smoothing: float = 0.0) -> None:
        if reduction not in ("mean", "sum"):
            raise SettingError(f"reduction {reduction!r} is neither mean nor sum", setting="reduction")
        check_fraction(label_smoothing=label_smoothing)
        self.reduction: Reduction = reduction
        self.label_smoothing = label_smoothing

    def check_activation(self, activation: Activation | None) -> None:
        """Raise SettingError if a model that ends with ``activation`` cannot be trained with this loss."""
        expected = self.last_activation
        if expected is not None and activation not in (None, expected):
            name = type(self).__name__
            raise SettingError(f"{name} needs a model that ends with {expected}, not {activation}", setting="loss")

    def targets(self, labels: Array, classes: int, dtype: DTypeLike) -> Array:
        """Convert integer ``labels`` (n,) once to checked targets in the form that is fastest for :meth:`__call__`:
        one-hot or smoothed rows (n, classes)."""
        check_labels(labels, len(labels), classes)
        rows = one_hot(labels, classes, dtype)
        if self.label_smoothing:
            rows *= 1 - self.label_smoothing
            rows += self.label_smoothing * self._even_share(classes)
        return rows

    def plain(self) -> Self:
        """This loss without label smoothing and class weights: what a model is scored by."""
        return type(self)(self.reduction)

    @abstractmethod
    def __call__(self, outputs: Any, targets: Any) -> Any:
        """The loss as a tensor without axes."""

    def _even_share(self, classes: int) -> float:
        """The target of each output for a label smoothing of 1."""
        return 1 / classes

    def _rows(self, outputs: Any, targets_or_labels: Any) -> Array:
        """Targets as floats with the shape of the outputs, from float targets or labels."""
        targets: Array = np.asarray(targets_or_labels)
        if targets.shape == outputs.shape:
            if targets.size == 0:
                raise DataError(f"an empty batch has no loss: outputs and targets {targets.shape}")
            if not np.isfinite(targets).all():
                raise DataError(f"loss: targets {targets.shape} hold values that are not finite")
            return _protected(targets_or_labels)
        if targets.ndim == 1 and targets.dtype.kind in "ui":
            check_labels(targets, len(outputs), outputs.shape[-1])
            return self.targets(targets, outputs.shape[-1], outputs.dtype)
        problem = f"outputs {outputs.shape} and targets {targets.dtype} {targets.shape}: neither equal nor labels"
        raise ShapeError.of("loss", problem, outputs, targets)

    def _reduce(self, total: Any, batch: int) -> Any:
        return total if self.reduction == "sum" else ops.multiply(total, 1 / batch)


def _protected(targets: Any) -> Array:
    """Targets that cannot change until the gradient is computed: tensors, which a tape protects, or a copy."""
    protected: Array = targets if isinstance(targets, Tensor) else snapshot(np.asanyarray(targets))
    return protected


def per_image(loss: Array, reduction: Reduction, batch: int) -> float:
    """A loss as the mean over its ``batch``, for any reduction, so that runs are comparable."""
    return float(loss) / batch if reduction == "sum" else float(loss)


def mean_gradient_scale(reduction: Reduction, batch: int) -> float:
    """The factor that converts gradients of a loss to those of its mean over the ``batch``."""
    return 1 / batch if reduction == "sum" else 1.0


class SquaredError(Loss):
    """``sum (output - target) ** 2``; integer labels become one-hot rows, ``(1 - s) one_hot + s / classes``."""

    on_logits = False

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """Outputs (batch, units); targets the same shape, or labels (batch,)."""
        return self._reduce(ops.squared_error(outputs, self._rows(outputs, targets)), len(outputs))


class AbsoluteError(Loss):
    """``sum |output - target|``. A few far-off targets pull less on it than on the squared error; its minimum is the
    median rather than the mean."""

    on_logits = False

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """Outputs (batch, units); targets the same shape."""
        differences = ops.subtract(outputs, self._rows(outputs, targets))
        return self._reduce(ops.sum(ops.absolute(differences)), len(outputs))


class Huber(Loss):
    """Half the squared error up to a difference of 1, and linear beyond it (Huber 1964, delta 1).

    With a = min(|output - target|, 1), the loss is ``sum a ** 2 / 2 + (|output - target| - a)``.
    """

    on_logits = False

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """Outputs (batch, units); targets the same shape."""
        distances = ops.absolute(ops.subtract(outputs, self._rows(outputs, targets)))
        near = ops.minimum(distances, 1.0)
        total = ops.sum(ops.add(ops.multiply(ops.multiply(near, near), 0.5), ops.subtract(distances, near)))
        return self._reduce(total, len(outputs))


class BinaryCrossEntropy(Loss):
    """``-t log s(x) - (1 - t) log(1 - s(x))`` from the logits x of a model that ends with the sigmoid s.

    Integer labels become one-hot rows, smoothed to ``(1 - s) one_hot + s / 2``, because each output is a separate
    binary classification.
    """

    last_activation = Activation.SIGMOID

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """Logits (batch, units); targets in [0, 1]: one number for all, the same shape, or labels (batch,)."""
        if not isinstance(targets, float):
            targets = self._rows(outputs, targets)
        elif len(outputs) == 0:
            raise DataError(f"an empty batch has no loss: outputs {outputs.shape}")
        values = np.asarray(targets)
        if not (np.min(values) >= 0 and np.max(values) <= 1):
            raise DataError("binary cross-entropy: targets must lie in [0, 1]")
        return self._reduce(ops.sigmoid_cross_entropy(outputs, targets), len(outputs))

    def _even_share(self, classes: int) -> float:
        return 1 / 2


class SoftmaxCrossEntropy(Loss):
    """``-log softmax(x)[label]``, from the logits of a model that ends with a softmax.

    With label smoothing the target is ``(1 - s) one_hot + s / classes``.

    Args:
        class_weights: positive weights of the losses of each class's examples, (classes,); None: all 1.
    """

    last_activation = Activation.SOFTMAX

    def __init__(
        self, reduction: Reduction = "mean", label_smoothing: float = 0.0, class_weights: Array | None = None
    ) -> None:
        super().__init__(reduction, label_smoothing)
        if class_weights is not None and not (np.isfinite(class_weights).all() and (class_weights > 0).all()):
            raise SettingError("class_weights must be positive numbers", setting="class_weights")
        self.class_weights = class_weights

    def targets(self, labels: Array, classes: int, dtype: DTypeLike) -> Array:
        """The labels themselves."""
        check_labels(labels, len(labels), classes)
        return labels

    def __call__(self, outputs: Any, targets: Any) -> Any:
        """Logits (batch, classes); integer labels (batch,)."""
        weights = {} if self.class_weights is None else {"class_weights": self.class_weights}
        total = ops.softmax_cross_entropy(outputs, _protected(targets), label_smoothing=self.label_smoothing, **weights)
        return self._reduce(total, len(outputs))


def balanced_class_weights(labels: Array, classes: int) -> Array:
    """Weights that give each class the same total: n / (classes present * examples of the class), float64 (classes,).

    Their mean over the examples is 1, so that the learning rate need not change. A class without examples has 1.
    """
    counts = np.bincount(np.asarray(labels, np.int64), minlength=classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return np.asarray(np.where(counts > 0, weights, 1.0))
