"""Use case: find the epoch from which a metric of a job is bad, by bisection."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from service.errors import UnusableParameter
from service.jobs.queries import lookup
from service.spec.fields import suggest_metric
from service.spec.metric_info import describe, number
from service.storage.artifacts import ArtifactKind

_MAX_NAMED_SPANS: Final = 5
"""Maximum number of other bad spans that the sentence lists."""
Measured = tuple[int, float | None]
"""An epoch, and the metric's value in it; ``None``: it was not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Which values are bad: those below or above a value, and those that are not finite."""

    below: float | None = None
    above: float | None = None

    @property
    def parameter(self) -> str:
        """The name of the side that is limited."""
        return "above" if self.below is None else "below"

    def text(self, metric: str) -> str:
        """The limit in words."""
        return f"{self.parameter} {number(metric, self.above if self.below is None else self.below)}"

    def is_bad(self, value: float | None) -> bool:
        """Whether a value is beyond the limit."""
        if value is None:
            return True
        return value < self.below if self.below is not None else self.above is not None and value > self.above


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """The epoch from which a metric is bad to the end, and how it was found."""

    metric: str
    limit: Limit
    epoch: int
    value: float | None
    before: Measured | None
    """The previous epoch that measured the metric, which is good; ``None``: there is none."""
    probes: Sequence[Measured]
    """Epochs that the search evaluated, in order."""
    spans: Sequence[tuple[int, int]]
    """The first and last epoch of each span in which the metric was bad, in order."""
    checkpoint: int | None
    """The epoch of the last kept checkpoint before it, to fork from."""

    @property
    def times(self) -> int:
        """The number of times that the metric turned bad."""
        return len(self.spans)

    @property
    def sentence(self) -> str:
        """The result in words."""
        label, value = describe(self.metric).label, _text(self.metric, self.value)
        if self.before is None:
            sentence = f"Epoch {self.epoch}, the first that measured it, is already bad: {label} {value}."
        else:
            epoch, good = self.before
            is_only_span = len(self.spans) == 1
            opening = (
                f"Epoch {self.epoch} is the first bad one"
                if is_only_span
                else f"Bad from epoch {self.epoch} to the end"
            )
            sentence = f"{opening}: {label} {value}, after {_text(self.metric, good)} in epoch {epoch}."
        if others := [span for span in self.spans if span[0] != self.epoch]:
            span_texts = [
                f"{first}\N{EN DASH}{last}" if last > first else str(first) for first, last in others[:_MAX_NAMED_SPANS]
            ]
            further = f" and {len(others) - _MAX_NAMED_SPANS:,} more times" if len(others) > _MAX_NAMED_SPANS else ""
            is_single_epoch = len(others) == 1 and others[0][0] == others[0][1]
            sentence += (
                f" It is also bad in {'epoch' if is_single_epoch else 'epochs'} {', '.join(span_texts)}{further}."
            )
        if self.checkpoint is None:
            return f"{sentence} No checkpoint before it is kept."
        with_checkpoint = f"{sentence} The last checkpoint before it is that of epoch {self.checkpoint}"
        if self.before is not None and self.before[0] > self.checkpoint:
            return f"{with_checkpoint}; that of epoch {self.before[0]} was not kept."
        return f"{with_checkpoint}."


def bisect(session: Session, job_id: str, metric: str, limit: Limit, *, owner: str | None) -> Bisection:
    """Find the epoch of a job from which a metric is bad.

    Raises:
        JobNotFound: the job does not exist.
        UnusableParameter: the job has no such metric, or its last value is good.
    """
    if (limit.below is None) == (limit.above is None):
        raise UnusableParameter("below", "give exactly one of below and above")
    job = lookup.get(session, job_id, owner=owner)
    lookup.require_training("metric", job)
    epochs = lookup.epochs(session, job.id)
    measured = [(row.epoch, row.metrics[metric]) for row in epochs if metric in row.metrics]
    if not measured:
        names = sorted({name for row in epochs for name in row.metrics})
        raise UnusableParameter(
            "metric", f"the job has no metric {metric!r}; {suggest_metric(metric, names, 'it has')}"
        )
    checkpoint_epochs = [row.epoch for row in lookup.artifacts(session, job.id, ArtifactKind.CHECKPOINT)]
    return find(measured, checkpoint_epochs, metric=metric, limit=limit)


def find(
    measured: Sequence[Measured], checkpoint_epochs: Sequence[int | None], *, metric: str, limit: Limit
) -> Bisection:
    """Find by bisection from which epoch all values are bad; the last value must be bad.

    Args:
        measured: epochs and values, in order; at least one.
        checkpoint_epochs: epochs of the kept checkpoints.

    Raises:
        UnusableParameter: the last epoch is good.
    """
    bad = [limit.is_bad(value) for _, value in measured]
    if not bad[-1]:
        raise UnusableParameter(limit.parameter, _explain_none(measured, bad, metric, limit))
    # The metric may be bad for a while and recover; "bad from here to the end" turns true only once.
    stays_bad = list(itertools.accumulate(reversed(bad), operator.and_))[::-1]
    low, high, probes = 0, len(measured) - 1, list[Measured]()
    while low < high:
        middle = (low + high) // 2
        probes.append(measured[middle])
        if stays_bad[middle]:
            high = middle
        else:
            low = middle + 1
    epoch, value = measured[high]
    return Bisection(
        metric=metric,
        limit=limit,
        epoch=epoch,
        value=value,
        before=measured[high - 1] if high else None,
        probes=probes,
        spans=_spans([n for n, _ in measured], bad),
        checkpoint=max((n for n in checkpoint_epochs if n is not None and n < epoch), default=None),
    )


def _spans(epochs: Sequence[int], bad: Sequence[bool]) -> list[tuple[int, int]]:
    spans = []
    for is_bad, group in itertools.groupby(zip(epochs, bad, strict=True), key=lambda pair: pair[1]):
        span_epochs = [epoch for epoch, _ in group]
        spans += [(span_epochs[0], span_epochs[-1])] if is_bad else []
    return spans


def _explain_none(measured: Sequence[Measured], bad: Sequence[bool], metric: str, limit: Limit) -> str:
    epoch, value = measured[-1]
    label = describe(metric).label
    message = f"{label} is {_text(metric, value)} in epoch {epoch}, the last that measured it: not {limit.text(metric)}"
    bad_epochs = [n for (n, _), is_bad in zip(measured, bad, strict=True) if is_bad]
    return f"{message}; it was last in epoch {bad_epochs[-1]}" if bad_epochs else f"{message}, nor in any other epoch"


def _text(metric: str, value: float | None) -> str:
    return "not finite" if value is None else number(metric, value)
