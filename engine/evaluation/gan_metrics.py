"""Metrics of generated images: coverage of the classes, confidence, and distance to real images.

A generator has no accuracy. Its images are therefore scored by a *reference classifier* that was trained on the same
kind of images: by the class that it predicts for each image, and by the outputs of its last hidden layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from engine.autograd.graph import Array
from engine.data import ImageData
from engine.errors import DataError, SettingError, ShapeError
from engine.nn.containers import Sequential

__all__ = ["FeatureStatistics", "ReferenceClassifier"]

_BATCH_IMAGES = 500
"""Number of images that are classified at a time."""
_COVERAGE_THRESHOLD = 0.3
"""A class is covered if it has at least this fraction of an equal part: 3% of the images for ten classes."""


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """Mean and covariance of features, the parameters of a normal distribution.

    Attributes:
        mean: (features,) float64.
        covariance: (features, features) float64.

    Raises:
        ShapeError: the shapes do not fit.
        DataError: a value is not finite.
    """

    mean: Array
    covariance: Array

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.covariance.shape != (len(self.mean),) * 2:
            shapes = (self.mean.shape, self.covariance.shape)
            raise ShapeError(f"statistics: mean {shapes[0]} and covariance {shapes[1]} do not fit", shapes=shapes)
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise DataError("statistics of features that are not finite")

    @classmethod
    def of(cls, features: Array) -> Self:
        """The statistics of rows (n, features), n at least 2, computed in float64.

        Raises:
            DataError: fewer than two rows, or features that are not finite.
        """
        if len(features) < 2:
            raise DataError(f"statistics need at least two rows of features, not {len(features)}")
        rows = np.asarray(features, np.float64)
        if not np.isfinite(rows).all():
            raise DataError(f"features {rows.shape} hold numbers that are not finite")
        mean = rows.mean(axis=0)
        rows = rows - mean
        return cls(mean, rows.T @ rows / (len(rows) - 1))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """``|m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2))``: equation 6 of Heusel et al. 2017 (arXiv:1706.08500).

    The squared Fréchet distance of two normal distributions (Dowson & Landau 1982); 0 if they are equal. Only the
    trace of the root is needed. C1 C2 has the same eigenvalues as the symmetric ``C1^(1/2) C2 C1^(1/2)``, so the
    trace is the sum of their square roots, and no root of a non-symmetric matrix is required.

    Raises:
        ShapeError: the numbers of features differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ShapeError.of("frechet_distance", f"{len(a.mean)} and {len(b.mean)} features", a.mean, b.mean)
    root = symmetric_root(a.covariance)
    eigenvalues = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(np.maximum(eigenvalues, 0)).sum()
    # Rounding can make a zero distance slightly negative.
    return max(float(np.sum((a.mean - b.mean) ** 2) + trace), 0.0)


def symmetric_root(matrix: Array) -> Array:
    """The square root of a positive semidefinite matrix: ``V sqrt(L) V^T`` for ``V L V^T``.

    Golub & Van Loan 2013, section 9.4.2. Eigenvalues that are negative due to rounding count as 0.
    """
    eigenvalues, vectors = np.linalg.eigh(matrix)
    root: Array = (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T
    return root


@dataclass(frozen=True, slots=True)
class Classifications:
    """Predictions of a classifier.

    Attributes:
        labels: int64 (n,), the class predicted for each image.
        confidences: (n,) in [0, 1], the predicted probability of that class.
        features: (n, features), the outputs of the last hidden layer.
    """

    labels: Array
    confidences: Array
    features: Array


def classify(model: Sequential, images: Array, scale: tuple[float, float] = (0.0, 1.0)) -> Classifications:
    """Classify uint8 images (n, ...).

    Args:
        model: ends with a softmax and has at least one hidden layer; the outputs of the last one are the features.
        scale: the values of the bytes 0 and 255 with which it was trained.

    Raises:
        ShapeError: the images do not have the model's number of pixels.
        DataError: they are not uint8, or there are none.
    """
    data = ImageData(images, None, scale)
    if data.features != model.inputs:
        raise ShapeError(f"the reference classifier takes {model.inputs} pixels, not {data.features}")
    labels, confidences, features = [], [], []
    for start in range(0, len(data), _BATCH_IMAGES):
        outputs = model.layer_outputs(data.inputs(slice(start, start + _BATCH_IMAGES), model.dtype))
        probabilities = np.asarray(outputs[-1])
        labels.append(probabilities.argmax(axis=1))
        confidences.append(probabilities.max(axis=1))
        features.append(np.asarray(outputs[-2]).reshape(len(probabilities), -1))
    return Classifications(*map(np.concatenate, (labels, confidences, features)))


@dataclass(frozen=True, eq=False)
class ReferenceClassifier:
    """A classifier with the statistics of its features on real images.

    Attributes:
        model, scale: as for :func:`classify`; at least two classes.
        real: statistics of the features on real images.
    """

    model: Sequential
    real: FeatureStatistics
    scale: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.model.units < 2:
            raise SettingError("a reference classifier needs at least two classes", setting="model")

    def evaluate(self, images: Array) -> Classifications:
        """Classify uint8 images (n, ...); raises as :func:`classify` does."""
        return classify(self.model, images, self.scale)

    def score(self, images: Array) -> dict[str, float]:
        """Metrics of a set of uint8 images (n, ...), n at least 2.

        - ``mode_coverage``: fraction of the classes that have at least 0.3 of an equal part of the images (3% for ten
          classes).
        - ``min_class_share``: fraction of the images in the rarest class.
        - ``class_entropy``: relative entropy of the class shares: 1 if all are equal, 0 if there is only one class. The
          Kullback-Leibler divergence from equal shares is ``(1 - class_entropy) * ln(classes)``.
        - ``confidence``: mean probability of the predicted class.
        - ``frechet_distance``: distance of the features to those of real images (:func:`frechet_distance`).
        """
        predictions = self.evaluate(images)
        counts = np.bincount(predictions.labels, minlength=self.model.units)
        shares = counts / len(images)
        present = shares[shares > 0]
        return {
            "mode_coverage": float(np.mean(counts * len(counts) >= _COVERAGE_THRESHOLD * len(images))),
            "min_class_share": float(shares.min()),
            "class_entropy": abs(float((present * np.log(present)).sum())) / math.log(len(shares)),
            "confidence": float(np.mean(predictions.confidences, dtype=np.float64)),
            "frechet_distance": frechet_distance(self.real, FeatureStatistics.of(predictions.features)),
        }
