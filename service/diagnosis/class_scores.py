"""Precision, recall and F1 of each class, from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well one class is recognised. ``None`` where a ratio would divide by zero."""

    support: int
    """Images of this class."""
    precision: float | None
    """Of the images predicted as this class, the fraction that belong to it; ``None``: never predicted."""
    recall: float | None
    """Of the images of this class, the fraction that were predicted as it; ``None``: no such image."""
    f1: float | None
    """Harmonic mean of precision and recall; ``None``: neither present nor predicted."""


@dataclass(frozen=True, slots=True)
class ClassScores:
    """The scores of all classes, and their unweighted means.

    The means are those of scikit-learn. F1 and precision average over the classes that are present or predicted,
    where a class that was never predicted has a precision of 0; recall averages over the classes that are present.
    """

    classes: tuple[ClassScore, ...]
    macro_precision: float | None
    balanced_accuracy: float | None
    """Mean recall."""
    macro_f1: float | None


def class_scores(matrix: Sequence[Sequence[int]]) -> ClassScores:
    """Score each class.

    Args:
        matrix: square; a row for each true class, a column for each predicted one.
    """
    predicted_totals = [sum(column) for column in zip(*matrix, strict=True)]
    classes = []
    for index, (row, predicted) in enumerate(zip(matrix, predicted_totals, strict=True)):
        support, correct = sum(row), row[index]
        classes.append(
            ClassScore(
                support=support,
                precision=_ratio(correct, predicted),
                recall=_ratio(correct, support),
                f1=_ratio(2 * correct, support + predicted),
            )
        )
    scored = [score for score in classes if score.f1 is not None]
    return ClassScores(
        classes=tuple(classes),
        macro_precision=_mean([score.precision or 0.0 for score in scored]),
        balanced_accuracy=_mean([score.recall for score in scored if score.recall is not None]),
        macro_f1=_mean([score.f1 for score in scored if score.f1 is not None]),
    )


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None
