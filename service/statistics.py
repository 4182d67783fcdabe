"""Confidence intervals of means and proportions, and Student's t tests for differences of means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final

CONFIDENCE: Final = 0.95
UNLIMITED: Final = (-math.inf, math.inf)

_TINY: Final = 1e-300
_CONVERGED: Final = 1e-16
_MAX_TERMS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """A t test of the hypothesis that a mean difference is zero."""

    difference: float
    low: float
    high: float
    """Bounds of the confidence interval."""
    t: float
    """The t statistic; infinite if the differences do not vary."""
    degrees_of_freedom: float
    p: float
    """The two-sided p value."""


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of finite values, with a sum that is rounded only once."""
    try:
        return math.fsum(values) / len(values)
    except OverflowError:  # of the sum; the mean is between the values
        scale = 2.0 ** len(values).bit_length()
        centre = math.fsum(value / scale for value in values) / len(values) * scale
        return max(min(values), min(centre, max(values)))


def interval(
    values: Sequence[float], *, confidence: float = CONFIDENCE, limits: tuple[float, float] = UNLIMITED
) -> tuple[float, float] | tuple[None, None]:
    """Student's confidence interval of the mean; ``None`` with fewer than two values, or where ``paired`` returns
    ``None``.

    Args:
        limits: of the values, such as 0 and 1. The true mean is within them, so the interval, which is clipped
            there, covers it equally often.
    """
    scale = scale_of(values)
    if scale is None or len(values) < 2:
        return None, None
    scaled = [value / scale for value in values]
    test = _test(mean(scaled), _variance(scaled) / len(scaled), len(scaled) - 1.0, confidence, scale=scale)
    return (max(test.low, limits[0]), min(test.high, limits[1])) if test is not None else (None, None)


def wilson(proportion: float, n: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion of ``n``, at least 1, independent examples (Wilson 1927).

    It stays within [0, 1], and has a width also where all examples, or none, count.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre, square = proportion + z * z / (2 * n), z * z / (4 * n * n)
    half_width = z * math.sqrt(proportion * (1 - proportion) / n + square)
    low, high = ((centre + sign * half_width) / (1 + z * z / n) for sign in (-1, 1))
    return max(0.0, min(low, proportion)), min(1.0, max(high, proportion))


def paired(a: Sequence[float], b: Sequence[float], *, confidence: float = CONFIDENCE) -> Test | None:
    """The paired t test of ``b - a``. Needs at least two pairs.

    ``None`` if a value is not finite, or a difference or an end of the interval is too large for a float.
    """
    differences = [second - first for first, second in zip(a, b, strict=True)]
    scale = scale_of(differences)
    if scale is None:
        return None
    scaled = [difference / scale for difference in differences]
    return _test(mean(scaled), _variance(scaled) / len(scaled), len(scaled) - 1.0, confidence, scale=scale)


def welch(a: Sequence[float], b: Sequence[float], *, confidence: float = CONFIDENCE) -> Test | None:
    """Welch's t test of ``mean(b) - mean(a)`` for groups with different variances. Each needs at least two values.

    The degrees of freedom follow Welch (1947) and Satterthwaite (1946). ``None`` as for ``paired``.
    """
    scale = scale_of([*a, *b])
    if scale is None:
        return None
    a, b = ([value / scale for value in group] for group in (a, b))
    first, second = _variance(a) / len(a), _variance(b) / len(b)
    total = first + second
    if total > 0:  # as fractions of the total: their squares do not underflow together
        degrees = 1 / ((first / total) ** 2 / (len(a) - 1) + (second / total) ** 2 / (len(b) - 1))
    else:
        degrees = len(a) + len(b) - 2.0
    return _test(mean(b) - mean(a), total, degrees, confidence, scale=scale)


def scale_of(values: Sequence[float]) -> float | None:
    """A power of two by which finite values can be divided without rounding, so that their squares neither overflow nor
    all underflow; ``None`` if a value is not finite."""
    if not all(map(math.isfinite, values)):
        return None
    largest = max(map(abs, values), default=0.0)
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest else 1.0


def _test(difference: float, variance: float, degrees: float, confidence: float, *, scale: float) -> Test | None:
    """The test for values that were divided by ``scale``."""
    error = math.sqrt(variance)
    if error == 0:
        t, p = (math.copysign(math.inf, difference), 0.0) if difference else (0.0, 1.0)
    else:
        t = difference / error
        p = p_value(t, degrees)
    half_width = quantile(confidence, degrees) * error
    low, high = (difference - half_width) * scale, (difference + half_width) * scale
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return Test(
        difference=difference * scale,
        low=low,
        high=high,
        t=t,
        degrees_of_freedom=degrees,
        p=p,
    )


def _variance(values: Sequence[float]) -> float:
    centre = mean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)


