"""The result of ``Client.bisect``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

Measured = tuple[int, float | None]
"""An epoch, and the metric's value in it; ``None`` if it was not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """The epoch from which a metric is bad to the end, and how it was found."""

    metric: str
    epoch: int
    value: float | None
    before: Measured | None
    """The epoch before it, which is good, and its value; ``None`` if ``epoch`` is the first."""
    probes: Sequence[Measured]
    """The probed epochs with their values, in order."""
    times: int
    """How often the metric turned from good to bad."""
    checkpoint: int | None
    """The last kept checkpoint before it, to fork from."""
    sentence: str
    """The result in words."""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read the document of the API."""
        fields = {name: document[name] for name in ("metric", "epoch", "value", "times", "checkpoint", "sentence")}
        before = _pair(document["before"]) if document["before"] is not None else None
        return cls(before=before, probes=[_pair(probe) for probe in document["probes"]], **fields)


def _pair(document: Mapping[str, Any]) -> Measured:
    return document["epoch"], document["value"]
