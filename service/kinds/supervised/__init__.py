"""What classifiers and regressors share: one network that learns from examples with targets."""

from __future__ import annotations

from typing import Final

from service.states import FindingCode

FINDINGS: Final = (
    FindingCode.DIVERGING,
    FindingCode.VANISHING_GRADIENT,
    FindingCode.OVERFITTING,
    FindingCode.DEAD_UNITS,
    FindingCode.SATURATION,
    FindingCode.LEAK,
)
