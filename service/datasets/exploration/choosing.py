"""Selects the examples of a part to show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def class_counts(labels: NDArray[Any], classes: int) -> list[int]:
    """Number of examples of each class."""
    counted: list[int] = np.bincount(labels, minlength=classes).tolist()
    return counted


def places(labels: NDArray[Any], label: int | None, *, start: int, limit: int) -> tuple[list[int], int | None]:
    """The first indices from ``start`` on with this label, and the start of the next page.

    Args:
        label: ``None`` for any label.
    """
    if label is None:
        found = np.arange(start, min(start + limit + 1, len(labels)))
    else:
        found = start + np.flatnonzero(labels[start:] == label)[: limit + 1]
    shown: list[int] = found[:limit].tolist()
    return shown, int(found[limit]) if len(found) > limit else None
