"""The epoch from which a metric is bad."""

from __future__ import annotations

from typing import Self

from pydantic import Field, FiniteFloat

from service.application.experiments.bisection import Bisection, Measured
from service.web.http.queries import Query, Text
from service.web.http.schemas import Answer


class BisectionQuery(Query):
    """Which values are bad: exactly one of `below` and `above`."""

    metric: Text = Field(description="For example `val_accuracy`.")
    below: FiniteFloat | None = Field(None, description="Values below this are bad.")
    above: FiniteFloat | None = Field(None, description="Values above this are bad.")


class MeasuredEpoch(Answer):
    """The value of a metric in an epoch."""

    epoch: int
    value: float | None = Field(description="Null: it was not finite.")

    @classmethod
    def of(cls, measured: Measured) -> Self:
        """The response for a value."""
        return cls(epoch=measured[0], value=measured[1])


class BisectionAnswer(Answer):
    """The epoch from which a metric is bad to the end."""

    metric: str
    epoch: int = Field(description="The epoch from which all values are bad.")
    value: float | None = Field(description="Its value; null: it was not finite.")
    before: MeasuredEpoch | None = Field(
        description="The epoch before it that measured the metric, which is good; null: it is the first."
    )
    probes: list[MeasuredEpoch] = Field(description="Epochs that were looked at, in order.")
    times: int = Field(description="How often the metric turned from good to bad; `epoch` is one of these.")
    checkpoint: int | None = Field(description="The epoch of the last kept checkpoint before it, to fork from.")
    sentence: str = Field(description="The result in words.")

    @classmethod
    def of(cls, result: Bisection) -> Self:
        """The response for a result."""
        before = MeasuredEpoch.of(result.before) if result.before is not None else None
        return cls.represent(result, before=before, probes=[MeasuredEpoch.of(probe) for probe in result.probes])
