"""95% intervals of the metrics of a job, for the number of examples that were scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final, TypeGuard

from service.statistics import CONFIDENCE, wilson
from service.wording import GROUPED_FROM, SCIENTIFIC_FROM, rounded

_ACCURACIES: Final = ("val_accuracy", "test_accuracy")
_ERRORS: Final = ("val_rmse", "val_mae", "test_rmse", "test_mae")
METRICS_WITH_INTERVAL: Final = (*_ACCURACIES, *_ERRORS)


@dataclass(frozen=True, slots=True)
class MetricInterval:
    """A metric with its 95% interval.

    Attributes:
        n: number of examples that were scored; ``None``: unknown.
        text: in words, such as ``of 30, 95% CI 89% to 100%``.
    """

    value: float
    n: int | None
    low: float
    high: float
    text: str


def interval_of(name: str, scores: Mapping[str, Any], n: int | None) -> MetricInterval | None:
    """The interval of a metric: Wilson's for an accuracy; for an error in the unit of the target, the normal one by its
    standard error. ``None`` if the value, its standard error, or ``n`` of an accuracy is unknown.
    """
    value = scores.get(name)
    if name not in METRICS_WITH_INTERVAL or not _is_finite(value):
        return None
    if name in _ACCURACIES:
        if not n:
            return None
        low, high = wilson(value, n)
        digits = 0 if high - low > 0.02 else 1 if high - low > 0.002 else 2
        return MetricInterval(value, n, low, high, _text(n, f"{low:.{digits}%}", f"{high:.{digits}%}"))
    error = scores.get(f"{name}_error")
    if not _is_finite(error):
        return None
    half_width = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
    low, high = max(0.0, value - half_width), value + half_width
    return MetricInterval(value, n, low, high, _text(n, *_ends(low, high)))


def _text(n: int | None, low: str, high: str) -> str:
    return f"{f'of {n:,}, ' if n else ''}95% CI {low} to {high}"


def _ends(low: float, high: float) -> tuple[str, str]:
    """Both ends to three digits of their distance, so that a narrow interval keeps its width."""
    if not high > low:
        return rounded(low), rounded(high)
    decimals = 2 - math.floor(math.log10(high - low))
    digits = max(decimals + math.floor(math.log10(high)) + 1, 1)
    if 1e-3 <= high < SCIENTIFIC_FROM:
        comma = "," if high >= GROUPED_FROM else ""
        low_text, high_text = (f"{round(end, decimals):{comma}.{max(decimals, 0)}f}" for end in (low, high))
    else:
        low_text, high_text = (f"{end:.{digits}g}" for end in (low, high))
    return low_text, high_text


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
