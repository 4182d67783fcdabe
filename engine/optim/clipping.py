"""Gradient clipping by global norm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engine.autograd.graph import Array
from engine.autograd.tracing import refuse_in_trace


def global_norm(gradients: Sequence[Array]) -> float:
    """The Euclidean norm of all gradients together, as if they were one vector."""
    squares = 0.0
    for gradient in gradients:
        # A dot product reads memory once and writes none. For a sum, the memory order does not matter.
        row = np.asarray(gradient).ravel(order="K")
        with np.errstate(over="ignore"):
            square = float(np.dot(row, row))
        if math.isinf(square):  # float32 ends at 3e38, so the square of a finite number may overflow
            wide = row.astype(np.float64)
            square = float(np.dot(wide, wide))
        squares += square
    return math.sqrt(squares)


def clip_by_global_norm(gradients: Sequence[Array], bound: float) -> float:
    """Scale all gradients by one factor, in place, so that their global norm is at most ``bound``.

    Algorithm 1 of Pascanu et al. 2013 (arXiv:1211.5063); the factor is ``bound / (norm + 1e-6)``, as in PyTorch.

    Returns:
        The norm before clipping.
    """
    refuse_in_trace("clip_by_global_norm")
    norm = global_norm(gradients)
    factor = bound / (norm + 1e-6)
    if factor < 1:
        for gradient in gradients:
            array = np.asarray(gradient)
            np.multiply(array, factor, out=array)
    return norm
