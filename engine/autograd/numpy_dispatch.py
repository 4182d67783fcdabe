"""What a tape does with a NumPy function: the tables that tensors look into, filled by :mod:`engine.ops`.

A function in none of them is refused on a tape: NumPy would give a value without a gradient.
"""

from __future__ import annotations

import functools
import inspect
import sys
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

WRITERS: set[Callable[..., Any]] = {np.copyto, np.put, np.place, np.putmask, np.fill_diagonal, np.put_along_axis}
"""NumPy functions that write into their first argument."""


@functools.cache
def out_position(function: Callable[..., Any]) -> int:
    """Where a NumPy function takes ``out`` when it is given without its name."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some are written in C
        return sys.maxsize
    named = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    return named.index("out") if "out" in named else sys.maxsize


def no_gradient(name: str) -> GradientError:
    """The error for a function, here called ``name``, that has no gradient."""
    return GradientError(
        f"{name} has no gradient; call it on np.asarray(tensor) if none should flow through it", operation=name
    )
