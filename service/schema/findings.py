"""Findings: detected training failures, and advice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.states import FindingCode, Severity


@dataclass(frozen=True, slots=True)
class Advice:
    """A change of the spec to try.

    Attributes:
        settings: settings by dotted name, to be changed together; empty if the reason names only a direction.
        reason: why, or what to know; may be empty.
    """

    settings: Mapping[str, Any]
    reason: str = ""

    @property
    def text(self) -> str:
        """The advice on one line: ``initializer=glorot optimizer.name=adam; together: neither suffices alone``."""
        return "; ".join(filter(None, [" ".join(assignments(self.settings)), self.reason]))


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """Settings as ``--set`` takes them: ``optimizer.beta1=0.5``; what is not a word is compact JSON."""
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        for name, value in settings.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A training failure, as it was when it was detected."""

    code: FindingCode
    severity: Severity
    epoch: int
    """The epoch after which it was detected."""
    message: str
    numbers: Mapping[str, float]
    advice: Sequence[Advice]

    def document(self) -> dict[str, Any]:
        """The finding as a JSON document; ``steps`` is as data what ``advice`` is as text, for the previous release."""
        return {
            "code": self.code.value,
            "severity": self.severity.value,
            "epoch": self.epoch,
            "message": self.message,
            "numbers": dict(self.numbers),
            "advice": [item.text for item in self.advice],
            "steps": [{"settings": dict(item.settings), "reason": item.reason} for item in self.advice],
        }


def with_steps(stored: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stored findings, with their advice as data. Releases up to 0.2 recorded text only: it is the reason then."""
    found = []
    for finding in stored:
        advice = finding.get("steps", finding["advice"])
        as_data = [{"settings": {}, "reason": item} if isinstance(item, str) else item for item in advice]
        found.append({**finding, "advice": as_data})
    return found
