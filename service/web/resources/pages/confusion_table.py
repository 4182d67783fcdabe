"""The confusion matrix on the page of a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from service.storage.tables import Epoch, Job
from service.web.inference.loading import class_names
from service.web.schemas.inference import ConfusionMatrix

_HEAT_LEVELS: Final = 5
_FEW_CLASSES: Final = 12
"""A matrix with at most this many classes fits on a phone."""


def represent(job: Job, shown: Epoch | None) -> dict[str, Any] | None:
    """The matrix and scores of an epoch, with a tint for each cell."""
    if shown is None or shown.confusion is None:
        return None
    names = class_names(job, len(shown.confusion))
    return {
        "names": names,
        "rows": [_row(actual, counts, names) for actual, counts in enumerate(shown.confusion)],
        "is_small": len(names) <= _FEW_CLASSES,
        "scores": ConfusionMatrix.of(shown.epoch, names, shown.confusion),
        "total": sum(map(sum, shown.confusion)),
    }


def _row(actual: int, counts: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    return {"index": actual, "name": names[actual], "cells": _cells(actual, counts, names)}


def _cells(actual: int, counts: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    # Mistakes have a scale of their own: next to correct predictions, none would be visible.
    max_mistakes = max((count for predicted, count in enumerate(counts) if predicted != actual), default=0)
    cells = []
    for predicted, count in enumerate(counts):
        is_correct = predicted == actual
        ratio = count / (sum(counts) if is_correct else max(max_mistakes, 5)) if count else 0.0
        heat = 0 if not count else max(1, round(_HEAT_LEVELS * ratio))
        cells.append({"count": count, "right": is_correct, "heat": heat, "name": names[predicted]})
    return cells
