"""The first epoch in which two results differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ConfigDict

from service.jobs import commits
from service.storage.tables import Epoch, Job


@dataclass(frozen=True, slots=True)
class DifferingEpoch:
    """The first epoch whose stored results differ."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    epoch: int
    differs: list[str]
    """Names of metrics, `samples`, `weights` or `test scores`."""


def first_difference(a: Job, b: Job, epochs_a: Sequence[Epoch], epochs_b: Sequence[Epoch]) -> DifferingEpoch | None:
    """Compare the epochs that both jobs have and, if both end with the same epoch, the rest of the result."""
    by_epoch = {row.epoch: row for row in epochs_b}
    for row in epochs_a:
        other = by_epoch.get(row.epoch)
        if other is None:
            continue
        differs = commits.differing(row.metrics, other.metrics)
        if row.samples_digest and other.samples_digest and row.samples_digest != other.samples_digest:
            differs.append("samples")
        if differs:
            return DifferingEpoch(row.epoch, differs)
    is_comparable = a.epoch == b.epoch and a.result_digest and b.result_digest
    if is_comparable and a.result_digest != b.result_digest:
        return DifferingEpoch(a.epoch, [commits.final_difference(a, b)])
    return None
