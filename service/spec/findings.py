"""Findings: detected training failures, and the findings that each kind of training can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.spec.schema import Kind
from service.spec.schema.specs import GAN_FINDINGS, SUPERVISED_FINDINGS
from service.states import FindingCode, Severity

CODES: Final[dict[Kind, tuple[FindingCode, ...]]] = {
    Kind.CLASSIFIER: SUPERVISED_FINDINGS,
    Kind.REGRESSOR: SUPERVISED_FINDINGS,
    Kind.GAN: GAN_FINDINGS,
}
"""The findings that a training of a kind can have. ``diagnosis.rules`` has a rule for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A training failure, as it was when it was detected."""

    code: FindingCode
    severity: Severity
    epoch: int
    """The epoch after which it was detected."""
    message: str
    numbers: Mapping[str, float]
    advice: Sequence[str]
    """Spec settings to try."""

    def document(self) -> dict[str, Any]:
        """The finding as a JSON document."""
        return {
            "code": self.code.value,
            "severity": self.severity.value,
            "epoch": self.epoch,
            "message": self.message,
            "numbers": dict(self.numbers),
            "advice": list(self.advice),
        }