def p_value(t: float, degrees: float) -> float:
    """The two-sided probability of a value at least as far from zero as ``t`` (DLMF 8.17.E1 with x = v/(v+t^2)).

    Args:
        degrees: degrees of freedom, above 0.
    """
    square = t * t
    if square < degrees:  # near zero, use the complement to keep precision
        return 1.0 - incomplete_beta(0.5, degrees / 2, square / (degrees + square))
    return incomplete_beta(degrees / 2, 0.5, degrees / (degrees + square))


@lru_cache(maxsize=512)  # a table of trials needs the same few quantiles again and again
def quantile(confidence: float, degrees: float) -> float:
    """The t whose absolute value is exceeded with probability 1 - ``confidence``.

    Newton's method inside a bracket, with a bisection step whenever Newton's step leaves it.
    """
    outside = 1.0 - confidence
    low, high = 0.0, 1.0
    while p_value(high, degrees) > outside:
        low, high = high, 2 * high
    scale = -_log_beta(degrees / 2, 0.5) - 0.5 * math.log(degrees)
    t = (low + high) / 2
    for _ in range(200):
        excess = p_value(t, degrees) - outside
        low, high = (t, high) if excess > 0 else (low, t)
        density = math.exp(scale - (degrees + 1) / 2 * math.log1p(t * t / degrees))
        step = t + excess / (2 * density)
        next_t = step if low < step < high else (low + high) / 2
        if abs(next_t - t) <= 1e-15 * t:
            return next_t
        t = next_t
    return t


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), for 0 <= x <= 1.

    Uses the continued fraction DLMF 8.17.E22, evaluated by the modified method of Lentz (Thompson and Barnett 1986). It
    converges quickly for x < (a + 1) / (a + b + 2); otherwise, I_x(a, b) = 1 - I_{1-x}(b, a) (DLMF 8.17.E4) is used.
    """
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _fraction(b, a, 1.0 - x, x)
    return _fraction(a, b, x, 1.0 - x)


def _fraction(a: float, b: float, x: float, complement: float) -> float:
    """``I_x(a, b)`` for x for which the continued fraction converges quickly; ``complement`` is 1 - x."""
    front = math.exp(a * math.log(x) + b * math.log(complement) - _log_beta(a, b)) / a
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _away_from_zero(1.0 + even * d)
        c = _away_from_zero(1.0 + even / c)
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / _away_from_zero(1.0 + odd * d)
        c = _away_from_zero(1.0 + odd / c)
        change = d * c
        value *= change
        if abs(change - 1.0) <= _CONVERGED:
            break
    return front * value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _log_beta(a: float, b: float) -> float:
    large, small = max(a, b), min(a, b)
    if small == 0.5 and large > 20:
        # The logarithms of both gamma functions are large and nearly equal. The series of their quotient (DLMF 5.11.13)
        # keeps the precision that a difference would lose.
        square = 1.0 / (large * large)
        series = -1 / 8 + square * (1 / 192 + square * (-1 / 640 + square * (17 / 14336 - square * 31 / 18432)))
        return 0.5 * math.log(math.pi / large) - series / large
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
