"""The mean and the standard deviation of numbers of any size, for every number that a table may contain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def moments(values: NDArray[np.float64]) -> tuple[float, float]:
    """The mean and the standard deviation (of the population) of finite numbers (n,), n at least 1.

    Both are right to a few units in the last place: equal numbers have themselves as their mean and deviation 0, the
    mean lies between the extremes, and no square is too large or too small for a float. The numbers are divided by a
    power of two, which rounds nothing, and the mean is corrected by that of the deviations from it (two-pass algorithm,
    Chan, Golub & LeVeque 1983).
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low, 0.0
    exponent = exponent_of(values)
    scaled = np.ldexp(values, -exponent)
    centre = scaled.mean()
    centre += (scaled - centre).mean()
    distances = scaled - centre
    inner = exponent_of(distances)
    deviation = np.ldexp(np.sqrt(np.square(np.ldexp(distances, -inner)).mean()), exponent + inner)
    return min(max(float(np.ldexp(centre, exponent)), low), high), float(deviation)


def exponent_of(values: NDArray[np.float64]) -> int:
    """The power of two by which finite numbers are divided so that the largest is at least 1/2 and below 1."""
    return int(np.frexp(np.abs(values).max(initial=0.0))[1])


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each number (n,), from 0; equal ones share their mean rank."""
    _, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[indices])
