"""The findings of classifiers and regressors."""

from __future__ import annotations

from typing import Final

from service.states import FindingCode

CODES: Final = (
    FindingCode.DIVERGING,
    FindingCode.VANISHING_GRADIENT,
    FindingCode.OVERFITTING,
    FindingCode.DEAD_UNITS,
    FindingCode.SATURATION,
    FindingCode.LEAK,
)
