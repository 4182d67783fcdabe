"""Means of a few measurements with their 95% confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CONFIDENCE: Final = 0.95
_BISECTIONS: Final = 60
"""Enough bisections for the precision of a float."""


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of ``count`` measurements; deviation and margin are ``None`` for a single one."""

    count: int
    mean: float
    standard_deviation: float | None
    margin: float | None
    """Half the width of the confidence interval."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """The mean of at least one measurement, with Student's t interval."""
        mean, count = statistics.fmean(values), len(values)
        if count < 2:
            return cls(count, mean, None, None)
        deviation = statistics.stdev(values)
        return cls(count, mean, deviation, student_t(CONFIDENCE, count - 1) * deviation / math.sqrt(count))


def student_t(confidence: float, freedom: int) -> float:
    """The t with P(\\|T\\| <= t) = ``confidence`` for Student's distribution with ``freedom`` degrees of freedom.

    The probability is a finite sum of cosines of atan(t / sqrt(freedom)): Abramowitz and Stegun, Handbook of
    Mathematical Functions (1964), 26.7.3 and 26.7.4. It increases with that angle, so bisection finds the angle.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(_BISECTIONS):
        angle = (low + high) / 2
        low, high = (angle, high) if _probability_within(angle, freedom) < confidence else (low, angle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _probability_within(angle: float, freedom: int) -> float:
    odd = freedom % 2
    term, total, square = (math.cos(angle) if odd else 1.0), 0.0, math.cos(angle) ** 2
    for number in range(1 + odd, freedom, 2):
        total += term
        term *= square * number / (number + 1)
    if odd:
        return (angle + math.sin(angle) * total) * 2 / math.pi
    return math.sin(angle) * total
