"""The contents of an export as plain data, without NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from service.storage.tables import Epoch, Job


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample grid of the job, which is read on demand."""

    epoch: int
    created_ms: int
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Pictures of a job, drawn or read on demand."""

    samples: Sequence[Sample]
    curves: Callable[[], bytes]
    """A PNG."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """The facts about a job that exports contain.

    Attributes:
        checkpoint_epoch: 0 if the export has no weights.
    """

    job: Job
    title: str
    epochs: Sequence[Epoch]
    checkpoint_epoch: int
    dataset_title: str
    dataset_source: str
    license: str | None

    @property
    def test_epoch(self) -> int | None:
        """The epoch whose weights were scored on the test part; ``None``: they were not."""
        return (self.job.test_scores or {}).get("test_epoch")

    @property
    def test_scores(self) -> Mapping[str, float | None]:
        """The scores on the test part, if there are any."""
        scores = self.job.test_scores or {}
        return {name: value for name, value in scores.items() if name not in ("test_epoch", "test_count")}

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """The metrics of the exported epoch, with the test scores if its weights were scored."""
        exported = next((row.metrics for row in self.epochs if row.epoch == self.checkpoint_epoch), {})
        return {**exported, **self.test_scores} if self.checkpoint_epoch == self.test_epoch else exported
