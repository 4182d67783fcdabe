"""Why two jobs have different results."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from service.application.experiments.differences import Differences, Pair
from service.jobs.differences.tensors import TensorDifference
from service.spec.splits import VERSION_DIGITS
from service.web.http.queries import JobId, Query
from service.web.http.schemas import Answer
from service.wording import value_text


class DifferenceQuery(Query):
    """Which jobs to compare."""

    a: JobId = Field(description="A job's id, a trial (`swp_…:3`), or a sweep, for its best trial.")
    b: JobId = Field(description="What to compare it with, likewise.")


class DifferingValue(Answer):
    """Something in which the jobs differ."""

    name: str = Field(description="A JSON pointer into the spec, or a name in `provenance`.")
    label: str = Field(description="The name for people, such as `optimizer.learning_rate`.")
    a: Any
    b: Any
    text_a: str = Field(description="`a` for people: layers as `dense 128 relu, dropout 0.2, dense 10`.")
    text_b: str

    @classmethod
    def of(cls, pair: Pair) -> Self:
        """The response for a pair of values."""
        label = pair.name.removeprefix("/").replace("/", ".")
        return cls.represent(pair, label=label, text_a=value_text(pair.a), text_b=value_text(pair.b))

    @classmethod
    def of_data(cls, pair: Pair) -> Self:
        """The response for two versions of data, of whose SHA-256 people see as much as in the name of a version."""
        a, b = (str(digest).removeprefix("sha256:")[:VERSION_DIGITS] for digest in (pair.a, pair.b))
        return cls.represent(pair, label="data", text_a=a, text_b=b)


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
    same: bool = Field(description="Whether both have the same spec, data, environment and result.")
    data_differ: bool = Field(description="Whether they were scored on different data: their scores are not compared.")
    sentence: str = Field(description="The result in words.")

    @classmethod
    def of(cls, differences: Differences) -> Self:
        """The response for a pair of jobs."""
        epoch, checkpoint = differences.epoch, differences.checkpoint
        return cls(
            a=differences.a.id,
            b=differences.b.id,
            spec=[DifferingValue.of(pair) for pair in differences.spec],
            provenance=[DifferingValue.of(pair) for pair in differences.provenance],
            dataset=DifferingValue.of_data(differences.dataset) if differences.dataset is not None else None,
            epoch=DifferingEpoch(epoch=epoch.epoch, differs=epoch.differs) if epoch is not None else None,
            checkpoint=DifferingCheckpoint(
                epoch=checkpoint.epoch,
                last_equal=checkpoint.last_equal,
                first=DifferingElement.of_tensors(checkpoint.difference),
            )
            if checkpoint is not None
            else None,
            compared_epochs=differences.compared_epochs,
            same=differences.is_same,
            data_differ=differences.data is not None,
            sentence=differences.sentence,
        )
