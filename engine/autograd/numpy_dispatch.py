"""The tables that map NumPy functions to differentiable ones. :mod:`engine.ops` fills them; tensors use them.

On a tape, a function that is in none of the tables raises an error, because NumPy would return a value without a
gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.errors import GradientError

UFUNCS: dict[np.ufunc, Callable[..., Any]] = {}
"""Ufunc -> primitive, for ``np.add(x, y)`` and for the operators."""

REDUCTIONS: dict[np.ufunc, Callable[..., Any]] = {}
"""Ufunc -> primitive, for its ``reduce``: ``np.add.reduce`` is a sum."""

FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}
"""NumPy function -> primitive, or a function made of primitives."""

METHODS: dict[str, Callable[..., Any]] = {}
"""Name of an ndarray method -> primitive, or a function made of primitives."""

NO_GRADIENT: set[Callable[..., Any]] = set()
"""Functions and ufuncs whose result is constant almost everywhere: allowed on a tape, never recorded."""

CONVERSIONS = (
    *("__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__"),
    *("__format__", "__repr__", "__str__"),
)
"""Special methods that convert an array to a Python value, which leaves the trace of a replay."""

WRITERS: dict[Callable[..., Any], str] = {
    np.copyto: "dst",
    np.fill_diagonal: "a",
    np.place: "arr",
    np.put: "a",
    np.put_along_axis: "arr",
    np.putmask: "a",
}
"""NumPy functions that write into their first argument, and the name of that argument."""


def no_gradient(name: str) -> GradientError:
    """The error for a function that has no gradient."""
    return GradientError(
        f"{name} has no gradient; call it on np.asarray(tensor) if none should flow through it", operation=name
    )
