"""Labels: integers that say which of the classes an image is of."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.errors import DataError, ShapeError
from engine.recording import Array


def one_hot(labels: Array, classes: int, dtype: Any) -> Array:
    """Rows of zeros with a one at each label: (batch,) integers to (batch, classes)."""
    rows: Array = np.zeros((len(labels), classes), dtype)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def check_labels(labels: Array, count: int, classes: int) -> None:
    """Raise unless ``labels`` are ``count`` integers in [0, classes), at least one.

    Raises:
        DataError: empty, not integers, or out of range.
        ShapeError: not of shape (count,).
    """
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise ShapeError(
            f"labels of shape {labels.shape} for a batch of {count}",
            operation="labels",
            shapes=(labels.shape, (count,)),
        )
    if count == 0:
        raise DataError("an empty batch has no loss")
    if labels.dtype.kind not in "ui":
        raise DataError(f"labels must be integers, not {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(f"labels range from {low} to {high}, but there are {classes} classes: 0 to {classes - 1}")
