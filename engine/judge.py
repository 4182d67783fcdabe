"""A classifier as the judge of made images: which classes there are, how sure it is, how far they are from real ones.

Accuracy says how well a classifier does, but a generator has no such number of its own. A classifier that was trained
on the same kind of images gives it some: what it takes them for, and what its last hidden layer makes of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from engine.autograd.graph import Array
from engine.data import ImageData
from engine.errors import DataError, ShapeError
from engine.nn.containers import Sequential

_BATCH = 500
_COVERED = 0.3
"""A class counts as covered with this share of what would be its equal share: 3% of the images for ten classes."""


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """Mean and covariance of features, as a normal distribution has them.

    Attributes:
        mean: (features,) float64.
        covariance: (features, features) float64.
    """

    mean: Array
    covariance: Array

    @classmethod
    def of(cls, features: Array) -> Self:
        """Of rows (n, features), n at least 2; computed in float64.

        Raises:
            DataError: fewer than two rows.
        """
        if len(features) < 2:
            raise DataError(f"statistics need at least two rows of features, not {len(features)}")
        rows = np.asarray(features, np.float64)
        mean = rows.mean(axis=0)
        rows = rows - mean
        return cls(mean, rows.T @ rows / (len(rows) - 1))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """``|m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2))``: equation 6 of Heusel et al. 2017 (arXiv:1706.08500).

    The squared Fréchet distance of two normal distributions (Dowson & Landau 1982); 0 where they are equal. Only
    the trace of the root is needed: C1 C2 has the eigenvalues of the symmetric ``C1^(1/2) C2 C1^(1/2)``, so it is
    the sum of their roots, and no root of a matrix that is not symmetric has to be found.

    Raises:
        ShapeError: not the same number of features.
    """
    if a.mean.shape != b.mean.shape:
        raise ShapeError(
            f"frechet_distance: {a.mean.shape[0]} and {b.mean.shape[0]} features", shapes=(a.mean.shape, b.mean.shape)
        )
    root = symmetric_root(a.covariance)
    eigenvalues = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(np.maximum(eigenvalues, 0)).sum()
    # Rounding can take a distance of nothing a little below it.
    return max(float(np.sum((a.mean - b.mean) ** 2) + trace), 0.0)


def symmetric_root(matrix: Array) -> Array:
    """The root of a symmetric matrix without negative eigenvalues: ``V sqrt(L) V^T`` for ``V L V^T``.

    Golub & Van Loan 2013, section 9.4.2. Eigenvalues that rounding took below 0 count as 0.
    """
    eigenvalues, vectors = np.linalg.eigh(matrix)
    root: Array = (vectors * np.sqrt(np.maximum(eigenvalues, 0))) @ vectors.T
    return root


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the judge says of images.

    Attributes:
        labels: int64 (n,), the class that it takes each for.
        confidences: (n,) in [0, 1], the probability that it gives this class.
        features: (n, features), what its last hidden layer makes of them.
    """

    labels: Array
    confidences: Array
    features: Array


def look(model: Sequential, images: Array, scale: tuple[float, float] = (0.0, 1.0)) -> Verdicts:
    """What a classifier makes of uint8 images (n, ...), one by one.

    Args:
        model: ends with a softmax, after at least one hidden layer: the last one's outputs are the features.
        scale: what it was trained to see the bytes 0 and 255 as.

    Raises:
        ShapeError: the images do not have the model's number of pixels.
        DataError: they are not uint8, or there are none.
    """
    data = ImageData(images, None, scale)
    if data.features != model.inputs:
        raise ShapeError(f"the judge sees {model.inputs} pixels, not {data.features}")
    labels, confidences, features = [], [], []
    for start in range(0, len(data), _BATCH):
        outputs = model.layer_outputs(data.inputs(slice(start, start + _BATCH), model.dtype))
        probabilities = np.asarray(outputs[-1])
        labels.append(probabilities.argmax(axis=1))
        confidences.append(probabilities.max(axis=1))
        features.append(np.asarray(outputs[-2]).reshape(len(probabilities), -1))
    return Verdicts(*map(np.concatenate, (labels, confidences, features)))


class Judge:
    """A classifier with the statistics of its features on real images.

    Args:
        model, scale: as :func:`look` has them.
        real: of the features on real images.
    """

    def __init__(self, model: Sequential, real: FeatureStatistics, scale: tuple[float, float] = (0.0, 1.0)) -> None:
        self.model = model
        self.real = real
        self.scale = scale

    def look(self, images: Array) -> Verdicts:
        """Judge uint8 images (n, ...) one by one; raises as :func:`look` does."""
        return look(self.model, images, self.scale)

    def score(self, images: Array) -> dict[str, float]:
        """Judge images (n, ...) together, n at least 2.

        - ``mode_coverage``: share of the classes with at least 0.3 of an equal share of the images, which is 3% of
          them for ten classes.
        - ``min_class_share``: share of the images in the rarest class.
        - ``class_entropy``: of the classes' shares, 1 where all are equal, 0 where there is only one. The
          Kullback-Leibler divergence to equal shares is ``(1 - class_entropy) * ln(classes)``.
        - ``confidence``: mean probability of the class that each image was taken for.
        - ``frechet_distance``: of the features to those of real images (:func:`frechet_distance`).
        """
        verdicts = self.look(images)
        counts = np.bincount(verdicts.labels, minlength=self.model.units)
        shares = counts / len(images)
        some = shares[shares > 0]
        return {
            "mode_coverage": float(np.mean(counts * len(counts) >= _COVERED * len(images))),
            "min_class_share": float(shares.min()),
            "class_entropy": abs(float((some * np.log(some)).sum())) / math.log(len(shares)),
            "confidence": float(np.mean(verdicts.confidences, dtype=np.float64)),
            "frechet_distance": frechet_distance(self.real, FeatureStatistics.of(verdicts.features)),
        }
