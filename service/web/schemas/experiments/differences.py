"""Why two jobs have different results."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from service.application.experiments.differences import Differences
from service.jobs.differences.tensors import TensorDifference
from service.web.schemas.base import Answer
from service.web.schemas.queries import JobId, Query


class DifferenceQuery(Query):
    """Which jobs to compare."""

    a: JobId = Field(description="A job's id, a trial (`swp_…:3`), or a sweep, for its best trial.")
    b: JobId = Field(description="What to compare it with, likewise.")


class DifferingValue(Answer):
    """Something in which the jobs differ."""

    name: str = Field(description="A JSON pointer into the spec, or a name in `provenance`.")
    a: Any
    b: Any


class DifferingElement(Answer):
    """The first element in which the tensors of two checkpoints differ."""

    tensor: str
    element: list[int] = Field(description="Its index; empty if the shapes differ or one has no such tensor.")
    a: float | None
    b: float | None
    tensors: list[str] = Field(description="All tensors that differ.")

    @classmethod
    def of_tensors(cls, mismatch: TensorDifference) -> Self:
        """The response for a difference."""
        return cls(tensor=mismatch.tensor, element=mismatch.element, a=_finite(mismatch.a), b=_finite(mismatch.b),
                   tensors=mismatch.tensors)  # fmt: skip


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None


class DifferingEpoch(Answer):
    """The first epoch whose stored results differ."""

    epoch: int
    differs: list[str] = Field(description="Names of metrics, `samples`, `weights` or `test scores`.")


class DifferingCheckpoint(Answer):
    """The first kept checkpoints that differ."""

    epoch: int
    last_equal: int | None = Field(description="The last epoch before it whose kept checkpoints are equal.")
    first: DifferingElement


class DifferencesAnswer(Answer):
    """All that is stored in which two jobs differ."""

    a: str
    b: str
    spec: list[DifferingValue]
    provenance: list[DifferingValue]
    dataset: DifferingValue | None = Field(description="SHA-256 of the data, if they differ.")
    epoch: DifferingEpoch | None
    checkpoint: DifferingCheckpoint | None
    compared_epochs: int = Field(description="Epochs that both jobs have.")
    sentence: str = Field(description="The result in words.")

    @classmethod
    def of(cls, differences: Differences) -> Self:
        """The response for a pair of jobs."""
        epoch, checkpoint = differences.epoch, differences.checkpoint
        return cls(
            a=differences.a.id,
            b=differences.b.id,
            spec=[DifferingValue.represent(pair) for pair in differences.spec],
            provenance=[DifferingValue.represent(pair) for pair in differences.provenance],
            dataset=DifferingValue.represent(differences.dataset) if differences.dataset is not None else None,
            epoch=DifferingEpoch(epoch=epoch.epoch, differs=epoch.differs) if epoch is not None else None,
            checkpoint=DifferingCheckpoint(
                epoch=checkpoint.epoch,
                last_equal=checkpoint.last_equal,
                first=DifferingElement.of_tensors(checkpoint.difference),
            )
            if checkpoint is not None
            else None,
            compared_epochs=differences.compared_epochs,
            sentence=differences.sentence,
        )
