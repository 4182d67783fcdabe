"""The findings of GANs."""

from __future__ import annotations

from typing import Final

from service.states import FindingCode

CODES: Final = (
    FindingCode.MODE_COLLAPSE,
    FindingCode.DISCRIMINATOR_WINS,
    FindingCode.VANISHING_GRADIENT,
    FindingCode.DIVERGING,
    FindingCode.DEAD_UNITS,
    FindingCode.SATURATION,
)
