"""Spectral normalization (Miyato et al. 2018, "Spectral normalization for GANs"): weights with the largest singular
value 1, so that a layer never lengthens a difference of its inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from engine import ops
from engine.autograd.graph import Array, running
from engine.autograd.tensor import plain

_LEAST = 1e-12
"""What a length is at least, so that nothing is divided by 0."""


class SpectralNorm:
    """Divides weights (..., units) by their largest singular value, as rows of inputs times columns of units.

    The value is found by power iteration, one step in each pass with ``training=True``, from the vector of the pass
    before: Algorithm 1. That vector is a buffer. Outside training it stays.

    Args:
        units: size of the weights' last axis.
        rng: draws the first vector.
    """

    def __init__(self, units: int, *, rng: np.random.Generator, dtype: DTypeLike) -> None:
        vector = rng.standard_normal(units)
        self.vector: Array = (vector / np.linalg.norm(vector)).astype(dtype)

    def __call__(self, weight: Any, *, training: bool) -> Any:
        """The normalized weights; their gradient counts the singular value in, and its vectors as constants."""
        matrix = np.reshape(plain(weight), (-1, len(self.vector)))
        kept = self.vector.view(running.array_class)  # a traced view, so that a replay repeats the update
        left = _unit(np.matmul(matrix, kept))
        right = np.multiply(kept, 1)
        if training:
            right = _unit(np.matmul(left, matrix))
            np.multiply(right, 1, out=kept)
        direction = np.reshape(np.multiply(np.reshape(left, (-1, 1)), right), weight.shape)
        return ops.divide(weight, ops.sum(ops.multiply(weight, direction)))


def _unit(vector: Array) -> Array:
    return np.divide(vector, np.maximum(np.sqrt(np.vecdot(vector, vector)), _LEAST))
