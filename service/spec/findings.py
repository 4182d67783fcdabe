"""Findings: what is wrong with a training, and which of it is looked for in each kind of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.spec.schema import Kind
from service.spec.schema.specs import CLASSIFIER_FINDINGS, GAN_FINDINGS
from service.states import FindingCode, Severity

CODES: Final[dict[Kind, tuple[FindingCode, ...]]] = {
    Kind.CLASSIFIER: CLASSIFIER_FINDINGS,
    Kind.GAN: GAN_FINDINGS,
}
"""The findings that a training of a kind can have. ``diagnosis.rules`` has a rule for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with a training, as it was when it was found."""

    code: FindingCode
    severity: Severity
    epoch: int
    """The epoch after which it was found."""
    message: str
    numbers: Mapping[str, float]
    advice: Sequence[str]
    """What to try, in the words of a spec."""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "code": self.code.value,
            "severity": self.severity.value,
            "epoch": self.epoch,
            "message": self.message,
            "numbers": dict(self.numbers),
            "advice": list(self.advice),
        }
