"""Spectral normalization (Miyato et al. 2018, "Spectral normalization for GANs"): weights whose largest singular value
is 1, so that a layer never increases the distance between two inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from engine import ops
from engine.autograd.graph import Array
from engine.autograd.tensor import untracked
from engine.autograd.tracing import computing

_MIN_LENGTH = 1e-12
"""Lower bound of lengths, to avoid division by zero."""


class SpectralNorm:
    """Divides weights (..., units), seen as a matrix (inputs, units), by their largest singular value.

    The value is estimated by power iteration (Algorithm 1), with one step in each pass with ``training=True`` that
    starts from the vector of the previous pass. The vector is a buffer; inference does not change it.

    Args:
        units: size of the last axis of the weights.
        rng: generator for the initial vector.
    """

    def __init__(self, units: int, *, rng: np.random.Generator, dtype: DTypeLike) -> None:
        vector = rng.standard_normal(units)
        self.vector: Array = (vector / np.linalg.norm(vector)).astype(dtype)

    def __call__(self, weight: Any, *, training: bool) -> Any:
        """The normalized weights. Gradients flow through the singular value, but not through its vectors."""
        matrix = np.reshape(untracked(weight), (-1, len(self.vector)))
        vector = self.vector.view(computing.array_class)  # a traced view, so that a replay repeats the update
        left = _unit(np.matmul(matrix, vector))
        right = np.multiply(vector, 1)
        if training:
            right = _unit(np.matmul(left, matrix))
            np.multiply(right, 1, out=vector)
        direction = np.reshape(np.multiply(np.reshape(left, (-1, 1)), right), weight.shape)
        return ops.divide(weight, ops.sum(ops.multiply(weight, direction)))


def _unit(vector: Array) -> Array:
    return np.divide(vector, np.maximum(np.sqrt(np.vecdot(vector, vector)), _MIN_LENGTH))
