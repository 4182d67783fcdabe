"""Selects the examples of a part to show."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def class_counts(labels: NDArray[Any], classes: int) -> list[int]:
    """Number of examples of each class."""
    counts: list[int] = np.bincount(labels, minlength=classes).tolist()
    return counts


def page_indices(
    labels: NDArray[Any], label: int | None, *, start: int, limit: int, mixed: bool = False
) -> tuple[list[int], int | None]:
    """The first indices from ``start`` on with this label, and the start of the next page.

    Args:
        label: ``None`` for any label.
        mixed: for any label, alternate between the classes; ``start`` is then a position in this order.
    """
    shown: list[int]
    if label is None and mixed:
        shown = _mixed(labels)[start : start + limit].tolist()
        return shown, start + limit if start + limit < len(labels) else None
    if label is None:
        indices = np.arange(start, min(start + limit + 1, len(labels)))
    else:
        indices = start + np.flatnonzero(labels[start:] == label)[: limit + 1]
    shown = indices[:limit].tolist()
    return shown, int(indices[limit]) if len(indices) > limit else None


def _mixed(labels: NDArray[Any]) -> NDArray[np.intp]:
    """All indices: the first example of each class, then the second ones, and so on."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    nth = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return by_class[np.argsort(nth, kind="stable")]
