"""The losses of a GAN, and the penalties on the slope of its discriminator."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np

from engine import ops
from engine.autograd.graph import Array
from engine.errors import SettingError
from engine.nn.activations import Activation
from engine.nn.losses import BinaryCrossEntropy, Reduction

__all__ = ["GanLoss"]


class GanLoss(StrEnum):
    """The losses of the two networks of a GAN; D is the discriminator without its last activation.

    - ``binary_cross_entropy``: Goodfellow et al. 2014, with the non-saturating loss of the generator.
    - ``least_squares``: squared distances of D to 1 for reals and 0 for fakes (Mao et al. 2017).
    - ``hinge``: ``max(0, 1 - D(real)) + max(0, 1 + D(fake))`` and ``-D(fake)`` (Lim & Ye 2017).
    - ``wasserstein``: ``D(fake) - D(real)`` and ``-D(fake)`` (Arjovsky et al. 2017). The slope of D must be bounded by
      ``gradient_penalty`` or spectral normalization.
    """

    BINARY_CROSS_ENTROPY = "binary_cross_entropy"
    LEAST_SQUARES = "least_squares"
    HINGE = "hinge"
    WASSERSTEIN = "wasserstein"


SMOOTHED: Final = (GanLoss.BINARY_CROSS_ENTROPY, GanLoss.LEAST_SQUARES)
"""The losses with a target, to which label smoothing applies."""


def last_activation(loss: GanLoss) -> Activation | None:
    """The last activation of a discriminator for this loss. The loss is computed without it."""
    return Activation.SIGMOID if loss is GanLoss.BINARY_CROSS_ENTROPY else None


@dataclass(frozen=True, slots=True)
class AdversarialLosses:
    """The losses of both networks, from the discriminator's outputs (rows, 1) without its last activation.

    Attributes:
        reduction: over the rows.
        label_smoothing: s; the target for real images is 1 - s (one-sided, Salimans et al. 2016, section 3.4).

    Raises:
        SettingError: label smoothing is out of range, or the loss has no targets.
    """

    name: GanLoss = GanLoss.BINARY_CROSS_ENTROPY
    reduction: Reduction = "mean"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        BinaryCrossEntropy(self.reduction, self.label_smoothing)  # checks both
        if self.label_smoothing and self.name not in SMOOTHED:
            raise SettingError(f"{self.name} has no targets to smooth", setting="label_smoothing")

    def check_activation(self, activation: Activation | None) -> None:
        """Raise SettingError if a discriminator that ends with ``activation`` does not match the loss."""
        expected = last_activation(self.name)
        if activation not in (None, expected):
            problem = f"needs a discriminator that ends with {expected or 'no activation'}, not {activation}"
            raise SettingError(f"{self.name} {problem}", setting="loss")

    def generator(self, fake: Any) -> Any:
        """The generator's loss."""
        match self.name:
            case GanLoss.BINARY_CROSS_ENTROPY:
                return BinaryCrossEntropy(self.reduction)(fake, 1.0)
            case GanLoss.LEAST_SQUARES:
                return self._reduce(ops.squared_error(fake, 1.0), fake)
            case GanLoss.HINGE | GanLoss.WASSERSTEIN:
                return self._reduce(ops.negative(ops.sum(fake)), fake)

    def discriminator(self, real: Any, fake: Any) -> Any:
        """The discriminator's loss: for losses with targets the mean of its two terms, as usual, otherwise the sum."""
        target = 1.0 - self.label_smoothing
        match self.name:
            case GanLoss.BINARY_CROSS_ENTROPY:
                cost = BinaryCrossEntropy(self.reduction)
                return ops.multiply(ops.add(cost(real, target), cost(fake, 0.0)), 0.5)
            case GanLoss.LEAST_SQUARES:
                total = ops.add(ops.squared_error(real, target), ops.squared_error(fake, 0.0))
                return self._reduce(ops.multiply(total, 0.5), real)
            case GanLoss.HINGE:
                terms = [ops.relu(ops.subtract(1, real)), ops.relu(ops.add(1, fake))]
                return self._reduce(ops.add(*map(ops.sum, terms)), real)
            case GanLoss.WASSERSTEIN:
                return self._reduce(ops.subtract(ops.sum(fake), ops.sum(real)), real)

    def probability(self, outputs: Array) -> float:
        """The mean output, mapped to [0, 1]: by the sigmoid, or for least squares by clipping."""
        if self.name is GanLoss.LEAST_SQUARES:
            return float(np.mean(np.clip(np.asarray(outputs), 0, 1)))
        return float(np.mean(ops.sigmoid(np.asarray(outputs))))

    def penalty(self, slopes: Any, target: float, weight: float) -> Any:
        """``weight * (|slope| - target)**2``, mean or sum over the rows of ``slopes`` (rows, inputs)."""
        if target == 0:
            return self._reduce(ops.multiply(ops.squared_error(slopes, 0.0), weight), slopes)
        lengths = np.linalg.norm(slopes, axis=1)
        return self._reduce(ops.multiply(ops.squared_error(lengths, target), weight), slopes)

    def _reduce(self, total: Any, rows: Any) -> Any:
        return total if self.reduction == "sum" else ops.multiply(total, 1 / len(rows))
