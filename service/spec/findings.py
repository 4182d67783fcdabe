"""The findings that each kind of training can have."""

from __future__ import annotations

from typing import Final

from service.spec.schema import GAN_FINDINGS, SUPERVISED_FINDINGS, Kind
from service.states import FindingCode

CODES: Final[dict[Kind, tuple[FindingCode, ...]]] = {
    Kind.CLASSIFIER: SUPERVISED_FINDINGS,
    Kind.REGRESSOR: SUPERVISED_FINDINGS,
    Kind.GAN: GAN_FINDINGS,
}
"""The findings that a training of a kind can have. ``diagnosis.rules`` has a rule for each."""
